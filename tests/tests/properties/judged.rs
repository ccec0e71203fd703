//! What the admission webhook accepts is what the engine runs: random objects, in this process.
//!
//! `PROPTEST_CASES` counts objects, 500 when it is not set. The kubernetes tests put a sample to a real API server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_admission::break_glass::BreakGlass;
use portcullis_admission::decide::Admission;
use portcullis_admission::enforcement::Enforcement;
use portcullis_admission::in_force::Held;
use portcullis_admission::judge::{NoCases, NoFlows};
use portcullis_admission::review;
use portcullis_admission::verdict::{Cause, Verdict};
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::diagnostic::{Diagnostic, Location, Severity, code};
use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, ObjectKey, Outcome, Store, is_effect};
use portcullis_policy::settings::Settings;
use portcullis_tests::generate::manifest;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestCaseError, TestRunner};
use proptest::{prop_assert, prop_assert_eq};
use serde_json::{Value, json};

const NAMESPACE: &str = "shop";

fn text(object: &Value) -> (ObjectKey, SourceText) {
    let version = object["apiVersion"].as_str().unwrap();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let kind = object["kind"].as_str().unwrap();
    let name = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    let key = ObjectKey::new(group, kind, name("namespace"), name("name"));
    let text = SourceText {
        file: key.file(),
        bytes: object.to_string().into_bytes().into(),
    };
    (key, text)
}

/// What is in the cluster already: something to select, and a policy beside the candidate.
fn world() -> Vec<Value> {
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec,
        })
    };
    let source = json!({ "principals": ["cluster.local/ns/shop/sa/web"] });
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "web", "namespace": NAMESPACE } }),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "web", "namespace": NAMESPACE, "labels": { "app": "web" } },
            "spec": { "serviceAccountName": "web", "containers": [{ "name": "c", "ports": [{ "containerPort": 8080 }] }] },
            "status": { "podIP": "10.1.0.1", "podIPs": [{ "ip": "10.1.0.1" }], "phase": "Running" },
        }),
        policy(
            "there",
            json!({ "rules": [{ "from": [{ "source": source }] }] }),
        ),
    ]
}

fn store(more: &[&Value]) -> Store {
    let mut store = Store::new(Settings::default());
    let world = world();
    let all = world.iter().chain(more.iter().copied());
    store.change(all.map(|object| {
        let (key, text) = text(object);
        Change::Apply { key, text }
    }));
    store
}

fn verdict(object: &Value, before: Option<&Value>) -> Verdict {
    let (key, _) = text(object);
    let old: Vec<&Value> = before.into_iter().collect();
    let held = Held::new(store(&old), BTreeMap::new());
    let admission = Admission::new(
        Enforcement::default(),
        BreakGlass::default(),
        Arc::new(NoCases),
        Arc::new(NoFlows),
    );
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": before.map_or("CREATE", |_| "UPDATE"),
            "name": "candidate", "namespace": NAMESPACE,
            "kind": { "group": key.group, "version": "v1", "kind": key.kind },
            "object": object, "oldObject": before,
        },
    });
    let request = review::parse(review.to_string().as_bytes()).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    admission.decide(&request, &held, until).unwrap()
}

/// Notes that the webhook does not pass on.
fn is_quiet(diagnostic: &Diagnostic) -> bool {
    let quiet = [
        code::PASSED_OVER,
        code::DEFAULT_NAMESPACE,
        code::MESH_FIELD_OVERRIDDEN,
    ];
    diagnostic.severity == Severity::Note && quiet.iter().any(|code| code.id == diagnostic.code)
}

/// Told of a change alone, never of a set.
fn tells_effect(id: &str) -> bool {
    code::find(id).is_some_and(|code| is_effect(&code.at(Location::default(), "")))
}

fn codes<'a>(diagnostics: impl IntoIterator<Item = &'a Diagnostic>) -> BTreeSet<&'static str> {
    let told = diagnostics.into_iter().filter(|d| !is_quiet(d));
    told.map(|d| d.code).collect()
}

/// What `after` says that `before` does not, and all that it says of `file`.
fn brought(before: &[Diagnostic], after: &[Diagnostic], file: &str) -> Vec<Diagnostic> {
    let mut before = before.to_vec();
    let mut brought = Vec::new();
    for diagnostic in after {
        let known = before.iter().position(|known| known == diagnostic);
        if let Some(known) = known {
            before.remove(known);
        }
        if known.is_none() || diagnostic.location.file.as_ref() == file {
            brought.push(diagnostic.clone());
        }
    }
    brought
}

fn files(objects: &[Value]) -> Documents {
    Documents {
        base: objects.iter().map(|object| text(object).1).collect(),
        candidate: None,
    }
}

/// The webhook's word against the engine's, of an object that comes; true where it is taken.
fn agrees(object: &Value) -> Result<bool, TestCaseError> {
    let mut object = object.clone();
    object["metadata"]["namespace"] = json!(NAMESPACE);
    let (key, _) = text(&object);
    let verdict = verdict(&object, None);
    let allowed = verdict.cause.allows();
    let said: BTreeSet<&'static str> = verdict.codes.keys().copied().collect();

    // As the engine takes it from an API server.
    let mut live = store(&[&object]);
    let snapshot = live.snapshot();
    let outcome = live.outcomes().find(|(of, _)| **of == key).unwrap().1;
    match outcome {
        Outcome::Accepted => prop_assert!(allowed, "the engine runs what is refused: {verdict:#?}"),
        Outcome::Closed { diagnostics } | Outcome::LeftOut { diagnostics } => {
            prop_assert!(
                !allowed,
                "the engine does not run what is allowed: {diagnostics:#?}"
            );
            prop_assert_eq!(&said, &codes(diagnostics));
        }
        Outcome::LastGood { .. } => prop_assert!(false, "there was no good one"),
    }
    // As files, too.
    let mut all = world();
    let without = compile(&files(&all), &Settings::default()).unwrap();
    all.push(object.clone());
    match compile(&files(&all), &Settings::default()) {
        Ok(with) => {
            prop_assert!(allowed, "what compiles is refused: {verdict:#?}");
            let brought = brought(without.diagnostics(), with.diagnostics(), &key.file());
            let told: BTreeSet<_> = said.iter().copied().filter(|c| !tells_effect(c)).collect();
            prop_assert_eq!(&told, &codes(&brought), "{:#?}", brought);
            prop_assert_eq!(snapshot.diagnostics().len(), with.diagnostics().len());
            // Warnings say the same, as far as there is room for them.
            let warned: BTreeSet<&str> = verdict
                .answer
                .warnings
                .iter()
                .filter_map(|warning| warning.split_once(": ").map(|(code, _)| code))
                .collect();
            let room = verdict
                .answer
                .warnings
                .iter()
                .all(|w| !w.starts_with("and "));
            prop_assert!(!room || warned == said, "{warned:?} of {said:?}");
        }
        Err(diagnostics) => prop_assert!(
            !allowed,
            "what is allowed does not compile: {diagnostics:#?}"
        ),
    }
    Ok(allowed)
}

/// The same of a change of an object that is good.
fn agrees_on_change(object: &Value) -> Result<(), TestCaseError> {
    let mut object = object.clone();
    object["metadata"]["namespace"] = json!(NAMESPACE);
    let mut before = object.clone();
    before["metadata"]["annotations"] = json!({ "before": "yes" });
    before["spec"] = match before["kind"].as_str().unwrap() {
        "CedarPolicy" => json!({ "policies": "forbid (principal, action, resource);" }),
        "PolicyTest" => json!({ "cases": [] }),
        _ => json!({}),
    };
    let verdict = verdict(&object, Some(&before));
    let mut live = store(&[&before]);
    let (key, text) = text(&object);
    let good = live.outcomes().find(|(of, _)| **of == key).unwrap().1 == &Outcome::Accepted;
    live.change([Change::Apply {
        key: key.clone(),
        text,
    }]);
    let accepted = live.outcomes().find(|(of, _)| **of == key).unwrap().1 == &Outcome::Accepted;
    prop_assert_eq!(
        verdict.cause.allows(),
        accepted,
        "good before: {}, {:#?}",
        good,
        verdict
    );
    prop_assert!(verdict.cause != Cause::Unchanged);
    Ok(())
}

#[test]
fn what_the_webhook_accepts_is_what_the_engine_compiles() {
    let cases = std::env::var("PROPTEST_CASES").map_or(500, |cases| cases.parse().unwrap());
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&manifest::object(), |object| {
        agrees(&object)?;
        agrees_on_change(&object)
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn the_generator_makes_good_and_bad_ones_of_every_kind() {
    let config = Config {
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let mut seen: BTreeMap<(String, bool), usize> = BTreeMap::new();
    for _ in 0..250 {
        let object = manifest::object().new_tree(&mut runner).unwrap().current();
        let allowed = agrees(&object).unwrap_or_else(|e| panic!("{e}\n{object}"));
        let kind = object["kind"].as_str().unwrap().to_owned();
        *seen.entry((kind, allowed)).or_default() += 1;
    }
    assert_eq!(seen.len(), 10, "{seen:?}");
    assert!(seen.values().all(|times| *times > 2), "{seen:?}");
}
