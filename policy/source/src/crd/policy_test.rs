//! portcullis.dev PolicyTest.

use kube::CustomResource;
use portcullis_policy::decision::{Reason, Verdict};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::condition::Condition;

/// What a PolicyTest says.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "portcullis.dev",
    version = "v1alpha1",
    kind = "PolicyTest",
    plural = "policytests",
    singular = "policytest",
    shortname = "poltest",
    category = "portcullis",
    namespaced,
    status = "PolicyTestStatus",
    derive = "PartialEq",
    doc = "Decisions that must hold: a policy change in the same namespace that breaks one is refused. Those of the root namespace bind all namespaces.",
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status", "description": "Whether the cases can be read"}"#,
    printcolumn = r#"{"name": "Holds", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Holds\")].status", "description": "Whether every case holds against the policies in force"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].reason", "description": "Why they are accepted or not", "priority": 1}"#,
    printcolumn = r#"{"name": "Cases", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Holds\")].message", "description": "Which cases do not hold", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
pub struct PolicyTestSpec {
    /// Proxy that enforces, for all cases; auto where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "target")]
    pub target: Option<String>,
    /// How paths arrive, for all cases; raw where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "path")]
    pub path: Option<String>,
    /// Requests, and the decision that each must get.
    #[schemars(
        length(min = 1, max = 500),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub cases: Vec<Case>,
}

/// One request and the decision that it must get. What a case does not say of the decision is not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = verdict_rule, extend("x-kubernetes-validations" = [{
    "rule": "has(self.request) ? !has(self.like) && !has(self.change) : has(self.like) && has(self.change)",
    "message": "a case has either `request`, or `like` and `change`"
}]))]
pub struct Case {
    /// What the case shows, as a sentence; unique in the test.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"\S"))]
    pub name: String,
    /// Envoy's CheckRequest in protobuf JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub request: Option<Value>,
    /// Name of a case above, whose request is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub like: Option<String>,
    /// What is changed of it: a JSON merge patch (RFC 7386).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub change: Option<Value>,
    /// Proxy that enforces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "target")]
    pub target: Option<String>,
    /// How the path arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "path")]
    pub path: Option<String>,
    /// The verdict.
    #[schemars(schema_with = "decision")]
    pub decision: String,
    /// Why.
    #[schemars(schema_with = "reason")]
    pub reason: String,
    /// Determining policies, as decisions name them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "names")]
    pub policies: Option<Vec<String>>,
    /// AUDIT rules that match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "names")]
    pub audit: Option<Vec<String>>,
    /// The CUSTOM provider to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub provider: Option<String>,
    /// The verdict with policies on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<Trial>,
    /// The explanation is wanted too, where the case is run by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<bool>,
}

/// The verdict with policies on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = verdict_rule)]
pub struct Trial {
    /// The verdict.
    #[schemars(schema_with = "decision")]
    pub decision: String,
    /// Why.
    #[schemars(schema_with = "reason")]
    pub reason: String,
    /// Determining policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "names")]
    pub policies: Option<Vec<String>>,
    /// Dry-run rules that match on their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
}

/// Dry-run rules that match on their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shadow {
    /// The first that allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub allow: Option<String>,
    /// The first that denies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub deny: Option<String>,
}

/// What became of a PolicyTest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTestStatus {
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted and Holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A reason belongs to one verdict.
fn verdict_rule(schema: &mut Schema) {
    let allows: Vec<String> = Reason::ALL
        .into_iter()
        .filter(|reason| reason.verdict() == Verdict::Allow)
        .map(|reason| format!("'{}'", reason.as_str()))
        .collect();
    let rule = serde_json::json!({
        "rule": format!("(self.decision == 'allow') == (self.reason in [{}])", allows.join(", ")),
        "message": "the reason does not go with the decision",
    });
    let rules = schema
        .ensure_object()
        .entry("x-kubernetes-validations")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(rules) = rules {
        rules.push(rule);
    }
}

/// An object whose fields are somebody else's to check.
fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn words(words: &[&str]) -> Schema {
    json_schema!({"type": "string", "enum": words})
}

fn target(_: &mut SchemaGenerator) -> Schema {
    words(&["auto", "sidecar", "gateway", "waypoint", "ztunnel"])
}

fn path(_: &mut SchemaGenerator) -> Schema {
    words(&["raw", "normalised"])
}

fn decision(_: &mut SchemaGenerator) -> Schema {
    words(&Verdict::ALL.map(Verdict::as_str))
}

fn reason(_: &mut SchemaGenerator) -> Schema {
    words(&Reason::ALL.map(Reason::as_str))
}

fn names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 512,
        "items": {"type": "string", "maxLength": 1024},
    })
}
