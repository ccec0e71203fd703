//! portcullis.dev CedarPolicy.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attach::{Selector, TargetRef};
use super::condition::Condition;

/// What a CedarPolicy says.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "portcullis.dev",
    version = "v1alpha1",
    kind = "CedarPolicy",
    plural = "cedarpolicies",
    singular = "cedarpolicy",
    shortname = "cedarpol",
    category = "portcullis",
    namespaced,
    status = "CedarPolicyStatus",
    derive = "PartialEq",
    doc = "User-written Cedar, attached to workloads as an AuthorizationPolicy is. A permit counts as ALLOW, a forbid as DENY.",
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status", "description": "Whether the policies are valid"}"#,
    printcolumn = r#"{"name": "Enforced", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Enforced\")].status", "description": "Whether they are in force"}"#,
    printcolumn = r#"{"name": "Workloads", "type": "integer", "jsonPath": ".status.workloads", "description": "Workloads that they apply to", "priority": 1}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].reason", "description": "Why they are accepted or not", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.selector) && has(self.targetRefs))",
    "message": "only one of targetRefs or selector can be set"
}]))]
pub struct CedarPolicySpec {
    /// Workloads of the namespace (in the root namespace: of the mesh) that the policies apply to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Gateways, or services behind a waypoint, that the policies apply to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Policies in Cedar, validated against the schema that `portcullis policy translate --schema` prints.
    #[schemars(length(min = 1, max = 65536))]
    pub policies: String,
}

/// What became of a CedarPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CedarPolicyStatus {
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted and Enforced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Workloads that it applies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub workloads: Option<i64>,
}
