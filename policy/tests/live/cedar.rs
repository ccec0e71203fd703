//! Cedar in several objects: what a policy is called, and whose it is.

use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, ObjectKey, Outcome, Store};
use portcullis_policy::settings::Settings;

use super::cluster::{change, cluster, decide, outcome, pod};

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("portcullis.dev", "CedarPolicy", "shop", name)
}

/// A CedarPolicy for `app: web`.
fn cedar(name: &str, policies: &str) -> Change {
    let text = serde_json::json!({
        "apiVersion": "portcullis.dev/v1alpha1", "kind": "CedarPolicy",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": { "selector": { "matchLabels": { "app": "web" } }, "policies": policies },
    });
    change(key(name), &text.to_string())
}

fn names(store: &mut Store) -> Vec<String> {
    let decision = decide(&store.snapshot(), "shop/web-1");
    decision.policies.iter().map(ToString::to_string).collect()
}

const FORBID: &str = r#"@id("x") forbid (principal, action, resource);"#;

/// An id is its object's own: decisions name policies by namespace, object and id.
#[test]
fn two_objects_may_use_one_id() {
    let mut store = cluster();
    store.change([cedar("one", FORBID), cedar("two", FORBID)]);
    for name in ["one", "two"] {
        assert_eq!(outcome(&store, &key(name)), Outcome::Accepted);
    }
    assert_eq!(names(&mut store), ["shop/one#x", "shop/two#x"]);
    store.change([Change::Delete(key("one"))]);
    assert_eq!(names(&mut store), ["shop/two#x"]);
    // One denies what the other permits.
    let permit = FORBID.replace("forbid", "permit");
    store.change([cedar("one", &permit)]);
    assert_eq!(names(&mut store), ["shop/two#x"]);
    store.change([Change::Delete(key("two"))]);
    assert_eq!(names(&mut store), ["shop/one#x"]);
    // Within one object an id is one policy's.
    store.change([cedar("one", &format!("{FORBID}\n{permit}"))]);
    let Outcome::LastGood { diagnostics } = outcome(&store, &key("one")) else {
        panic!("{:?}", outcome(&store, &key("one")));
    };
    assert_eq!(diagnostics[0].code, "PC0607", "{diagnostics:?}");
    assert_eq!(names(&mut store), ["shop/one#x"]);
}

/// A file may name its policies as it likes, that of an object's policy included: both are in force.
#[test]
fn a_file_may_use_the_name_of_an_objects_policy() {
    let named = |path: &str| {
        format!(
            r#"forbid (principal, action == Action::"http", resource) when {{ context.http.path == "{path}" }};"#
        )
    };
    for (in_file, in_object) in [("/", "/other"), ("/other", "/"), ("/", "/")] {
        let text = format!(
            r#"@id("one#x") @namespace("shop") @selector("app=web") {}"#,
            named(in_file)
        );
        let file = SourceText {
            file: "rules.cedar".into(),
            bytes: text.as_bytes().into(),
        };
        let mut store = Store::with_files(Settings::default(), vec![file]).unwrap();
        store.change([
            pod("shop", "web-1", "web", "10.0.0.1"),
            cedar("one", &format!(r#"@id("x") {}"#, named(in_object))),
        ]);
        assert_eq!(outcome(&store, &key("one")), Outcome::Accepted);
        let decision = decide(&store.snapshot(), "shop/web-1");
        assert_eq!(
            decision.reason.as_str(),
            "denied_by",
            "{in_file} {in_object}"
        );
        assert_eq!(decision.policies[0].to_string(), "shop/one#x");
    }
}
