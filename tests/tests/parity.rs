//! Verdicts equal to those of a real Envoy with Istio's filters (tests/corpora/real-envoy).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is a failed test"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_policy::compile::compile;
use portcullis_policy::decision::Decision;
use portcullis_policy::path;
use portcullis_policy::resource::PathNormalization;
use portcullis_policy::settings::Settings;
use portcullis_tests::naive::{self, Facts, Http, Shadow, World};
use portcullis_tests::{convert, corpus};

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

/// What the product tells of one request, in the same words.
#[derive(Debug, PartialEq, Eq)]
struct Decided {
    allow: bool,
    reason: String,
    reported: Option<String>,
    audit: bool,
    shadow_deny: Option<String>,
    shadow_allow: Option<String>,
}

impl Decided {
    fn by_envoy(request: &corpus::CaseRequest, naive: &naive::Answer) -> Self {
        let shadow = |action: &str| {
            let shadow = request.dry_run.as_ref()?.get(action)?;
            convert::rule_id(shadow.policy.as_deref()?)
        };
        let reported = request.matched.as_ref().or(request.matched_allow.as_ref());
        // a network filter does not report the rule that allowed; the naive evaluator, which was
        // proved on the rest, fills in
        let reported = reported.or(naive.enforced.policies.first());
        Self {
            allow: request.verdict == "allow",
            reason: naive.enforced.reason.to_owned(),
            reported: reported.and_then(|id| convert::rule_id(id)),
            audit: request.audit,
            shadow_deny: shadow("deny"),
            shadow_allow: shadow("allow"),
        }
    }

    fn by_engine(decision: &Decision) -> Self {
        let shadow = decision.dry_run.as_ref().map(|dry_run| &dry_run.shadow);
        Self {
            allow: decision.is_allow(),
            reason: decision.reason.as_str().to_owned(),
            reported: decision.policies.first().cloned(),
            audit: !decision.audit.is_empty(),
            shadow_deny: shadow.and_then(|shadow| shadow.deny.clone()),
            shadow_allow: shadow.and_then(|shadow| shadow.allow.clone()),
        }
    }
}

#[test]
fn engine_answers_as_envoy_did() {
    let mut decided = 0;
    let mut differ = Vec::new();
    for case in corpus::cases().unwrap() {
        let world = case.world();
        let documents = convert::documents(&convert::manifests(&world));
        let snapshot = match compile(&documents, &convert::settings(&world.mesh)) {
            Ok(snapshot) => Arc::new(snapshot),
            Err(diagnostics) => panic!("{} does not compile: {diagnostics:#?}", case.id),
        };
        for (index, request) in case.requests.iter().enumerate() {
            let facts = request.facts(case.use_filter_state).unwrap();
            let envoy = Decided::by_envoy(request, &naive::evaluate(&world, &facts));
            let decision = snapshot.decide(&convert::request(&world, &facts));
            let ours = Decided::by_engine(&decision);
            decided += 1;
            if envoy != ours {
                differ.push(format!("{}[{index}]: {envoy:?}\n    {ours:?}", case.id));
            }
        }
    }
    assert_eq!(decided, 4506, "the corpus is whole");
    assert!(
        differ.is_empty(),
        "{} of {decided} differ:\n{}",
        differ.len(),
        differ.join("\n")
    );
}

/// `namespace/name` of every AuthorizationPolicy that has an error.
fn refused(policies: &[serde_json::Value]) -> BTreeSet<String> {
    let documents = convert::documents(policies);
    let settings = Settings::default();
    let diagnostics = match compile(&documents, &settings) {
        Ok(snapshot) => snapshot.diagnostics().to_vec(),
        Err(diagnostics) => diagnostics,
    };
    diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .map(|diagnostic| {
            let resource = diagnostic.resource.clone().unwrap_or_default();
            resource
                .strip_prefix("AuthorizationPolicy/")
                .map_or_else(|| format!("{diagnostic:?}"), str::to_owned)
        })
        .collect()
}

#[test]
fn errors_are_those_of_istios_webhook() {
    let mut differ = Vec::new();
    for case in corpus::cases().unwrap() {
        let istio: BTreeSet<String> = case
            .validation
            .iter()
            .flatten()
            .filter(|validation| validation.error.is_some())
            .map(|validation| validation.policy.clone())
            .collect();
        let ours = refused(&case.policies);
        if istio != ours {
            differ.push(format!("{}: {istio:?}, ours {ours:?}", case.id));
        }
    }
    assert!(
        differ.is_empty(),
        "{} differ:\n{}",
        differ.len(),
        differ.join("\n")
    );
}

#[test]
fn what_makes_envoy_abort_is_an_error() {
    let aborts = corpus::aborts().unwrap();
    assert_eq!(aborts.len(), 9, "the corpus is whole");
    for abort in aborts {
        let ours = refused(&abort.policies);
        assert_eq!(ours.len(), abort.policies.len(), "{}: {ours:?}", abort.id);
    }
}

#[test]
fn paths_reach_rules_as_envoy_normalised_them() {
    let mode = |name: &str| match name {
        "NONE" => PathNormalization::None,
        "BASE" => PathNormalization::Base,
        "MERGE_SLASHES" => PathNormalization::MergeSlashes,
        "DECODE_AND_MERGE_SLASHES" => PathNormalization::DecodeAndMergeSlashes,
        other => panic!("mode {other}"),
    };
    for case in corpus::paths().unwrap() {
        let seen = path::normalise(&case.raw, mode(&case.mode))
            .ok()
            .map(|path| path::without_query(&path).to_owned());
        assert_eq!(seen, case.out, "{} {}", case.mode, case.raw);
    }
}

#[test]
fn conditions_hold_where_envoy_let_pass() {
    let cases = corpus::conditions().unwrap();
    assert_eq!(cases.len(), 42, "the corpus is whole");
    let template = corpus::cases().unwrap().swap_remove(0).world();
    for case in cases {
        let policy = serde_json::json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"namespace": "foo", "name": "p"},
            "spec": {"rules": [{"when": [{"key": case.key, "values": [case.value]}]}]},
        });
        let world = World {
            policies: vec![policy],
            ..template.clone()
        };
        let facts = Facts {
            http: Some(Http {
                method: "GET".to_owned(),
                host: "example.com".to_owned(),
                path: case.path.clone(),
                headers: case.headers.clone(),
            }),
            metadata: case.metadata.clone(),
            ..Facts::default()
        };
        let naive = naive::evaluate(&world, &facts).enforced.allow;
        let documents = convert::documents(&convert::manifests(&world));
        let snapshot = Arc::new(compile(&documents, &convert::settings(&world.mesh)).unwrap());
        let engine = snapshot
            .decide(&convert::request(&world, &facts))
            .is_allow();
        assert_eq!((naive, engine), (case.allow, case.allow), "{case:?}");
    }
}
