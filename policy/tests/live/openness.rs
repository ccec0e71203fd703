//! What a change of rules without conditions opens and closes: everything, or nothing.

use portcullis_policy::live::{Change, ObjectKey};

use super::cluster::{WEB, apply, authorization, change, cluster, decide, policy};
use super::proposals::effects;

const ALL: &str = r#""rules":[{}]"#;
const GET: &str = r#""rules":[{"to":[{"operation":{"methods":["GET"]}}]}]"#;

fn codes(effects: &[(&'static str, String)]) -> Vec<&'static str> {
    effects.iter().map(|(code, _)| *code).collect()
}

fn cedar(namespace: &str, policies: &str) -> Change {
    let key = ObjectKey::new("portcullis.dev", "CedarPolicy", namespace, "c");
    let text = serde_json::json!({
        "apiVersion": "portcullis.dev/v1alpha1",
        "kind": "CedarPolicy",
        "metadata": {"name": "c", "namespace": namespace},
        "spec": {"policies": policies},
    });
    change(key, &text.to_string())
}

#[test]
fn an_allow_of_everything_closes_nothing_and_opens_nothing_when_it_goes() {
    let allow = authorization("shop", "all", &format!("{{{ALL}}}"));
    let permit = cedar("shop", "permit (principal, action, resource);");
    for change in [allow, permit] {
        let mut store = cluster();
        assert_eq!(effects(&mut store, change.clone()), [], "{change:?}");
        store.change([change.clone()]);
        let snapshot = store.snapshot();
        assert_eq!(
            decide(&snapshot, "shop/web-1").reason.as_str(),
            "allowed_by"
        );
        let gone = Change::Delete(change.key().clone());
        assert_eq!(effects(&mut store, gone), [], "{change:?}");
    }
}

#[test]
fn an_allow_of_everything_opens_what_another_limits() {
    let mut store = cluster();
    let limited = authorization("shop", "get", &format!("{{{GET}}}"));
    store.change([limited.clone()]);
    let allow = authorization("shop", "all", &format!("{{{ALL}}}"));
    let opened = effects(&mut store, allow.clone());
    assert_eq!(codes(&opened), ["PC0520"]);
    assert!(opened[0].1.contains("2 workloads"), "{opened:?}");
    store.change([allow]);
    let closed = effects(&mut store, Change::Delete(policy("shop", "all")));
    assert_eq!(codes(&closed), ["PC0521"]);
    // What another allows already, this one does not close.
    assert_eq!(effects(&mut store, limited), []);
    // A permit with a condition is no permit of everything.
    let mut store = cluster();
    for text in [
        "permit (principal, action, resource) when { context has http };",
        "permit (principal, action == Action::\"http\", resource);",
    ] {
        assert_eq!(
            codes(&effects(&mut store, cedar("shop", text))),
            ["PC0521"],
            "{text}"
        );
    }
}

#[test]
fn a_deny_of_everything_is_told_wherever_it_shuts() {
    let shut = |spec: &str| format!(r#"{{{spec}"action":"DENY",{ALL}}}"#);
    let cases = [
        (authorization("istio-system", "d", &shut("")), "3 workloads"),
        (authorization("shop", "d", &shut("")), "2 workloads"),
        (authorization("shop", "d", &shut(WEB)), "`pod/shop/web-1`"),
        (
            cedar("shop", "forbid (principal, action, resource);"),
            "2 workloads",
        ),
    ];
    for (change, place) in cases {
        let mut store = cluster();
        // Whatever was allowed before.
        store.change([authorization("shop", "get", &format!("{{{GET}}}"))]);
        let told = effects(&mut store, change.clone());
        assert_eq!(codes(&told), ["PC0524"], "{change:?}");
        assert!(told[0].1.contains(place), "{told:?}");
        store.change([change.clone()]);
        let snapshot = store.snapshot();
        assert_eq!(decide(&snapshot, "shop/web-1").reason.as_str(), "denied_by");
        assert_eq!(effects(&mut store, change), [], "it is so already");
    }
    let mut store = cluster();
    let trial = apply(
        "AuthorizationPolicy",
        "shop",
        "d",
        r#"{"istio.io/dry-run":"true"}"#,
        &shut(""),
    );
    assert_eq!(effects(&mut store, trial), []);
    let some = authorization("shop", "d", &format!(r#"{{"action":"DENY",{GET}}}"#));
    assert_eq!(effects(&mut store, some), []);
}

#[test]
fn a_target_is_named_at_its_own_waypoint_alone() {
    let object = |kind: (&str, &str), namespace: &str, name: &str, labels: &str, spec: &str| {
        let (group, kind) = kind;
        let api = if group.is_empty() {
            "v1".to_owned()
        } else {
            format!("{group}/v1")
        };
        let text = format!(
            r#"{{"apiVersion":"{api}","kind":"{kind}","metadata":{{"name":"{name}","namespace":"{namespace}","labels":{labels}}},"spec":{spec}}}"#
        );
        change(ObjectKey::new(group, kind, namespace, name), &text)
    };
    let gateway = ("gateway.networking.k8s.io", "Gateway");
    let waypoint = r#"{"gateway.networking.k8s.io/gateway-name":"w"}"#;
    let used = r#"{"istio.io/use-waypoint":"w"}"#;
    let mut store = cluster();
    store.change([
        change(
            ObjectKey::new("", "Namespace", "", "shop"),
            r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}"#,
        ),
        object(
            gateway,
            "shop",
            "w",
            "{}",
            r#"{"gatewayClassName":"istio-waypoint"}"#,
        ),
        object(("", "Pod"), "shop", "w-1", waypoint, "{}"),
        object(("", "Service"), "shop", "api", used, "{}"),
        object(("", "Service"), "shop", "web", "{}", "{}"),
    ]);
    let target = |service: &str| {
        let spec = format!(r#"{{"targetRefs":[{{"kind":"Service","name":"{service}"}}],{GET}}}"#);
        authorization("shop", "t", &spec)
    };
    let bound = effects(&mut store, target("api"));
    assert_eq!(codes(&bound), ["PC0521"]);
    assert!(
        bound[0].1.contains("`service/shop/api at pod/shop/w-1`"),
        "{bound:?}"
    );
    assert_eq!(effects(&mut store, target("web")), []);
    let proposal = store.propose(&[target("web")]).unwrap();
    let found = proposal.diagnostics.iter();
    assert_eq!(found.filter(|d| d.code == "PC0516").count(), 1);
}
