//! Verdicts equal to those of a real Envoy with Istio's filters (tests/corpora/real-envoy).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is a failed test"
)]

use portcullis_tests::corpus;
use portcullis_tests::naive::{self, Shadow};

/// Everything that Envoy tells of one request.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    allow: bool,
    denied_by: Option<String>,
    allowed_by: Option<String>,
    audit: bool,
    shadow_deny: Option<Shadow>,
    shadow_allow: Option<Shadow>,
}

impl Told {
    fn by_envoy(request: &corpus::CaseRequest) -> Self {
        let shadow = |action: &str| {
            let shadow = request.dry_run.as_ref()?.get(action)?;
            Some(Shadow {
                allowed: shadow.result == "allowed",
                policy: shadow.policy.clone(),
            })
        };
        Self {
            allow: request.verdict == "allow",
            denied_by: request.matched.clone(),
            allowed_by: request.matched_allow.clone(),
            audit: request.audit,
            shadow_deny: shadow("deny"),
            shadow_allow: shadow("allow"),
        }
    }

    fn by_naive(answer: &naive::Answer, http: bool) -> Self {
        let ruling = &answer.enforced;
        let first = ruling.policies.first().cloned();
        Self {
            allow: ruling.allow,
            denied_by: first.clone().filter(|_| !ruling.allow),
            // a network filter does not report the rule that allowed
            allowed_by: first.filter(|_| ruling.allow && http),
            audit: !ruling.audit.is_empty(),
            shadow_deny: answer.shadow_deny.clone(),
            shadow_allow: answer.shadow_allow.clone(),
        }
    }
}

#[test]
fn naive_evaluator_answers_as_envoy_did() {
    let cases = corpus::cases().unwrap();
    let mut decided = 0;
    let mut differ = Vec::new();
    for case in &cases {
        let world = case.world();
        for (index, request) in case.requests.iter().enumerate() {
            let facts = request.facts(case.use_filter_state).unwrap();
            let answer = naive::evaluate(&world, &facts);
            let envoy = Told::by_envoy(request);
            let ours = Told::by_naive(&answer, facts.http.is_some());
            decided += 1;
            if envoy != ours {
                differ.push(format!("{}[{index}]: {envoy:?}\n    {ours:?}", case.id));
            }
        }
    }
    assert_eq!((cases.len(), decided), (220, 4506), "the corpus is whole");
    assert!(
        differ.is_empty(),
        "{} of {decided} differ:\n{}",
        differ.len(),
        differ.join("\n")
    );
}

#[test]
fn naive_normalisation_is_envoys() {
    let cases = corpus::paths().unwrap();
    assert_eq!(cases.len(), 304, "the corpus is whole");
    for case in cases {
        let seen = naive::path::normalise(&case.raw, &case.mode)
            .map(|path| path.split('?').next().unwrap().to_owned());
        assert_eq!(seen, case.out, "{} {}", case.mode, case.raw);
    }
}
