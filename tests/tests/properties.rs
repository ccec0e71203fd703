//! Random policies and requests: the engine against the naive evaluator.
//!
//! `PROPTEST_CASES` counts requests, 10,000 when it is not set; every policy set gets 20 of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is a failed test"
)]

use std::collections::BTreeMap;

use portcullis_tests::generate;
use portcullis_tests::naive;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

/// Requests for each policy set.
const REQUESTS: usize = 20;

#[test]
fn generator_reaches_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let scenarios = generate::scenario(REQUESTS);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..500 {
        let scenario = scenarios.new_tree(&mut runner).unwrap().current();
        for facts in &scenario.requests {
            let answer = naive::evaluate(&scenario.world, facts);
            let mut count = |what: String| *seen.entry(what).or_default() += 1;
            let protocol = if facts.http.is_some() { "http" } else { "tcp" };
            count(format!("{protocol} {}", answer.enforced.reason));
            let verdict = if answer.enforced.allow {
                "allow"
            } else {
                "deny"
            };
            count(format!("{:?} {verdict}", scenario.world.target));
            if !answer.enforced.audit.is_empty() {
                count("audit".to_owned());
            }
            if !answer.enforced.providers.is_empty() {
                count("provider".to_owned());
            }
            if answer
                .trial
                .as_ref()
                .is_some_and(|trial| trial.allow != answer.enforced.allow)
            {
                count("trial flips".to_owned());
            }
        }
    }
    let outcomes = [
        "http allowed_by",
        "http custom_provider_unavailable",
        "http denied_by",
        "http invalid_request",
        "http mtls_required",
        "http no_allow_matched",
        "http no_allow_policy",
        "http token_unverified",
        "tcp allowed_by",
        "tcp custom_provider_unavailable",
        "tcp denied_by",
        "tcp mtls_required",
        "tcp no_allow_matched",
        "tcp no_allow_policy",
        "Sidecar allow",
        "Sidecar deny",
        "Gateway allow",
        "Gateway deny",
        "Waypoint allow",
        "Waypoint deny",
        "Ztunnel allow",
        "Ztunnel deny",
        "audit",
        "provider",
        "trial flips",
    ];
    for outcome in outcomes {
        let times = seen.get(outcome).copied().unwrap_or(0);
        assert!(times >= 10, "`{outcome}` {times} times: {seen:#?}");
    }
}
