//! A bad update keeps the last good version of its object, and nothing else moves.

use portcullis_policy::live::{Change, ObjectKey, Outcome};

use super::cluster::{
    WEB, authorization, bad, change, cluster, decide, outcome, pod, policy, reasons,
};

fn deny_web() -> Change {
    authorization(
        "shop",
        "web",
        &format!(r#"{{{WEB}"action":"DENY","rules":[{{}}]}}"#),
    )
}

#[test]
fn a_bad_update_keeps_the_last_good_version() {
    let mut store = cluster();
    store.change([deny_web()]);
    assert_eq!(
        reasons(&mut store),
        ["denied_by", "no_allow_policy", "no_allow_policy"]
    );
    let good = store.snapshot();
    store.change([authorization("shop", "web", &bad(WEB))]);
    let Outcome::LastGood { diagnostics } = outcome(&store, &policy("shop", "web")) else {
        panic!("{:?}", outcome(&store, &policy("shop", "web")));
    };
    assert_eq!(diagnostics[0].code, "PC0021");
    assert_eq!(
        diagnostics[0].location.file.as_ref(),
        "kubernetes:AuthorizationPolicy.security.istio.io/shop/web"
    );
    assert_eq!(store.snapshot().revision(), good.revision());
    assert_eq!(
        reasons(&mut store),
        ["denied_by", "no_allow_policy", "no_allow_policy"]
    );
    // The other namespaces move on.
    store.change([authorization("blog", "none", "{}")]);
    assert_eq!(
        reasons(&mut store),
        ["denied_by", "no_allow_policy", "no_allow_matched"]
    );
    // And the object itself, mended.
    store.change([authorization(
        "shop",
        "web",
        r#"{"action":"AUDIT","rules":[{}]}"#,
    )]);
    assert_eq!(outcome(&store, &policy("shop", "web")), Outcome::Accepted);
    assert_eq!(
        reasons(&mut store),
        ["no_allow_policy", "no_allow_policy", "no_allow_matched"]
    );
}

#[test]
fn a_deleted_policy_has_no_last_good_version() {
    let mut store = cluster();
    store.change([deny_web(), Change::Delete(policy("shop", "web"))]);
    assert_eq!(reasons(&mut store), ["no_allow_policy"; 3]);
    assert_eq!(store.outcomes().count(), 0);
    store.change([authorization("shop", "web", &bad(WEB))]);
    assert_eq!(
        reasons(&mut store),
        ["invalid_resource", "no_allow_policy", "no_allow_policy"]
    );
}

#[test]
fn a_bad_pod_closes_nothing() {
    let mut store = cluster();
    let key = || ObjectKey::new("", "Pod", "shop", "web-1");
    let head = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-1","namespace":"shop"#;
    store.change([
        deny_web(),
        change(key(), &format!(r#"{head}","labels":5}}}}"#)),
    ]);
    let snapshot = store.snapshot();
    assert_eq!(decide(&snapshot, "shop/web-1").reason.as_str(), "denied_by");
    // One never seen good is no destination, and closes none.
    let new = change(ObjectKey::new("", "Pod", "shop", "new"), "{");
    store.change([new]);
    let snapshot = store.snapshot();
    assert_eq!(
        decide(&snapshot, "shop/new").reason.as_str(),
        "unknown_destination"
    );
    assert_eq!(
        reasons(&mut store),
        ["denied_by", "no_allow_policy", "no_allow_policy"]
    );
    // What is told of objects is told of policies.
    assert_eq!(store.outcomes().count(), 1);
}

fn mesh(text: &str) -> Change {
    let key = ObjectKey::new("", "ConfigMap", "istio-system", "istio");
    let text = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": text},
    });
    change(key, &text.to_string())
}

/// As Istio's own documents write it: protobuf's JSON takes numbers as texts.
#[test]
fn a_mesh_may_quote_its_numbers() {
    let mut store = cluster();
    store.change([mesh(
        "trustDomain: td1\nmeshMTLS: {minProtocolVersion: TLSV1_3}\n\
         defaultConfig: {gatewayTopology: {numTrustedProxies: \"2\"}}\n\
         extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: b, port: \"9000\"}}]\n",
    )]);
    assert_eq!(store.refused_mesh(), None);
    let snapshot = store.snapshot();
    assert_eq!(snapshot.mesh().trust_domain, "td1");
    assert_eq!(snapshot.mesh().num_trusted_proxies, Some(2));
    for wrong in ["0", "65536", "9000.5", "-1", "x"] {
        store.change([mesh(&format!(
            "extensionProviders: [{{name: a, envoyExtAuthzGrpc: {{service: b, port: \"{wrong}\"}}}}]\n"
        ))]);
        let (_, outcome) = store.refused_mesh().unwrap();
        assert!(matches!(outcome, Outcome::LastGood { .. }), "{wrong}");
    }
}

#[test]
fn a_bad_mesh_keeps_the_last_good_one() {
    let mut store = cluster();
    store.change([
        mesh("rootNamespace: shop"),
        authorization("shop", "all", "{}"),
    ]);
    assert_eq!(reasons(&mut store), ["no_allow_matched"; 3]);
    store.change([mesh("rootNamespace: [")]);
    assert_eq!(reasons(&mut store), ["no_allow_matched"; 3]);
    store.change([mesh("rootNamespace: other")]);
    assert_eq!(
        reasons(&mut store),
        ["no_allow_matched", "no_allow_matched", "no_allow_policy"]
    );
}

#[test]
fn pods_come_change_and_go() {
    let mut store = cluster();
    store.change([deny_web(), pod("shop", "web-2", "web", "10.0.0.3")]);
    let snapshot = store.snapshot();
    assert_eq!(decide(&snapshot, "shop/web-2").reason.as_str(), "denied_by");
    store.change([pod("shop", "web-2", "db", "10.0.0.3")]);
    let snapshot = store.snapshot();
    assert_eq!(
        decide(&snapshot, "shop/web-2").reason.as_str(),
        "no_allow_policy"
    );
    store.change([Change::Delete(ObjectKey::new("", "Pod", "shop", "web-2"))]);
    let snapshot = store.snapshot();
    assert_eq!(
        decide(&snapshot, "shop/web-2").reason.as_str(),
        "unknown_destination"
    );
}

#[test]
fn nothing_changed_is_the_same_snapshot() {
    let mut store = cluster();
    store.change([deny_web()]);
    let first = store.snapshot();
    assert!(std::sync::Arc::ptr_eq(&first, &store.snapshot()));
    // Order of arrival does not matter.
    let mut other = portcullis_policy::live::Store::new(Default::default());
    other.change([
        deny_web(),
        pod("blog", "web-1", "web", "10.0.1.1"),
        pod("shop", "db-1", "db", "10.0.0.2"),
        pod("shop", "web-1", "web", "10.0.0.1"),
    ]);
    assert_eq!(first.revision(), other.snapshot().revision());
    other.change([pod("shop", "web-1", "web", "10.0.0.9")]);
    assert_ne!(first.revision(), other.snapshot().revision());
}
