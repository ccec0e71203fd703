//! Cases of PolicyTests that bind a change, or bound what may bind.

use std::sync::Mutex;

use super::*;
use crate::judge::{CaseName, CaseOutcome, Ran};

/// A case of `shop` and one of another namespace, which hold as long as there is no second policy.
struct Counting(Mutex<usize>);

impl Judge for Counting {
    fn cases(
        &self,
        snapshot: &Arc<Snapshot>,
        wanted: &dyn Fn(CaseName<'_>) -> bool,
        until: Instant,
    ) -> Ran {
        *self.0.lock().unwrap() += 1;
        let holds = snapshot.policy_count() < 2;
        let mut ran = Ran::default();
        for namespace in ["shop", "other"] {
            let outcome = CaseOutcome {
                namespace: namespace.to_owned(),
                test: "t".to_owned(),
                case: "c".to_owned(),
                wanted: "allow".to_owned(),
                got: "deny".to_owned(),
                holds,
            };
            match wanted(outcome.name()) {
                true if Instant::now() < until => ran.outcomes.push(outcome),
                true => ran.left += 1,
                false => {}
            }
        }
        ran
    }
}

#[test]
fn a_case_that_must_hold_refuses_what_breaks_it() {
    let judge = Arc::new(Counting(Mutex::new(0)));
    let world = World::with(Enforcement::default(), Arc::clone(&judge) as Arc<dyn Judge>);
    let verdict = world.decide(&create(policy("shop", "web", good())));
    assert_eq!(verdict.cause, Cause::CasesBreak);
    let text = message(&verdict);
    assert!(
        text.starts_with("AuthorizationPolicy shop/web: a case that must hold breaks\n"),
        "{text}"
    );
    assert!(
        text.contains("PolicyTest shop/t, case `c`: wants allow, would be deny"),
        "{text}"
    );
    assert_eq!(verdict.answer.audit_annotations["cases-broken"], "shop/t:c");
    assert_eq!(*judge.0.lock().unwrap(), 2);
    // Without time for what binds nobody decides, but where it would not refuse.
    let in_shop = parsed(&create(policy("shop", "web", good())));
    let late = world
        .admission
        .decide(&in_shop, &world.held, Instant::now());
    assert_eq!(late, Err(Late { left: 1 }));
    let warned = parsed(&create(policy("warned", "web", good())));
    let late = world.admission.decide(&warned, &world.held, Instant::now());
    assert_eq!(late.unwrap().cause, Cause::Accepted);
    // What replaces a policy breaks nothing here.
    let verdict = world.decide(&create(policy("shop", "there", good())));
    assert_eq!(verdict.cause, Cause::Accepted);
    // Other namespaces are not asked, unless from the root namespace, which they do not bind.
    assert_eq!(
        world.decide(&create(policy("third", "web", good()))).cause,
        Cause::Accepted
    );
    let verdict = world.decide(&create(policy("istio-system", "web", good())));
    assert_eq!(verdict.cause, Cause::Accepted, "{verdict:?}");
    assert!(
        verdict
            .answer
            .warnings
            .iter()
            .any(|w| w.contains("breaks cases of other namespaces: shop/t `c`, other/t `c`")),
        "{verdict:?}"
    );

    let mut object = policy("shop", "web", good());
    object["metadata"]["annotations"] = json!({ "portcullis.dev/break-glass": "now" });
    assert_eq!(world.decide(&create(object)).cause, Cause::BreakGlass);
    // What goes with its namespace goes; an owner that is gone is no such reason, since whoever writes policies writes owners.
    let swept = |namespace: &str, by: &str| {
        let mut swept = request("DELETE", None, Some(policy(namespace, "web", good())));
        swept["userInfo"]["username"] = json!(format!("system:serviceaccount:kube-system:{by}"));
        swept
    };
    for (namespace, by, level) in [
        ("going", "namespace-controller", Level::Audit),
        ("shop", "namespace-controller", Level::Deny),
        ("going", "generic-garbage-collector", Level::Deny),
        ("shop", "generic-garbage-collector", Level::Deny),
    ] {
        let verdict = world.decide(&swept(namespace, by));
        assert_eq!(verdict.level, Some(level), "{namespace} {by}");
    }
}

#[test]
fn a_policy_test_is_refused_where_its_namespace_has_cases_enough() {
    let mut world = World::new();
    world.admission = world.admission.with_cases(2);
    let test = |cases: usize| {
        let case = |n| json!({ "name": format!("c{n}"), "request": { "attributes": {} }, "decision": "allow", "reason": "allowed_by" });
        let cases: Vec<Value> = (0..cases).map(case).collect();
        json!({
            "apiVersion": "portcullis.dev/v1alpha1", "kind": "PolicyTest",
            "metadata": { "name": "t", "namespace": "shop" }, "spec": { "cases": cases },
        })
    };
    let verdict = world.decide(&create(test(2)));
    assert!(verdict.cause.allows(), "{verdict:?}");
    let verdict = world.decide(&create(test(3)));
    assert!(
        message(&verdict).contains("would have 3 cases"),
        "{verdict:?}"
    );
    let gone = world.decide(&request("DELETE", None, Some(test(3))));
    assert!(gone.cause.allows(), "{gone:?}");
}
