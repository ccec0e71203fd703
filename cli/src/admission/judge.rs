//! The cases of PolicyTests, run as the authorization service would decide them.

use std::sync::Arc;

use portcullis_admission::judge::{CaseOutcome, Judge};
use portcullis_authz::policy_test;
use portcullis_policy::snapshot::Snapshot;

/// Runs cases with the reader of requests that `authz serve` has.
#[derive(Clone, Copy, Debug)]
pub struct Cases;

impl Judge for Cases {
    fn cases(&self, snapshot: &Arc<Snapshot>, namespaces: Option<&[&str]>) -> Vec<CaseOutcome> {
        let tests = snapshot.policies().tests();
        let wanted = tests.filter(|test| {
            namespaces.is_none_or(|names| names.contains(&test.meta.namespace.as_str()))
        });
        wanted
            .flat_map(|test| {
                let outcomes = policy_test::run(snapshot, test).into_iter();
                outcomes.map(|outcome| CaseOutcome {
                    namespace: test.meta.namespace.clone(),
                    test: test.meta.name.clone(),
                    case: outcome.name,
                    wanted: outcome.wanted.to_string(),
                    got: match outcome.got {
                        Ok(got) => format!("{} ({})", got.decision.as_str(), got.reason.as_str()),
                        Err(why) => why,
                    },
                    holds: outcome.holds,
                })
            })
            .collect()
    }
}
