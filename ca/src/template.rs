//! Templates of registration entries: spire-controller-manager's `ClusterSPIFFEID`, rendered for each pod.
//!
//! Pods, namespaces and nodes are JSON values, wherever they come from: files, or an API server's watch.

mod services;
pub mod text;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub use self::services::Services;
pub use self::text::{ParseError, RenderError, Text};

/// What is the same for every pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// `.TrustDomain`
    pub trust_domain: String,
    /// `.ClusterName`
    pub name: Option<String>,
    /// `.ClusterDomain`
    pub domain: Option<String>,
}

/// A pod, and what is known around it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What is the same for every pod.
    pub cluster: &'a Cluster,
    /// The Pod.
    pub pod: &'a Value,
    /// Its Node.
    pub node: Option<&'a Value>,
}

/// A Kubernetes label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels with their values.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    /// More about labels.
    #[serde(default)]
    pub match_expressions: Vec<LabelExpression>,
}

/// One requirement of a [`LabelSelector`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelExpression {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: LabelOperator,
    /// Of `In` and `NotIn`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// What a [`LabelExpression`] asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum LabelOperator {
    /// Its value is one of these.
    In,
    /// It has none of these values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// As Kubernetes takes it.
    ///
    /// # Errors
    /// Where an operator has no values and needs some, or has some and needs none: it would mean other pods than it seems to.
    pub fn validated(self) -> Result<Self, String> {
        for LabelExpression {
            key,
            operator,
            values,
        } in &self.match_expressions
        {
            let needs = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
            if needs == values.is_empty() {
                let what = if needs { "needs" } else { "has no" };
                return Err(format!(
                    "`{operator:?}` of the label `{key}` {what} `values`"
                ));
            }
        }
        Ok(self)
    }

    /// True when the labels of a Kubernetes object meet all of it.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| {
            let labels = object.get("metadata")?.get("labels")?;
            labels.get(key)?.as_str()
        };
        let equal = |(key, value): (&String, &String)| label(key) == Some(value);
        let holds = |one: &LabelExpression| {
            let value = label(&one.key);
            let listed = value.is_some_and(|value| one.values.iter().any(|other| other == value));
            match one.operator {
                LabelOperator::In => listed,
                LabelOperator::NotIn => !listed,
                LabelOperator::Exists => value.is_some(),
                LabelOperator::DoesNotExist => value.is_none(),
            }
        };
        self.match_labels.iter().all(equal) && self.match_expressions.iter().all(holds)
    }
}

/// What of an entry is made of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryTemplate {
    /// `spiffeIDTemplate`
    pub spiffe_id: Text,
    /// `dnsNameTemplates`
    pub dns_names: Vec<Text>,
    /// `workloadSelectorTemplates`
    pub selectors: Vec<Text>,
    /// `podSelector`
    pub pods: LabelSelector,
    /// `namespaceSelector`
    pub namespaces: LabelSelector,
}

/// An entry's texts for one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The SPIFFE ID.
    pub spiffe_id: String,
    /// DNS names, each once.
    pub dns_names: Vec<String>,
    /// Selectors, `type:value`; the pod's own, `k8s:pod-uid:UID`, comes first.
    pub selectors: Vec<String>,
}

impl EntryTemplate {
    /// True for a pod of a namespace that the selectors mean, and that runs or is going to.
    #[must_use]
    pub fn selects(&self, pod: &Value, namespace: Option<&Value>) -> bool {
        let phase = pod.get("status").and_then(|status| status.get("phase"));
        let over = matches!(phase.and_then(Value::as_str), Some("Succeeded" | "Failed"));
        let everywhere = self.namespaces == LabelSelector::default();
        let there = everywhere || namespace.is_some_and(|found| self.namespaces.matches(found));
        !over && there && self.pods.matches(pod)
    }

    /// The entry of a pod.
    ///
    /// # Errors
    /// When the pod has not what the template asks for.
    pub fn render(&self, facts: &Facts<'_>) -> Result<Rendered, RenderError> {
        let uid = Text::parse("k8s:pod-uid:{{ .PodMeta.UID }}").map_err(RenderError::from)?;
        let mut selectors = vec![uid.render(facts)?];
        for text in &self.selectors {
            selectors.push(text.render(facts)?);
        }
        let mut dns_names = Vec::new();
        for text in &self.dns_names {
            let name = text.render(facts)?;
            if !dns_names.contains(&name) {
                dns_names.push(name);
            }
        }
        Ok(Rendered {
            spiffe_id: self.spiffe_id.render(facts)?,
            dns_names,
            selectors,
        })
    }
}

#[cfg(test)]
mod tests;
