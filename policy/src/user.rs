//! User-written Cedar: read, checked strictly against the shipped schema, and attached to workloads.
//!
//! A `permit` counts as an ALLOW policy of the workloads it selects, a `forbid` as a DENY. It selects
//! by its scope (`resource == Workload::"ns/name"`, `resource in Namespace::"ns"`), by
//! `@selector("app=web,version=v1")`, or, with neither, the whole mesh. `@namespace("ns")` puts it
//! into a namespace; outside the root namespace it reaches that namespace only, whatever it says.
//!
//! A CedarPolicy holds policies that live in its namespace and apply where it attaches, as an
//! AuthorizationPolicy with its `selector` or `targetRefs` would; what a policy of it says of its own scope
//! must hold as well.

mod read;
mod source;

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use crate::attachment::{EnforcementPoint, Scope, attaches};
use crate::cedar::program::FactTest;
use crate::diagnostic::{Diagnostic, Location, code};
use crate::model::{Role, Rule};
use crate::reads::Reads;
use crate::resource::{CedarPolicy, Selector, TargetRef, Workload};

pub use read::{read, read_manifest};

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

/// What a CedarPolicy says for all of its policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its selector.
    pub selector: Option<Selector>,
    /// Its targets.
    pub target_refs: Vec<TargetRef>,
}

impl Attachment {
    /// That of a manifest.
    #[must_use]
    pub fn of(policy: &CedarPolicy) -> Self {
        Self {
            namespace: policy.meta.namespace.clone(),
            name: policy.meta.name.clone(),
            selector: policy.selector.clone(),
            target_refs: policy.target_refs.clone(),
        }
    }

    /// Where it applies.
    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        Scope {
            namespace: &self.namespace,
            selector: self.selector.as_ref(),
            target_refs: &self.target_refs,
        }
    }

    /// Id of the `Attachment` entity that stands for its targets; `None` without targets.
    #[must_use]
    pub fn entity(&self) -> Option<String> {
        (!self.target_refs.is_empty()).then(|| format!("{}/{}", self.namespace, self.name))
    }

    /// The labels of its selector.
    fn labels(&self) -> impl Iterator<Item = (String, String)> {
        let labels = self.selector.iter().flat_map(|s| &s.match_labels);
        labels.map(|(key, value)| (key.clone(), value.clone()))
    }
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
    /// Names of the request's headers that they look at, facts included; `None`: any.
    pub headers: Option<Vec<SmolStr>>,
    /// Labels that the destination must have.
    pub selector: Vec<(String, String)>,
    /// Where its manifest applies; `None` for a policy of a file.
    pub attachment: Option<Arc<Attachment>>,
    /// Principals that it names.
    pub principals: Vec<SmolStr>,
    /// True when it holds for every request to what it selects: any principal, any action, no condition.
    pub unconditional: bool,
}

impl UserPolicy {
    /// True when a header of this name counts for the policy.
    #[must_use]
    pub fn looks_at_header(&self, name: &str) -> bool {
        let named = self.headers.as_ref();
        named.is_none_or(|names| names.iter().any(|known| known == name))
    }
}

/// Removes from `base` what `proposed` replaces, and reports two of one name among either.
///
/// A proposal replaces the policy of the same namespace and `@id`, whichever file it stands in.
#[must_use]
pub fn overlay(
    base: Vec<UserPolicy>,
    proposed: Vec<UserPolicy>,
) -> (Vec<Arc<UserPolicy>>, Vec<Diagnostic>) {
    let name = |policy: &UserPolicy| policy.rule.id.to_string();
    let mut diagnostics = Vec::new();
    let mut once = |policies: &[UserPolicy]| {
        let mut names: FxHashMap<String, Location> = FxHashMap::default();
        for policy in policies {
            if let Some(first) = names.insert(name(policy), policy.rule.at.clone()) {
                let message = format!("policy `{}` stands twice, first at {first}", name(policy));
                diagnostics.push(
                    code::CEDAR_DUPLICATE
                        .at(policy.rule.at.clone(), message)
                        .with_hint("give each policy an `@id` of its own"),
                );
            }
        }
        names
    };
    once(&base);
    let replaced = once(&proposed);
    let kept = base
        .into_iter()
        .filter(|policy| !replaced.contains_key(&name(policy)));
    let all = kept.chain(proposed).map(Arc::new).collect();
    (all, diagnostics)
}

/// Reports policies whose scope holds for no workload of the set, where it has any.
#[must_use]
pub fn diagnose(policies: &[Arc<UserPolicy>], workloads: &[&Workload]) -> Vec<Diagnostic> {
    if workloads.is_empty() {
        return Vec::new();
    }
    // A manifest that attaches to nothing is reported as such; where its policy says no more, that is all.
    let has_own_scope = |policy: &UserPolicy| match policy.attachment.as_deref() {
        None => true,
        Some(attachment) => {
            policy.reach != Reach::Mesh || policy.selector.len() > attachment.labels().count()
        }
    };
    // That the manifest selects nothing is said of its selector.
    let selects = |policy: &UserPolicy| {
        let selector = policy.attachment.as_ref().and_then(|a| a.selector.as_ref());
        selector.is_none_or(|selector| {
            workloads.iter().any(|workload| {
                let mut labels = selector.match_labels.iter();
                labels.all(|(k, v)| workload.labels.get(k) == Some(v))
            })
        })
    };
    // That its scope lies outside its namespace was said where it was read.
    let outside = |policy: &UserPolicy| match (&policy.reach, &policy.attachment) {
        (Reach::Namespace(other), Some(own)) => {
            policy.namespace.is_some() && *other != own.namespace
        }
        (Reach::Workload(other), Some(own)) => {
            let namespace = other.split_once('/').map(|(namespace, _)| namespace);
            policy.namespace.is_some() && namespace != Some(&own.namespace)
        }
        _ => false,
    };
    let nowhere = policies.iter().filter(|policy| {
        has_own_scope(policy)
            && selects(policy)
            && !outside(policy)
            && !workloads
                .iter()
                .any(|workload| policy.selects_workload(workload))
    });
    nowhere
        .map(|policy| {
            let message = match (&policy.reach, policy.selector.is_empty()) {
                (Reach::Workload(name), true) => format!("no workload of this set is `{name}`"),
                (Reach::Namespace(namespace), true) => {
                    format!("no workload of this set is in namespace `{namespace}`")
                }
                (Reach::Mesh, true) => format!(
                    "no workload of this set is in the policy's namespace `{}`",
                    policy.rule.id.namespace
                ),
                (_, false) => {
                    "no workload of this set has the selector's labels where the policy looks"
                        .to_owned()
                }
            };
            let hint = match &policy.reach {
                Reach::Workload(name) => nearest(name, workloads),
                Reach::Mesh | Reach::Namespace(_) => None,
            };
            let mut found = code::CEDAR_NOWHERE.at(policy.rule.at.clone(), message);
            if let Some(attachment) = &policy.attachment {
                let (namespace, name) = (&attachment.namespace, &attachment.name);
                found = found
                    .with_resource(format!("CedarPolicy/{namespace}/{name}"))
                    .with_field("spec.policies");
            }
            match hint {
                Some(near) => found.with_hint(format!("did you mean `{near}`?")),
                None => found,
            }
        })
        .collect()
}

fn nearest(name: &str, workloads: &[&Workload]) -> Option<String> {
    workloads
        .iter()
        .map(|w| format!("{}/{}", w.namespace, w.name))
        .map(|other| (strsim::damerau_levenshtein(name, &other), other))
        .filter(|(distance, _)| *distance <= 3)
        .min()
        .map(|(_, other)| other)
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
        self.selects_workload(point.workload)
            && self
                .attachment
                .as_ref()
                .is_none_or(|attachment| attaches(&attachment.scope(), point))
    }

    fn selects_workload(&self, workload: &Workload) -> bool {
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
