//! Files beside objects: one set, each object once.

use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, Outcome, Store};
use portcullis_policy::settings::Settings;

use super::cluster::{WEB, authorization, bad, cluster, decide, outcome, policy, reasons};

fn file(name: &str, text: &str) -> SourceText {
    SourceText {
        file: name.into(),
        bytes: text.as_bytes().into(),
    }
}

fn deny() -> SourceText {
    file(
        "policies/web.yaml",
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, action: DENY, rules: [{}]}
",
    )
}

#[test]
fn an_object_that_a_file_holds_is_refused_alone() {
    let mut store = cluster();
    store.set_files(vec![deny()]).unwrap();
    assert_eq!(reasons(&mut store)[0], "denied_by");
    store.change([
        authorization("shop", "web", r#"{"rules":[{}]}"#),
        authorization("shop", "db", r#"{"selector":{"matchLabels":{"app":"db"}}}"#),
    ]);
    assert_eq!(
        reasons(&mut store),
        ["denied_by", "no_allow_matched", "no_allow_policy"]
    );
    let Outcome::LastGood { diagnostics } = outcome(&store, &policy("shop", "web")) else {
        panic!("{:?}", outcome(&store, &policy("shop", "web")));
    };
    assert_eq!(diagnostics.last().unwrap().code, "PC0503");
    // One that is bad as well closes nothing: the file's is in force.
    store.change([authorization("shop", "web", &bad(WEB))]);
    assert_eq!(reasons(&mut store)[0], "denied_by");
    // Without the file the object is what it is.
    store.set_files(Vec::new()).unwrap();
    assert_eq!(reasons(&mut store)[0], "invalid_resource");
    store.change([Change::Delete(policy("shop", "web"))]);
    assert_eq!(reasons(&mut store)[0], "no_allow_policy");
}

#[test]
fn bad_files_are_refused_whole() {
    let mut store = cluster();
    store.set_files(vec![deny()]).unwrap();
    let bad = file("policies/bad.yaml", "kind: [");
    let refused = store.set_files(vec![bad.clone()]).unwrap_err();
    assert_eq!(refused[0].location.file.as_ref(), "policies/bad.yaml");
    assert_eq!(reasons(&mut store)[0], "denied_by");
    assert!(Store::with_files(Settings::default(), vec![bad]).is_err());
    let mut store = Store::with_files(Settings::default(), vec![deny()]).unwrap();
    let reason = decide(&store.snapshot(), "shop/web-1").reason;
    assert_eq!(reason.as_str(), "unknown_destination");
}
