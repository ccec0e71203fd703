//! Which policies apply to a workload (policy.md 1.1), and what a manifest says of itself.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Target, World};

const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// `metadata.namespace`.
#[must_use]
pub fn namespace(policy: &Value) -> &str {
    policy["metadata"]["namespace"]
        .as_str()
        .unwrap_or("default")
}

/// `metadata.name`.
#[must_use]
pub fn name(policy: &Value) -> &str {
    policy["metadata"]["name"].as_str().unwrap_or("")
}

/// `spec.provider.name`.
#[must_use]
pub fn provider(policy: &Value) -> &str {
    policy["spec"]["provider"]["name"].as_str().unwrap_or("")
}

/// Whether the annotation `istio.io/dry-run` reads as true; what cannot be parsed is enforced.
#[must_use]
pub fn dry_run(policy: &Value) -> bool {
    let annotation = policy["metadata"]["annotations"]["istio.io/dry-run"].as_str();
    matches!(annotation, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// AuthorizationPolicies with `action` that apply to the workload, on trial or not.
#[must_use]
pub fn policies<'a>(world: &'a World, action: &str, on_trial: bool) -> Vec<&'a Value> {
    world
        .policies
        .iter()
        .filter(|policy| policy["kind"] == "AuthorizationPolicy")
        .filter(|policy| policy["spec"]["action"].as_str().unwrap_or("ALLOW") == action)
        .filter(|policy| dry_run(policy) == on_trial)
        .filter(|policy| applies(policy, world))
        .collect()
}

/// Whether a policy with selector or targetRefs applies to the workload.
#[must_use]
pub fn applies(policy: &Value, world: &World) -> bool {
    let home = namespace(policy);
    let served = world
        .service
        .as_ref()
        .filter(|_| world.target == Target::Waypoint);
    let looked_up = home == world.mesh.root_namespace
        || home == world.workload.namespace
        || served.is_some_and(|service| service.namespace == home);
    if !looked_up {
        return false;
    }
    let refs = target_refs(policy);
    if world.target == Target::Ztunnel {
        return refs.is_empty() && selected(policy, world);
    }
    if refs.is_empty() {
        return world.target != Target::Waypoint && selected(policy, world);
    }
    let Some(gateway) = world.workload.labels.get(GATEWAY_NAME) else {
        return false;
    };
    refs.iter()
        .any(|reference| refers(reference, home, gateway, world))
}

/// `spec.targetRefs`, or `spec.targetRef` as its only entry.
fn target_refs(policy: &Value) -> Vec<Value> {
    let many = policy["spec"]["targetRefs"].as_array().cloned();
    let many = many.unwrap_or_default();
    if many.is_empty() {
        return match &policy["spec"]["targetRef"] {
            Value::Object(one) => vec![Value::Object(one.clone())],
            _ => Vec::new(),
        };
    }
    many
}

fn selected(policy: &Value, world: &World) -> bool {
    labels(policy)
        .iter()
        .all(|(key, value)| world.workload.labels.get(key) == Some(value))
}

/// `spec.selector.matchLabels`.
#[must_use]
pub fn labels(policy: &Value) -> BTreeMap<String, String> {
    let labels = policy["spec"]["selector"]["matchLabels"].as_object();
    labels
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or("").to_owned()))
        .collect()
}

fn refers(reference: &Value, home: &str, gateway: &str, world: &World) -> bool {
    let text = |field: &str| reference[field].as_str().unwrap_or("");
    let waypoint = world.target == Target::Waypoint;
    let of_service = |kind: &str| {
        waypoint
            && world.service.as_ref().is_some_and(|service| {
                service.kind == kind && service.name == text("name") && service.namespace == home
            })
    };
    match (text("group"), text("kind")) {
        ("" | "core", "Service") => of_service("Service"),
        ("networking.istio.io", "ServiceEntry") => of_service("ServiceEntry"),
        ("gateway.networking.k8s.io", "GatewayClass") => {
            waypoint && home == world.mesh.root_namespace && text("name") == "istio-waypoint"
        }
        ("gateway.networking.k8s.io", "Gateway") => {
            home == world.workload.namespace
                && (text("namespace").is_empty() || text("namespace") == home)
                && text("name") == gateway
        }
        _ => false,
    }
}
