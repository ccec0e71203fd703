//! A small cluster: what a test needs of it in one line each.

use std::sync::Arc;

use portcullis_policy::decision::Decision;
use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, ObjectKey, Outcome, Store};
use portcullis_policy::request::{Headers, Http, Request};
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::Snapshot;

pub const SECURITY: &str = "security.istio.io";

pub fn policy(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(SECURITY, "AuthorizationPolicy", namespace, name)
}

/// Applies a policy of `kind`; `annotations` and `spec` are JSON.
pub fn apply(kind: &str, namespace: &str, name: &str, annotations: &str, spec: &str) -> Change {
    let text = format!(
        r#"{{"apiVersion":"{SECURITY}/v1","kind":"{kind}","metadata":{{"name":"{name}","namespace":"{namespace}","annotations":{annotations}}},"spec":{spec}}}"#
    );
    let key = ObjectKey::new(SECURITY, kind, namespace, name);
    change(key, &text)
}

pub fn change(key: ObjectKey, text: &str) -> Change {
    let text = SourceText {
        file: key.file(),
        bytes: text.as_bytes().into(),
    };
    Change::Apply { key, text }
}

pub fn authorization(namespace: &str, name: &str, spec: &str) -> Change {
    apply("AuthorizationPolicy", namespace, name, "{}", spec)
}

pub fn pod(namespace: &str, name: &str, app: &str, address: &str) -> Change {
    let text = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"{namespace}","labels":{{"app":"{app}"}}}},"spec":{{"serviceAccountName":"{app}"}},"status":{{"phase":"Running","podIP":"{address}"}}}}"#
    );
    change(ObjectKey::new("", "Pod", namespace, name), &text)
}

/// `shop/web-1`, `shop/db-1` and `blog/web-1`, without policies.
pub fn cluster() -> Store {
    let mut store = Store::new(Settings::default());
    store.change([
        pod("shop", "web-1", "web", "10.0.0.1"),
        pod("shop", "db-1", "db", "10.0.0.2"),
        pod("blog", "web-1", "web", "10.0.1.1"),
    ]);
    store
}

pub fn get(workload: &str) -> Request {
    let mut request = Request::empty();
    request.destination.workload = Some(workload.to_owned());
    request.destination.port = Some(8080);
    request.http = Some(Http {
        method: "GET".into(),
        path: "/".into(),
        host: "shop.example".into(),
        scheme: "https".into(),
        headers: Headers::default(),
    });
    request
}

pub fn decide(snapshot: &Arc<Snapshot>, workload: &str) -> Decision {
    snapshot.decide(&get(workload))
}

/// The reasons for `shop/web-1`, `shop/db-1` and `blog/web-1`.
pub fn reasons(store: &mut Store) -> [&'static str; 3] {
    let snapshot = store.snapshot();
    ["shop/web-1", "shop/db-1", "blog/web-1"]
        .map(|workload| decide(&snapshot, workload).reason.as_str())
}

pub fn outcome(store: &Store, key: &ObjectKey) -> Outcome {
    let mut outcomes = store.outcomes();
    outcomes.find(|(k, _)| *k == key).unwrap().1.clone()
}

/// A policy that cannot be read, with this in front of its rules.
pub fn bad(selector: &str) -> String {
    format!(r#"{{{selector}"rules":[{{"to":"everything"}}]}}"#)
}

pub const WEB: &str = r#""selector":{"matchLabels":{"app":"web"}},"#;
