//! Objects that a tenant may write and nobody can read: each is alone in that.

use kube::Client;
use portcullis_policy::live::{ObjectKey, Outcome};
use portcullis_source::KindState;
use serde_json::json;

use super::followed::{Followed, options};
use crate::cluster::{apply, define, make_namespace, others, start, until};

const TESTS: &str = "policytests.portcullis.dev";

/// Writes a PolicyTest whose request nests so deep: what is below `request` is not looked at by the API server.
async fn nested(client: &Client, name: &str, depth: usize) {
    let object = json!({
        "apiVersion": "portcullis.dev/v1alpha1", "kind": "PolicyTest", "metadata": { "name": name },
        "spec": { "cases": [{ "name": "a", "decision": "deny", "reason": "denied_by", "request": { "x": "DEEP" } }] },
    });
    let deep = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let body = object.to_string().replace("\"DEEP\"", &deep);
    let path = "/apis/portcullis.dev/v1alpha1/namespaces/evil/policytests";
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(body.into_bytes()).unwrap();
    client.request_text(request).await.unwrap();
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("portcullis.dev", "PolicyTest", "evil", name)
}

/// What is said against it; empty while nothing is.
fn complaint(followed: &Followed, name: &str) -> String {
    let store = followed.source.store();
    let store = store.lock();
    let found = store.outcomes().find(|(known, _)| **known == key(name));
    match found {
        Some((_, Outcome::LeftOut { diagnostics } | Outcome::LastGood { diagnostics })) => {
            diagnostics.iter().map(|d| d.message.clone()).collect()
        }
        _ => String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_nests_too_deep_keeps_nobody_from_the_others() {
    let Some(cluster) = start("kubernetes-hostile", &[]) else {
        return;
    };
    let client = cluster.client().await;
    define(&client, &others()).await;
    for namespace in ["evil", "shop"] {
        make_namespace(&client, namespace).await;
    }
    let test = |name: &str| {
        json!({
            "apiVersion": "portcullis.dev/v1alpha1", "kind": "PolicyTest",
            "metadata": { "name": name, "namespace": "shop" },
            "spec": { "cases": [{
                "name": "a", "decision": "deny", "reason": "denied_by", "request": { "attributes": {} },
            }] },
        })
    };
    apply(&client, &test("listed")).await.unwrap();
    nested(&client, "listed", 300).await;

    // In the first list, and in a watch.
    let followed = Followed::start(client.clone(), &options());
    let has = |name: &str| {
        let snapshot = followed.snapshot();
        snapshot
            .policies()
            .tests()
            .any(|t| t.meta.name == name && t.meta.namespace == "shop")
    };
    until("the source is synced", async || followed.status().synced).await;
    assert!(has("listed"));
    nested(&client, "watched", 4000).await;
    apply(&client, &test("watched")).await.unwrap();
    until("the test is followed", async || has("watched")).await;
    assert_eq!(followed.state(TESTS), KindState::Following);
    for name in ["listed", "watched"] {
        until("it is said what is wrong", async || {
            complaint(&followed, name).contains("levels of nesting")
        })
        .await;
    }
}
