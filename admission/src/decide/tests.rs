mod cases;

use std::time::Duration;

use portcullis_policy::live::Store;
use portcullis_policy::settings::Settings;
use serde_json::{Value, json};

use super::*;
use crate::in_force::Held;
use crate::judge::{NoCases, NoFlows};
use crate::review::parse;

const SECURITY: &str = "security.istio.io";

fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    })
}

fn request(operation: &str, object: Option<Value>, old: Option<Value>) -> Value {
    let subject = object.clone().or(old.clone()).unwrap_or(Value::Null);
    let kind = subject["kind"]
        .as_str()
        .unwrap_or("AuthorizationPolicy")
        .to_owned();
    let api_version = subject["apiVersion"]
        .as_str()
        .unwrap_or("security.istio.io/v1")
        .to_owned();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    json!({
        "uid": "u", "operation": operation, "namespace": subject["metadata"]["namespace"],
        "name": subject["metadata"]["name"],
        "kind": { "group": group, "version": version, "kind": kind },
        "userInfo": { "username": "ann", "groups": ["dev", "oncall"] },
        "object": object, "oldObject": old,
    })
}

fn create(object: Value) -> Value {
    request("CREATE", Some(object), None)
}

/// Decisions with one policy in force, and labels on namespaces.
struct World {
    held: Held,
    admission: Admission,
}

impl World {
    fn new() -> Self {
        Self::with(Enforcement::default(), Arc::new(NoCases))
    }

    fn with(enforcement: Enforcement, judge: Arc<dyn Judge>) -> Self {
        let mut store = Store::new(Settings::default());
        let there = policy(
            "shop",
            "there",
            json!({ "action": "DENY", "rules": [{ "to": [{ "operation": { "paths": ["/x"] } }] }] }),
        );
        let key = ObjectKey::new(SECURITY, "AuthorizationPolicy", "shop", "there");
        let text = SourceText {
            file: key.file(),
            bytes: there.to_string().into_bytes().into(),
        };
        store.change([Change::Apply { key, text }]);
        let label = |level: &str| [(crate::enforcement::LABEL.to_owned(), level.to_owned())].into();
        let namespaces = [("warned", "warn"), ("audited", "audit"), ("denied", "deny")];
        let namespaces = namespaces
            .map(|(name, level)| (name.to_owned(), label(level)))
            .into();
        let glass = BreakGlass {
            groups: vec!["oncall".to_owned()],
        };
        Self {
            held: Held::new(store, namespaces).with_going(["going".to_owned()]),
            admission: Admission::new(enforcement, glass, judge, Arc::new(NoFlows)),
        }
    }

    fn decide(&self, request: &Value) -> Verdict {
        let until = Instant::now() + Duration::from_secs(60);
        let decided = self.admission.decide(&parsed(request), &self.held, until);
        decided.unwrap()
    }
}

fn parsed(request: &Value) -> Request {
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
    parse(review.to_string().as_bytes()).unwrap()
}

fn good() -> Value {
    json!({ "action": "DENY", "rules": [{ "from": [{ "source": { "principals": ["cluster.local/ns/a/sa/b"] } }] }] })
}

/// Without rules a DENY is refused: PC0102.
fn bad() -> Value {
    json!({ "action": "DENY" })
}

fn message(verdict: &Verdict) -> &str {
    verdict
        .answer
        .refusal
        .as_ref()
        .map_or("", |refusal| refusal.message.as_str())
}

#[test]
fn what_the_engine_runs_is_accepted_and_what_it_refuses_is_refused_with_every_error() {
    let world = World::new();
    let verdict = world.decide(&create(policy("shop", "web", good())));
    assert_eq!(
        (verdict.cause, &verdict.answer.refusal),
        (Cause::Accepted, &None)
    );
    assert_eq!(verdict.answer.audit_annotations["decision"], "allow");
    assert!(verdict.snapshot.is_some());

    let two = json!({ "action": "DENY", "rules": [{ "from": [{ "source": { "ipBlocks": ["x"] } }], "to": [{ "operation": { "ports": ["y"] } }] }] });
    let verdict = world.decide(&create(policy("shop", "web", two)));
    assert_eq!(verdict.cause, Cause::Invalid);
    let text = message(&verdict);
    assert_eq!(
        text.lines().next(),
        Some("AuthorizationPolicy shop/web: 2 errors")
    );
    for part in [
        "PC0108",
        "spec.rules[0].from[0].source.ipBlocks[0]",
        "PC0109",
        "spec.rules[0].to[0].operation.ports[0]",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(verdict.answer.refusal.as_ref().unwrap().code, 403);
    let notes = &verdict.answer.audit_annotations;
    assert_eq!(
        (notes["decision"].as_str(), notes["codes"].as_str()),
        ("deny", "PC0108=deny,PC0109=deny")
    );
    assert_eq!(notes["enforcement"], "deny");
}

#[test]
fn what_istio_takes_silently_is_a_warning_with_code_path_and_hint() {
    let world = World::new();
    let spec = json!({ "action": "DENY", "rules": [{ "from": [{ "source": { "principals": ["spiffe://cluster.local/ns/a/sa/b"] } }] }] });
    let verdict = world.decide(&create(policy("shop", "web", spec)));
    assert_eq!(verdict.cause, Cause::Accepted);
    let warning = verdict
        .answer
        .warnings
        .iter()
        .find(|w| w.starts_with("PC0120: "));
    let warning = warning.unwrap_or_else(|| panic!("{:?}", verdict.answer.warnings));
    assert!(
        warning.contains("(spec.rules[0].from[0].source.principals[0]); "),
        "{warning}"
    );
    // An ALLOW without rules closes for everyone: a note to a reader of files is a warning to who applies it.
    let verdict = world.decide(&create(policy("shop", "web", json!({}))));
    assert!(
        verdict
            .answer
            .warnings
            .iter()
            .any(|w| w.starts_with("PC0124: ")),
        "{verdict:?}"
    );
}

#[test]
fn a_namespace_loosens_and_an_error_is_heard_all_the_same() {
    let world = World::new();
    for (namespace, level) in [("warned", "warn"), ("audited", "warn")] {
        let verdict = world.decide(&create(policy(namespace, "web", bad())));
        assert_eq!(verdict.cause, Cause::NotEnforced, "{namespace}");
        assert!(
            verdict.answer.warnings[0].starts_with("PC0102: "),
            "{verdict:?}"
        );
        assert!(
            verdict.answer.warnings[1].contains("what it selects is denied"),
            "{verdict:?}"
        );
        assert_eq!(verdict.answer.audit_annotations["enforcement"], level);
    }
    // Looser than the floor, which the client is told.
    let verdict = world.decide(&create(policy("audited", "web", good())));
    assert!(
        verdict
            .answer
            .warnings
            .iter()
            .any(|w| w.contains("looser than the floor")),
        "{verdict:?}"
    );
    for namespace in ["denied", "shop"] {
        let verdict = world.decide(&create(policy(namespace, "web", bad())));
        assert_eq!(verdict.cause, Cause::Invalid, "{namespace}");
    }
}

#[test]
fn a_code_can_be_made_to_refuse() {
    let codes = [("PC0120".to_owned(), Level::Deny)].into();
    let enforcement = Enforcement {
        codes,
        ..Enforcement::default()
    };
    let world = World::with(enforcement, Arc::new(NoCases));
    let spec = json!({ "rules": [{ "from": [{ "source": { "principals": ["spiffe://cluster.local/ns/a/sa/b"] } }] }] });
    let verdict = world.decide(&create(policy("shop", "web", spec.clone())));
    assert_eq!(verdict.cause, Cause::Invalid);
    assert!(message(&verdict).contains("PC0120"));
    assert_eq!(
        world.decide(&create(policy("warned", "web", spec))).cause,
        Cause::NotEnforced
    );
}

#[test]
fn the_glass_is_broken_by_who_may_and_says_why() {
    let world = World::new();
    let mut object = policy("shop", "web", bad());
    object["metadata"]["annotations"] = json!({ "portcullis.dev/break-glass": "incident 7" });
    let verdict = world.decide(&create(object.clone()));
    assert_eq!(verdict.cause, Cause::BreakGlass);
    assert_eq!(
        verdict.answer.audit_annotations["break-glass"],
        "incident 7"
    );
    assert!(verdict.answer.warnings[0].contains("incident 7"));
    assert!(verdict.answer.warnings[1].starts_with("PC0102"));

    let mut by_another = create(object.clone());
    by_another["userInfo"]["groups"] = json!(["dev"]);
    let verdict = world.decide(&by_another);
    assert_eq!(verdict.cause, Cause::BreakGlassRefused);
    assert_eq!(verdict.answer.refusal.as_ref().unwrap().code, 403);
    assert!(message(&verdict).contains("`oncall`"), "{verdict:?}");
    // Not even on a change that means nothing.
    let mut update = request(
        "UPDATE",
        Some(object.clone()),
        Some(policy("shop", "web", bad())),
    );
    update["userInfo"] = Value::Null;
    assert_eq!(world.decide(&update).cause, Cause::BreakGlassRefused);

    let mut fine = policy("shop", "web", good());
    fine["metadata"]["annotations"] = object["metadata"]["annotations"].clone();
    let verdict = world.decide(&create(fine));
    assert_eq!(verdict.cause, Cause::Accepted);
    assert_eq!(
        verdict.answer.audit_annotations["break-glass-unused"],
        "incident 7"
    );
}

#[test]
fn what_decides_nothing_passes_at_once() {
    let world = World::new();
    let mut status = request("UPDATE", Some(policy("shop", "web", bad())), None);
    status["subResource"] = json!("status");
    assert_eq!(world.decide(&status).cause, Cause::Subresource);

    let mut labelled = policy("shop", "web", bad());
    labelled["metadata"]["labels"] = json!({ "a": "b" });
    let same = request(
        "UPDATE",
        Some(labelled.clone()),
        Some(policy("shop", "web", bad())),
    );
    assert_eq!(world.decide(&same).cause, Cause::Unchanged);
    labelled["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let going = request("UPDATE", Some(labelled), Some(policy("shop", "web", bad())));
    assert_eq!(world.decide(&going).cause, Cause::BeingDeleted);

    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "namespace": "shop" } });
    let verdict = world.decide(&create(pod));
    assert_eq!(verdict.cause, Cause::OtherKind);
    assert!(verdict.answer.warnings[0].contains("`Pod`"));
}

#[test]
fn a_deletion_is_judged_by_what_it_leaves() {
    let world = World::new();
    let verdict = world.decide(&request(
        "DELETE",
        None,
        Some(policy("shop", "there", bad())),
    ));
    assert_eq!(verdict.cause, Cause::Accepted, "{verdict:?}");
}

#[test]
fn a_name_that_is_yet_to_be_made_is_no_error() {
    let world = World::new();
    let mut object = policy("shop", "", good());
    object["metadata"] = json!({ "generateName": "web-", "namespace": "shop" });
    let verdict = world.decide(&create(object));
    assert_eq!(verdict.cause, Cause::Accepted, "{verdict:?}");
}

#[test]
fn a_review_that_contradicts_itself_is_malformed() {
    let world = World::new();
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 8] = [
        (|r| r["object"] = Value::Null, "without `object`"),
        (|r| r["operation"] = json!("DELETE"), "without `oldObject`"),
        (
            |r| r["object"]["kind"] = json!("PeerAuthentication"),
            "its object is `PeerAuthentication`",
        ),
        (
            |r| r["object"]["kind"] = json!("AuthorizationPolicyList"),
            "its object is",
        ),
        (|r| r["object"]["apiVersion"] = json!("v1"), "its object is"),
        (
            |r| r["object"]["metadata"]["namespace"] = json!("other"),
            "the namespace `shop`",
        ),
        (
            |r| r["object"]["metadata"]["name"] = json!("other"),
            "the name `web`",
        ),
        (
            |r| {
                r["namespace"] = json!("a/b");
                r["object"]["metadata"]["namespace"] = json!("a/b");
            },
            "names no object",
        ),
    ];
    for (change, words) in cases {
        let mut request = create(policy("shop", "web", good()));
        change(&mut request);
        let verdict = world.decide(&request);
        assert_eq!(verdict.cause, Cause::Malformed, "{words}: {verdict:?}");
        assert!(message(&verdict).contains(words), "{}", message(&verdict));
        assert_eq!(verdict.answer.refusal.as_ref().unwrap().code, 400);
    }
}

#[test]
fn what_got_past_pruning_is_refused() {
    let world = World::new();
    let mut spec = good();
    spec["rules"][0]["form"] = json!([]);
    let verdict = world.decide(&create(policy("shop", "web", spec)));
    assert_eq!(verdict.cause, Cause::Invalid);
    assert!(message(&verdict).contains("PC0020"), "{verdict:?}");
}

/// Nobody can tell of its namespaces.
struct Unknown(Held);

impl InForce for Unknown {
    fn propose(&self, changes: &[Change]) -> Proposed {
        self.0.propose(changes)
    }

    fn namespace_labels(&self, name: &str) -> Result<crate::in_force::Labels, String> {
        Err(format!("the labels of `{name}` are not known"))
    }

    fn is_going(&self, namespace: &str) -> bool {
        self.0.is_going(namespace)
    }
}

#[test]
fn where_the_labels_of_a_namespace_cannot_be_read_the_strictest_holds_and_is_noted() {
    use Level::{Audit, Deny, Warn};
    for (level, floor, allows, holds) in [
        (Deny, Warn, false, "deny"),
        (Warn, Deny, false, "deny"),
        (Warn, Audit, true, "warn"),
    ] {
        let enforcement = Enforcement {
            level,
            floor,
            ..Enforcement::default()
        };
        let world = World::with(enforcement, Arc::new(NoCases));
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": create(policy("fresh", "a", json!({ "action": "DENY" }))),
        });
        let request = parse(review.to_string().as_bytes()).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        let decided = world
            .admission
            .decide(&request, &Unknown(world.held), until);
        let verdict = decided.unwrap();
        assert_eq!(verdict.cause.allows(), allows, "{verdict:?}");
        let notes = &verdict.answer.audit_annotations;
        assert_eq!(notes["enforcement"], holds);
        assert_eq!(
            notes["namespace-unknown"],
            "the labels of `fresh` are not known"
        );
    }
}
