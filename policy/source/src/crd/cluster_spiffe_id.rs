//! spire.spiffe.io ClusterSPIFFEID, with the fields that SPIRE's controller manager has, so that its manifests apply unchanged.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::Condition;

/// What a ClusterSPIFFEID says.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "spire.spiffe.io",
    version = "v1alpha1",
    kind = "ClusterSPIFFEID",
    plural = "clusterspiffeids",
    singular = "clusterspiffeid",
    category = "portcullis",
    status = "ClusterSpiffeIdStatus",
    derive = "PartialEq",
    doc = "Registration entries for the pods that it selects, made from templates.",
    printcolumn = r#"{"name": "ID", "type": "string", "jsonPath": ".spec.spiffeIDTemplate", "description": "The SPIFFE ID that a pod gets"}"#,
    printcolumn = r#"{"name": "Pods", "type": "integer", "jsonPath": ".status.stats.podsSelected", "description": "Pods that it selects", "priority": 1}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status", "description": "Whether it makes entries"}"#,
    printcolumn = r#"{"name": "Enforced", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Enforced\")].status", "description": "Whether every pod that it selects has its entry"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpiffeIdSpec {
    /// The SPIFFE ID, a template: {{ .TrustDomain }}, {{ .PodMeta.Namespace }}, {{ .PodSpec.ServiceAccountName }} and the rest.
    #[serde(rename = "spiffeIDTemplate")]
    #[schemars(length(max = 4096))]
    pub spiffe_id_template: String,
    /// Pods by label; all where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces by label; all where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// DNS names of the X509-SVID, templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_name_templates: Vec<String>,
    /// Selectors beside that of the pod, templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workload_selector_templates: Vec<String>,
    /// Lifetime of X509-SVIDs, such as 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Lifetime of JWT-SVIDs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_ttl: Option<String>,
    /// Trust domains whose bundles the pods get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub federates_with: Vec<String>,
    /// Tells several SVIDs of one workload apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub hint: Option<String>,
    /// The workload may use the server's administrative API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<bool>,
    /// The workload is a server below this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downstream: Option<bool>,
    /// DNS names from the pod's services.
    #[serde(
        default,
        rename = "autoPopulateDNSNames",
        skip_serializing_if = "Option::is_none"
    )]
    pub auto_populate_dns_names: Option<bool>,
    /// Who renders it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Only for pods that no other selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<bool>,
}

/// Kubernetes' label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct LabelSelector {
    /// Labels that must all be there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Conditions that must all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LabelSelectorRequirement {
    /// The label.
    pub key: String,
    /// How it is compared: In, NotIn, Exists or DoesNotExist.
    pub operator: String,
    /// With what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<String>,
}

/// What became of a ClusterSPIFFEID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpiffeIdStatus {
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Whether it can be rendered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<ClusterSpiffeIdStats>,
}

/// Counts of what a ClusterSPIFFEID came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpiffeIdStats {
    /// Namespaces selected.
    pub namespaces_selected: i64,
    /// Namespaces passed over by configuration.
    pub namespaces_ignored: i64,
    /// Pods selected.
    pub pods_selected: i64,
    /// Pods for which no entry could be rendered.
    pub pod_entry_render_failures: i64,
    /// Entries that another object has already.
    pub entries_masked: i64,
    /// Entries that are to be there.
    pub entries_to_set: i64,
    /// Entries that could not be written.
    pub entry_failures: i64,
}
