//! The cases of PolicyTests, run as the authorization service would decide them.

use std::sync::Arc;
use std::time::Instant;

use portcullis_admission::judge::{CaseName, CaseOutcome, Judge, Ran};
use portcullis_authz::policy_test;
use portcullis_policy::snapshot::Snapshot;

/// Runs cases with the reader of requests that `authz serve` has.
#[derive(Clone, Copy, Debug)]
pub struct Cases;

impl Judge for Cases {
    fn cases(
        &self,
        snapshot: &Arc<Snapshot>,
        wanted: &dyn Fn(CaseName<'_>) -> bool,
        until: Instant,
    ) -> Ran {
        let mut ran = Ran::default();
        for test in snapshot.policies().tests() {
            let meta = &test.meta;
            for case in &test.cases {
                let name = CaseName {
                    namespace: &meta.namespace,
                    test: &meta.name,
                    case: &case.name,
                };
                if !wanted(name) {
                    continue;
                }
                if Instant::now() >= until {
                    ran.left += 1;
                    continue;
                }
                let outcome = policy_test::run_case(snapshot, test, case);
                ran.outcomes.push(CaseOutcome {
                    namespace: meta.namespace.clone(),
                    test: meta.name.clone(),
                    case: outcome.name,
                    wanted: outcome.wanted.to_string(),
                    got: match outcome.got {
                        Ok(got) => format!("{} ({})", got.decision.as_str(), got.reason.as_str()),
                        Err(why) => why,
                    },
                    holds: outcome.holds,
                });
            }
        }
        ran
    }
}
