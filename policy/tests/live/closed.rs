//! A policy that was never seen good closes what it selects.

use portcullis_policy::live::{Change, Outcome};
use portcullis_policy::settings::Settings;

use super::cluster::{
    WEB, apply, authorization, bad, change, cluster, decide, get, outcome, policy, reasons,
};

const OPEN: [&str; 3] = ["no_allow_policy"; 3];
const WEB_CLOSED: [&str; 3] = ["invalid_resource", "no_allow_policy", "no_allow_policy"];
const SHOP_CLOSED: [&str; 3] = ["invalid_resource", "invalid_resource", "no_allow_policy"];

/// What `shop/web-1`, `shop/db-1` and `blog/web-1` come to with this one change.
fn after(change: Change) -> [&'static str; 3] {
    let mut store = cluster();
    store.change([change]);
    reasons(&mut store)
}

#[test]
fn what_it_selects_is_closed() {
    let mut store = cluster();
    store.change([authorization("shop", "web", &bad(WEB))]);
    assert_eq!(reasons(&mut store), WEB_CLOSED);
    let key = policy("shop", "web");
    assert!(matches!(outcome(&store, &key), Outcome::Closed { .. }));
    let snapshot = store.snapshot();
    let decision = decide(&snapshot, "shop/web-1");
    assert_eq!(decision.policies, ["shop/web"]);
    assert_eq!(decision.dry_run, None);
    let told = snapshot.explain(&get("shop/web-1"), false);
    let steps = told.steps.join("\n");
    assert!(
        steps.contains("closed by `AuthorizationPolicy/shop/web`: it is refused")
            && steps.contains("PC0021"),
        "{steps}"
    );
    store.change([Change::Delete(key)]);
    assert_eq!(reasons(&mut store), OPEN);
}

#[test]
fn mended_it_opens() {
    let mut store = cluster();
    store.change([authorization("shop", "web", &bad(WEB))]);
    assert_eq!(reasons(&mut store), WEB_CLOSED);
    store.change([authorization(
        "shop",
        "web",
        &format!(r#"{{{WEB}"rules":[{{}}]}}"#),
    )]);
    assert_eq!(
        reasons(&mut store),
        ["allowed_by", "no_allow_policy", "no_allow_policy"]
    );
}

#[test]
fn without_selector_its_namespace_is_closed() {
    assert_eq!(after(authorization("shop", "all", &bad(""))), SHOP_CLOSED);
}

#[test]
fn a_selector_that_cannot_be_read_closes_the_namespace() {
    for selector in [
        r#""selector":5,"#,
        r#""selector":{"matchLabels":["web"]},"#,
        r#""selector":{"matchLabels":{"app":5}},"#,
        r#""selector":{"matchExpressions":[]},"#,
        r#""selector":{"matchLabels":{"app":"w*"}},"#,
        r#""targetRefs":{"kind":"Service"},"#,
    ] {
        let spec = bad(selector);
        assert_eq!(
            after(authorization("shop", "x", &spec)),
            SHOP_CLOSED,
            "{spec}"
        );
    }
    // Nothing can be read at all.
    let key = || policy("shop", "x");
    for text in [
        "{",
        "[]",
        "5",
        r#"{"kind":"Pod"}"#,
        "\u{0}",
        r#"{"a":1}{"b":2}"#,
    ] {
        assert_eq!(after(change(key(), text)), SHOP_CLOSED, "{text}");
    }
    assert_eq!(after(authorization("shop", "x", "[]")), SHOP_CLOSED);
}

#[test]
fn two_ways_to_attach_close_what_either_names() {
    let spec = bad(&format!(
        r#"{WEB}"targetRefs":[{{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"in"}}],"#
    ));
    assert_eq!(after(authorization("shop", "x", &spec)), WEB_CLOSED);
}

#[test]
fn in_the_root_namespace_only_what_it_names_is_closed() {
    assert_eq!(after(authorization("istio-system", "x", &bad(""))), OPEN);
    assert_eq!(
        after(authorization(
            "istio-system",
            "x",
            &bad(r#""selector":{},"#)
        )),
        OPEN
    );
    assert_eq!(
        after(authorization("istio-system", "x", &bad(r#""selector":5,"#))),
        OPEN
    );
    assert_eq!(
        after(authorization("istio-system", "x", &bad(WEB))),
        ["invalid_resource", "no_allow_policy", "invalid_resource"]
    );
    // The root namespace is where the mesh says.
    let mut settings = Settings::default();
    settings.mesh.root_namespace = Some("shop".into());
    let mut store = portcullis_policy::live::Store::new(settings);
    store.change([
        super::cluster::pod("shop", "web-1", "web", "10.0.0.1"),
        super::cluster::pod("shop", "db-1", "db", "10.0.0.2"),
        super::cluster::pod("blog", "web-1", "web", "10.0.1.1"),
        authorization("shop", "x", &bad("")),
    ]);
    assert_eq!(reasons(&mut store), OPEN);
}

#[test]
fn what_records_or_is_on_trial_closes_nothing() {
    let audit = bad(&format!(r#"{WEB}"action":"AUDIT","#));
    assert_eq!(after(authorization("shop", "x", &audit)), OPEN);
    let on_trial = |value: &str| {
        let annotations = format!(r#"{{"istio.io/dry-run":"{value}"}}"#);
        apply("AuthorizationPolicy", "shop", "x", &annotations, &bad(WEB))
    };
    assert_eq!(after(on_trial("true")), OPEN);
    assert_eq!(after(on_trial("false")), WEB_CLOSED);
    // What cannot be read as on trial is in force.
    assert_eq!(after(on_trial("yes")), WEB_CLOSED);
    let mut store = cluster();
    store.change([authorization("shop", "x", &audit)]);
    assert!(matches!(
        outcome(&store, &policy("shop", "x")),
        Outcome::LeftOut { .. }
    ));
    // An action that cannot be read is none that only records.
    let unknown = bad(&format!(r#"{WEB}"action":"audit","#));
    assert_eq!(after(authorization("shop", "x", &unknown)), WEB_CLOSED);
}

#[test]
fn other_kinds_close_as_well() {
    let peer = r#"{"selector":{"matchLabels":{"app":"web"}},"mtls":{"mode":"VERY"}}"#;
    assert_eq!(
        after(apply("PeerAuthentication", "shop", "x", "{}", peer)),
        WEB_CLOSED
    );
    // In the root namespace Istio takes no notice of its selector.
    assert_eq!(
        after(apply("PeerAuthentication", "istio-system", "x", "{}", peer)),
        OPEN
    );
    let tokens = r#"{"selector":{"matchLabels":{"app":"web"}},"jwtRules":[{"issuer":5}]}"#;
    assert_eq!(
        after(apply("RequestAuthentication", "shop", "x", "{}", tokens)),
        WEB_CLOSED
    );
    // These kinds have no dry-run: the annotation refuses them, and opens nothing.
    let on_trial = r#"{"istio.io/dry-run":"true"}"#;
    let peer = r#"{"selector":{"matchLabels":{"app":"web"}},"mtls":{"mode":"STRICT"}}"#;
    assert_eq!(
        after(apply("PeerAuthentication", "shop", "x", on_trial, peer)),
        WEB_CLOSED
    );
    assert_eq!(
        after(apply(
            "RequestAuthentication",
            "shop",
            "x",
            on_trial,
            tokens
        )),
        WEB_CLOSED
    );
}

#[test]
fn on_trial_it_is_closed_too() {
    let mut store = cluster();
    let trial = apply(
        "AuthorizationPolicy",
        "shop",
        "try",
        r#"{"istio.io/dry-run":"true"}"#,
        r#"{"rules":[{}]}"#,
    );
    store.change([trial, authorization("shop", "web", &bad(WEB))]);
    let decision = decide(&store.snapshot(), "shop/web-1");
    let dry_run = decision.dry_run.unwrap();
    assert_eq!(dry_run.reason.as_str(), "invalid_resource");
    assert_eq!(dry_run.policies, ["shop/web"]);
}

#[test]
fn several_are_named_in_order() {
    let mut store = cluster();
    store.change([
        authorization("shop", "z", &bad(WEB)),
        authorization("shop", "a", &bad("")),
    ]);
    let snapshot = store.snapshot();
    assert_eq!(
        decide(&snapshot, "shop/web-1").policies,
        ["shop/a", "shop/z"]
    );
    assert_eq!(decide(&snapshot, "shop/db-1").policies, ["shop/a"]);
}

#[test]
fn a_gateway_is_closed_by_its_own_name() {
    let mut store = cluster();
    let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"in-1","namespace":"shop","labels":{"gateway.networking.k8s.io/gateway-name":"in"}},"status":{"phase":"Running","podIP":"10.0.0.8"}}"#;
    let key = portcullis_policy::live::ObjectKey::new("", "Pod", "shop", "in-1");
    let named = bad(
        r#""targetRefs":[{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"in"}],"#,
    );
    store.change([change(key, text), authorization("shop", "in", &named)]);
    assert_eq!(reasons(&mut store), OPEN);
    let decision = decide(&store.snapshot(), "shop/in-1");
    assert_eq!(decision.reason.as_str(), "invalid_resource");
    // A gateway takes no notice of PeerAuthentication.
    store.change([
        Change::Delete(policy("shop", "in")),
        apply(
            "PeerAuthentication",
            "shop",
            "x",
            "{}",
            r#"{"mtls":{"mode":"VERY"}}"#,
        ),
    ]);
    let snapshot = store.snapshot();
    assert_eq!(
        decide(&snapshot, "shop/in-1").reason.as_str(),
        "no_allow_policy"
    );
    assert_eq!(reasons(&mut store), SHOP_CLOSED);
}
