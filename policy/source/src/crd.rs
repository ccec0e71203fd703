//! Custom resource definitions of the kinds that are ours to install, made from the types of this module.
//!
//! What the schemas accept the engine can read: they have its words and bounds. What a schema cannot see (Cedar, an
//! earlier case, a namesake) the webhook refuses.

mod attach;
mod cedar_policy;
mod cluster_spiffe_id;
mod condition;
mod policy_test;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

pub use attach::{Selector, TargetRef};
pub use cedar_policy::{CedarPolicy, CedarPolicySpec, CedarPolicyStatus};
pub use cluster_spiffe_id::{
    ClusterSPIFFEID, ClusterSpiffeIdSpec, ClusterSpiffeIdStats, ClusterSpiffeIdStatus,
    LabelSelector, LabelSelectorRequirement,
};
pub use condition::Condition;
pub use policy_test::{Case, PolicyTest, PolicyTestSpec, PolicyTestStatus, Shadow, Trial};

/// Why the definitions cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("a custom resource definition cannot be written: {0}")]
pub struct WriteError(String);

/// Every definition, as the API server takes it: CedarPolicy, PolicyTest, ClusterSPIFFEID.
///
/// # Errors
/// When one has no JSON form.
pub fn definitions() -> Result<Vec<Value>, WriteError> {
    [
        CedarPolicy::crd(),
        PolicyTest::crd(),
        ClusterSPIFFEID::crd(),
    ]
    .iter()
    .map(finished)
    .collect()
}

/// The definitions as one stream of YAML documents.
///
/// # Errors
/// As [`definitions`].
pub fn yaml() -> Result<String, WriteError> {
    let mut stream = String::new();
    for definition in definitions()? {
        let text =
            serde_saphyr::to_string(&definition).map_err(|cause| WriteError(cause.to_string()))?;
        stream.push_str("---\n");
        stream.push_str(text.trim_end());
        stream.push('\n');
    }
    Ok(stream)
}

/// The definitions as one List.
///
/// # Errors
/// As [`definitions`].
pub fn list() -> Result<Value, WriteError> {
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": definitions()?}))
}

fn finished(definition: &CustomResourceDefinition) -> Result<Value, WriteError> {
    let mut value =
        serde_json::to_value(definition).map_err(|cause| WriteError(cause.to_string()))?;
    not_nullable(&mut value);
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    Ok(value)
}

/// Without `nullable` the API server drops a null, which then is what it says: nothing. With it a null would be there, and
/// count as set.
fn not_nullable(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("nullable").is_some_and(Value::is_boolean) {
                fields.remove("nullable");
            }
            fields.values_mut().for_each(not_nullable);
        }
        Value::Array(values) => values.iter_mut().for_each(not_nullable),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
