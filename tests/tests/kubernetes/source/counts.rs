//! On how many workloads a policy comes to bear, as its status tells.

use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::followed::Followed;
use super::statuses::{becomes, condition, replica};
use crate::cluster::{api, apply, namespace, pod, shared, until};

/// A PeerAuthentication for `app`, or for all.
fn peer(namespace: &str, name: &str, app: Option<&str>, mode: &str) -> Value {
    let mut spec = json!({ "mtls": { "mode": mode } });
    if let Some(app) = app {
        spec["selector"] = json!({ "matchLabels": { "app": app } });
    }
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
        "metadata": { "namespace": namespace, "name": name }, "spec": spec,
    })
}

fn service(namespace: &str, name: &str, app: &str, labels: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": namespace, "name": name, "labels": labels },
        "spec": { "selector": { "app": app }, "ports": [{ "port": 80 }] },
    })
}

/// An AuthorizationPolicy or CedarPolicy for a Service.
fn at_service(namespace: &str, kind: &str, service: &str) -> Value {
    let targets = json!([{ "kind": "Service", "group": "", "name": service }]);
    let (version, spec) = match kind {
        "CedarPolicy" => (
            "portcullis.dev/v1alpha1",
            json!({ "targetRefs": targets, "policies": "forbid (principal, action, resource);" }),
        ),
        _ => (
            "security.istio.io/v1",
            json!({ "targetRefs": targets, "rules": [{}] }),
        ),
    };
    json!({ "apiVersion": version, "kind": kind,
        "metadata": { "namespace": namespace, "name": format!("at-{service}") }, "spec": spec })
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_are_counted_where_a_policy_comes_to_bear() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let shop = namespace(&client, "counted").await;
    for (name, address) in [("web", "10.34.0.1"), ("db", "10.34.0.2")] {
        pod(&client, &shop, name, address).await;
    }
    let istio = "portcullis.dev/Enforced";

    // PeerAuthentications: of the namespace, narrowed for one workload, then for both.
    let whole = peer(&shop, "whole", None, "STRICT");
    apply(&client, &whole).await.unwrap();
    let _one = Followed::synced(client.clone(), &replica(&shop, "one")).await;
    let (message, _) = becomes(&client, &whole, istio, "True", "Enforced").await;
    assert_eq!(message, "in force on 2 workloads");
    let web = peer(&shop, "web", Some("web"), "PERMISSIVE");
    apply(&client, &web).await.unwrap();
    let (message, _) = becomes(&client, &web, istio, "True", "Enforced").await;
    assert_eq!(message, "in force on 1 workload");
    says(&client, &whole, istio, "in force on 1 workload").await;
    apply(&client, &peer(&shop, "db", Some("db"), "DISABLE"))
        .await
        .unwrap();
    let (message, _) = becomes(&client, &whole, istio, "False", "Overridden").await;
    assert_eq!(
        message,
        "a narrower one is in force on every workload that it selects, 2 workloads"
    );
    let nobody = peer(&shop, "nobody", Some("nobody"), "STRICT");
    apply(&client, &nobody).await.unwrap();
    becomes(&client, &nobody, istio, "False", "NoWorkloads").await;

    // What targets a Service is enforced at a waypoint, for the workloads behind the Service: without one nowhere.
    apply(&client, &service(&shop, "web", "web", json!({})))
        .await
        .unwrap();
    let none = json!({ "istio.io/use-waypoint": "none" });
    apply(&client, &service(&shop, "db", "db", none))
        .await
        .unwrap();
    let (at_web, at_db) = (
        at_service(&shop, "AuthorizationPolicy", "web"),
        at_service(&shop, "AuthorizationPolicy", "db"),
    );
    let cedar = at_service(&shop, "CedarPolicy", "web");
    for policy in [&at_web, &at_db, &cedar] {
        apply(&client, policy).await.unwrap();
    }
    becomes(&client, &at_web, istio, "False", "NoWorkloads").await;
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": { "namespace": shop, "name": "waypoint" },
        "spec": { "gatewayClassName": "istio-waypoint" },
    });
    apply(&client, &gateway).await.unwrap();
    pod(&client, &shop, "waypoint", "10.34.0.9").await;
    let labels = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": shop, "name": "waypoint",
        "labels": { "app": "waypoint", "gateway.networking.k8s.io/gateway-name": "waypoint" } } });
    let params = PatchParams::default();
    api(&client, &labels)
        .patch("waypoint", &params, &Patch::Merge(&labels))
        .await
        .unwrap();
    let (message, _) = becomes(&client, &at_web, istio, "True", "Enforced").await;
    assert_eq!(message, "in force on 1 workload");
    becomes(&client, &cedar, "Enforced", "True", "Enforced").await;
    let found = api(&client, &cedar).get("at-web").await.unwrap();
    assert_eq!(found.data["status"]["workloads"], json!(1));
    pod(&client, &shop, "web-b", "10.34.0.3").await;
    let labels = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": shop, "name": "web-b", "labels": { "app": "web" } } });
    api(&client, &labels)
        .patch("web-b", &params, &Patch::Merge(&labels))
        .await
        .unwrap();
    says(&client, &at_web, istio, "in force on 2 workloads").await;
    // A Service that says it has no waypoint has none.
    becomes(&client, &at_db, istio, "False", "NoWorkloads").await;
}

/// Waits for the words of a condition.
async fn says(client: &Client, object: &Value, name: &str, words: &str) {
    until(words, async || {
        let found = condition(client, object, name).await;
        found.is_some_and(|(_, _, message, _)| message == words)
    })
    .await;
}
