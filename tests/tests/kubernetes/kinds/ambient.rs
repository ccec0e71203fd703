//! `kubectl portcullis explain` in the ambient mesh: where a request is decided on its way.

use serde_json::{Value, json};

use super::plugin::Plugin;
use crate::cluster::{self, apply};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_decided_at_the_waypoint_and_at_ztunnel() {
    let Some(cluster) = cluster::shared() else {
        return;
    };
    let client = cluster.client().await;
    let namespace = cluster::namespace(&client, "ambient").await;
    let object = |version: &str, kind: &str, name: &str, labels: Value, spec: Value| {
        json!({ "apiVersion": version, "kind": kind,
            "metadata": { "name": name, "namespace": namespace, "labels": labels }, "spec": spec })
    };
    let ambient = json!({ "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": namespace, "labels": { "istio.io/dataplane-mode": "ambient" } } });
    apply(&client, &ambient).await.unwrap();
    for (name, address) in [
        ("api", "10.78.0.1"),
        ("web", "10.78.0.2"),
        ("waypoint", "10.78.0.3"),
    ] {
        cluster::pod(&client, &namespace, name, address).await;
    }
    let gateway = "gateway.networking.k8s.io/v1";
    let waypoint_pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "waypoint", "namespace": namespace,
        "labels": { "app": "waypoint", "gateway.networking.k8s.io/gateway-name": "waypoint" } },
        "spec": { "containers": [{ "name": "c", "image": "c", "ports": [{ "containerPort": 8080 }] }] } });
    apply(&client, &waypoint_pod).await.unwrap();
    let service = |labels: Value| {
        let ports = json!([{ "name": "http", "port": 80, "targetPort": 8080 }]);
        object(
            "v1",
            "Service",
            "api",
            labels,
            json!({ "selector": { "app": "api" }, "ports": ports }),
        )
    };
    let gateway = object(
        gateway,
        "Gateway",
        "waypoint",
        json!({}),
        json!({ "gatewayClassName": "istio-waypoint",
        "listeners": [{ "name": "mesh", "port": 15008, "protocol": "HBONE" }] }),
    );
    let policy = |name: &str, spec: Value| {
        object(
            "security.istio.io/v1",
            "AuthorizationPolicy",
            name,
            json!({}),
            spec,
        )
    };
    let reads = json!([{ "from": [{ "source": { "serviceAccounts": [format!("{namespace}/default")] } }],
        "to": [{ "operation": { "methods": ["GET"], "ports": ["80"] } }] }]);
    let at_service = policy(
        "reads",
        json!({ "targetRefs": [{ "group": "", "kind": "Service", "name": "api" }], "rules": reads }),
    );
    let objects = [
        service(json!({ "istio.io/use-waypoint": "waypoint" })),
        gateway,
        at_service,
    ];
    for one in &objects {
        apply(&client, one).await.unwrap();
    }
    let plugin = Plugin::new("kubectl-ambient", cluster, &namespace);
    let from = format!("ns/{namespace}/sa/default");
    let explain = async |to: &str, method: &str| {
        let args = ["explain", to, "--from", &from, method, "/"];
        tokio::task::block_in_place(|| plugin.run(&args))
    };
    let (at_waypoint, at_ztunnel) = (
        format!("at the waypoint {namespace}/waypoint"),
        format!("at ztunnel, before pod/{namespace}/api"),
    );

    // Through the service: both places decide, the second for the waypoint.
    let (code, out, err) = explain("svc/api", "GET").await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains(&format!("ALLOW: allowed_by {namespace}/reads#rule[0]")),
        "{out}"
    );
    let (first, second) = (
        out.find(&at_waypoint).unwrap(),
        out.find(&at_ztunnel).unwrap(),
    );
    assert!(first < second, "{out}");
    // What is denied at the first gets no farther.
    let (code, out, _) = explain("svc/api", "POST").await;
    assert_eq!(code, 2, "{out}");
    assert!(
        out.contains("DENY: no_allow_matched") && !out.contains(&at_ztunnel),
        "{out}"
    );
    // To the pod itself, a waypoint for services is passed by.
    let (code, out, _) = explain("pod/api", "POST").await;
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains(&at_ztunnel) && !out.contains(&at_waypoint),
        "{out}"
    );

    // ztunnel knows no methods: an ALLOW that asks for one lets nothing in.
    let rules = json!([{ "to": [{ "operation": { "methods": ["GET"] } }] }]);
    let selecting = policy(
        "methods",
        json!({ "selector": { "matchLabels": { "app": "web" } }, "rules": rules }),
    );
    apply(&client, &selecting).await.unwrap();
    let (code, out, _) = explain("pod/web", "GET").await;
    assert_eq!(code, 2, "{out}");
    assert!(
        out.contains(&format!("at ztunnel, before pod/{namespace}/web")),
        "{out}"
    );

    // A service that wants no waypoint.
    apply(
        &client,
        &service(json!({ "istio.io/use-waypoint": "none" })),
    )
    .await
    .unwrap();
    let (code, out, _) = explain("svc/api", "POST").await;
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains(&at_ztunnel) && !out.contains(&at_waypoint),
        "{out}"
    );
    // A waypoint that is not running.
    apply(
        &client,
        &service(json!({ "istio.io/use-waypoint": "gone" })),
    )
    .await
    .unwrap();
    let gone = object(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        "gone",
        json!({}),
        json!({ "gatewayClassName": "istio-waypoint",
        "listeners": [{ "name": "mesh", "port": 15008, "protocol": "HBONE" }] }),
    );
    apply(&client, &gone).await.unwrap();
    let (code, _, err) = explain("svc/api", "GET").await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("has no running pod"), "{err}");
}
