//! User-written Cedar: read, checked strictly against the shipped schema, and attached to workloads.
//!
//! A `permit` counts as an ALLOW policy of the workloads it selects, a `forbid` as a DENY. It selects
//! by its scope (`resource == Workload::"ns/name"`, `resource in Namespace::"ns"`), by
//! `@selector("app=web,version=v1")`, or, with neither, the whole mesh. `@namespace("ns")` puts it
//! into a namespace; outside the root namespace it reaches that namespace only, whatever it says.

mod read;

use std::sync::Arc;

use crate::attachment::EnforcementPoint;
use crate::cedar::program::FactTest;
use crate::model::{Role, Rule};
use crate::reads::Reads;

pub use read::read;

/// Which destinations a policy's scope can hold for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Any.
    Mesh,
    /// One workload, `namespace/name`.
    Workload(String),
    /// One namespace.
    Namespace(String),
}

/// One user policy.
#[derive(Clone, Debug)]
pub struct UserPolicy {
    /// Stands for the policy where rules are reported; has no clauses.
    pub rule: Arc<Rule>,
    /// Text of the policy, with what its namespace and selector add.
    pub text: Arc<str>,
    /// Facts that it names.
    pub facts: Vec<FactTest>,
    /// What its scope reaches.
    pub reach: Reach,
    /// Namespace it lives in; `None`: the root namespace.
    pub namespace: Option<String>,
    /// What its conditions look at.
    pub reads: Reads,
    /// Labels that the destination must have.
    pub selector: Vec<(String, String)>,
}

impl UserPolicy {
    /// True for a permit.
    #[must_use]
    pub fn is_permit(&self) -> bool {
        self.rule.role == Role::Allow
    }

    /// Whether its scope can hold at `point`.
    #[must_use]
    pub fn selects(&self, point: &EnforcementPoint<'_>) -> bool {
        let workload = point.workload;
        let reached = match &self.reach {
            Reach::Mesh => true,
            Reach::Namespace(namespace) => workload.namespace == *namespace,
            Reach::Workload(name) => {
                name.split_once('/') == Some((workload.namespace.as_str(), workload.name.as_str()))
            }
        };
        reached
            && self
                .namespace
                .as_ref()
                .is_none_or(|n| *n == workload.namespace)
            && self
                .selector
                .iter()
                .all(|(k, v)| workload.labels.get(k) == Some(v))
    }
}
