use serde_json::{Value, json};

use super::trim;
use crate::kind::KINDS;
use crate::object::Object;

/// What is kept of `object`, a `plural` of `group`.
fn kept(group: &str, plural: &str, object: Value) -> Value {
    let kind = KINDS
        .iter()
        .find(|kind| (kind.group, kind.plural) == (group, plural))
        .unwrap();
    let object: Object<false> = serde_json::from_value(object).unwrap();
    let trimmed = trim(kind, kind.versions[0], object);
    serde_json::from_slice(&trimmed.text).unwrap()
}

#[test]
fn a_pod_keeps_what_selects_and_locates_it() {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web-0", "namespace": "shop", "uid": "1", "resourceVersion": "7", "generation": 3,
            "labels": { "app": "web" }, "annotations": { "a": "b" },
            "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:status": {} } }],
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "serviceAccountName": "web", "hostNetwork": true, "nodeName": "n1", "volumes": [{}],
            "containers": [
                { "name": "web", "image": "web:1", "env": [{}], "ports": [{ "name": "http", "containerPort": 8080 }] },
                { "name": "log", "image": "log:1" },
            ],
        },
        "status": { "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }], "conditions": [{}] },
    });
    let expected = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "web-0", "namespace": "shop", "labels": { "app": "web" } },
        "spec": {
            "serviceAccountName": "web", "hostNetwork": true,
            "containers": [{ "ports": [{ "name": "http", "containerPort": 8080 }] }],
        },
        "status": { "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }] },
    });
    assert_eq!(kept("", "pods", object), expected);
}

#[test]
fn what_the_kubelet_writes_every_few_seconds_changes_nothing() {
    let kind = KINDS.iter().find(|kind| kind.name == "Pod").unwrap();
    let at = |version: &str, heartbeat: &str| {
        let object = json!({
            "metadata": { "name": "web-0", "namespace": "shop", "resourceVersion": version },
            "status": { "phase": "Running", "conditions": [{ "lastProbeTime": heartbeat }] },
        });
        let object: Object<false> = serde_json::from_value(object).unwrap();
        trim(kind, "v1", object)
    };
    let (before, after) = (
        at("1", "2026-01-01T00:00:00Z"),
        at("2", "2026-01-01T00:00:10Z"),
    );
    assert_eq!(before.text, after.text);
    assert_ne!(before.written, after.written);
}

#[test]
fn a_policy_is_kept_whole_but_for_bookkeeping() {
    let spec = json!({ "action": "DENY", "rules": [{}], "mispelt": 1 });
    let object = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {
            "name": "a", "namespace": "shop", "uid": "1", "generation": 2,
            "annotations": {
                "istio.io/dry-run": "true",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            },
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": spec,
        "status": { "conditions": [] },
    });
    let expected = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {
            "name": "a", "namespace": "shop", "annotations": { "istio.io/dry-run": "true" },
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": spec,
    });
    assert_eq!(
        kept("security.istio.io", "authorizationpolicies", object),
        expected
    );
}

#[test]
fn the_rest_keeps_the_fields_that_the_engine_reads() {
    let meta = json!({ "name": "a", "namespace": "shop", "labels": { "l": "v" } });
    for (group, plural, given, kept_fields) in [
        (
            "",
            "services",
            json!({ "spec": { "selector": { "app": "web" }, "clusterIP": "10.0.0.9", "type": "ClusterIP", "ports": [{ "port": 80 }] } }),
            json!({ "spec": { "selector": { "app": "web" }, "clusterIP": "10.0.0.9", "ports": [{ "port": 80 }] } }),
        ),
        (
            "gateway.networking.k8s.io",
            "gateways",
            json!({ "spec": { "gatewayClassName": "istio", "listeners": [{}] }, "status": {} }),
            json!({ "spec": { "gatewayClassName": "istio" } }),
        ),
        (
            "networking.istio.io",
            "gateways",
            json!({ "spec": { "selector": { "istio": "ingress" }, "servers": [{}] } }),
            json!({ "spec": { "selector": { "istio": "ingress" } } }),
        ),
        (
            "networking.istio.io",
            "serviceentries",
            json!({ "spec": { "hosts": ["a.example"], "addresses": ["10.0.0.8"], "resolution": "DNS" } }),
            json!({ "spec": { "hosts": ["a.example"], "addresses": ["10.0.0.8"] } }),
        ),
        (
            "",
            "serviceaccounts",
            json!({ "spec": { "x": 1 } }),
            json!({}),
        ),
    ] {
        let mut object = given;
        object["metadata"] = meta.clone();
        let mut kept = kept(group, plural, object);
        let kept = kept.as_object_mut().unwrap();
        kept.retain(|name, _| !["apiVersion", "kind", "metadata"].contains(&name.as_str()));
        assert_eq!(Value::Object(kept.clone()), kept_fields, "{plural}");
    }
}

#[test]
fn an_endpoint_keeps_its_addresses_and_its_pod() {
    let object = json!({
        "metadata": { "name": "web-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web", "x": "y" } },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": ["10.0.0.1"], "conditions": { "ready": true }, "nodeName": "n1",
            "targetRef": { "kind": "Pod", "namespace": "shop", "name": "web-0", "uid": "1" },
        }],
    });
    let expected = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "web-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
        "endpoints": [{
            "addresses": ["10.0.0.1"],
            "targetRef": { "kind": "Pod", "namespace": "shop", "name": "web-0" },
        }],
    });
    assert_eq!(kept("discovery.k8s.io", "endpointslices", object), expected);
}

#[test]
fn shapes_that_the_server_would_refuse_reach_the_engine_as_they_are() {
    let object = json!({ "metadata": { "name": "a" }, "spec": "nonsense" });
    assert_eq!(kept("", "pods", object)["spec"], json!("nonsense"));
    let object = json!({ "metadata": { "name": "a" }, "endpoints": [7] });
    let kept = kept("discovery.k8s.io", "endpointslices", object);
    assert_eq!(kept["endpoints"], json!([7]));
}

#[test]
fn what_cannot_be_read_is_left_for_the_engine_to_refuse_and_spoils_no_list() {
    let deep = format!("{}0{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    let list = format!(
        "{{\"metadata\":{{}},\"items\":[{{\"metadata\":{{\"name\":\"deep\",\"namespace\":\"evil\"}},\
         \"spec\":{deep},\"status\":{{\"conditions\":{deep}}}}},{{\"metadata\":{{\"name\":\"good\"}},\"spec\":{{}}}}]}}"
    );
    let list: kube::core::ObjectList<Object<false>> = serde_json::from_str(&list).unwrap();
    for (group, plural) in [
        ("portcullis.dev", "policytests"),
        ("networking.istio.io", "serviceentries"),
        ("", "pods"),
    ] {
        let kind = KINDS
            .iter()
            .find(|k| (k.group, k.plural) == (group, plural));
        let kind = kind.unwrap();
        let kept: Vec<_> = list
            .items
            .iter()
            .map(|o| trim(kind, "v1", o.clone()))
            .collect();
        assert_eq!(&*kept[0].key.name, "deep");
        assert_eq!(kept[0].written.conditions, None);
        let text = std::str::from_utf8(&kept[0].text).unwrap();
        assert!(text.contains(&deep), "{plural}");
        assert!(serde_json::from_slice::<Value>(&kept[1].text).is_ok());
    }
}
