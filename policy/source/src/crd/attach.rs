//! What a policy attaches to, with the words and bounds of Istio's own kinds.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Workloads by their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that a workload must all have; without any, every workload of the namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "additionalProperties" = {
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": [{
                "rule": "!self.contains('*')",
                "message": "wildcard not allowed in label value match"
            }]
        },
        "maxProperties" = 4096,
        "x-kubernetes-validations" = [
            {"rule": "self.all(key, !key.contains('*'))", "message": "wildcard not allowed in label key match"},
            {"rule": "self.all(key, key.size() != 0)", "message": "key must not be empty"}
        ]
    ))]
    pub match_labels: BTreeMap<String, String>,
}

/// An object of the policy's own namespace; a GatewayClass belongs to the root namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.kind == 'Service' ? (!has(self.group) || self.group in ['', 'core']) : self.kind == 'ServiceEntry' ? (has(self.group) && self.group == 'networking.istio.io') : self.kind in ['Gateway', 'GatewayClass'] && has(self.group) && self.group == 'gateway.networking.k8s.io'",
    "message": "a target is a Service, a ServiceEntry of networking.istio.io, or a Gateway or GatewayClass of gateway.networking.k8s.io"
}]))]
pub struct TargetRef {
    /// API group; empty for core.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(
        length(max = 253),
        regex(pattern = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub group: String,
    /// Kind.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
    )]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Not supported: a target lives in the policy's own namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253), extend("x-kubernetes-validations" = [{
        "rule": "self.size() == 0",
        "message": "cross namespace referencing is not currently supported"
    }]))]
    pub namespace: String,
}
