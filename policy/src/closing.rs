//! What a policy closes that was never seen good: the workloads that it selects.
//!
//! Such a policy is left out of the set, and what it was to protect is not left open: requests to the
//! workloads it selects are denied, `invalid_resource`, until it is mended or deleted. It closes where
//! a good policy of its kind would bind, and nothing more; in the root namespace, where it could stop
//! a whole mesh, only what it names. What is on trial or only records closes nothing.

use crate::attachment::{EnforcementPoint, Scope, attaches};
use crate::diagnostic::Diagnostic;
use crate::document::{self, Node, SourceText};
use crate::live::{ObjectKey, PolicyKind};
use crate::request::Target;
use crate::resource::{self, DRY_RUN, Selector, TargetRef, parse_bool};

/// A policy left out closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The policy.
    pub key: ObjectKey,
    /// What is wrong with it: the first error.
    pub why: Diagnostic,
    kind: PolicyKind,
    reach: Reach,
}

/// Which workloads are closed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    /// What it names cannot be read: its namespace.
    Namespace,
    /// What its selector or its targetRefs name; without either, what a policy of its namespace selects.
    Named {
        selector: Option<Selector>,
        target_refs: Vec<TargetRef>,
    },
}

impl Closing {
    /// What the policy `key` closes, whose last text was refused with `errors`; `None` for what closes
    /// nothing: inventory, tests, and policies that are on trial or only record.
    pub(crate) fn of(key: &ObjectKey, text: &SourceText, errors: &[Diagnostic]) -> Option<Self> {
        let kind = key.policy_kind().filter(|k| *k != PolicyKind::PolicyTest)?;
        let why = errors.iter().find(|d| d.is_error())?.clone();
        let closing = |reach| {
            Some(Self {
                key: key.clone(),
                why,
                kind,
                reach,
            })
        };
        let Some(root) = only_document(text) else {
            return closing(Reach::Namespace);
        };
        let spec = root.get("spec");
        if decides_nothing(kind, &root, spec) {
            return None;
        }
        closing(match resource::attachment_of(spec, &text.file) {
            None => Reach::Namespace,
            Some((selector, target_refs)) => Reach::Named {
                selector,
                target_refs,
            },
        })
    }

    /// `namespace/name`, as decisions name it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.key.namespace, self.key.name)
    }

    /// Whether requests to `point` are denied for it.
    #[must_use]
    pub fn closes(&self, point: &EnforcementPoint<'_>) -> bool {
        let namespace = self.key.namespace.as_ref();
        let in_root = namespace == point.root_namespace;
        // Gateways and waypoints take no notice of PeerAuthentication.
        if self.kind == PolicyKind::PeerAuthentication
            && !matches!(point.target, Target::Sidecar | Target::Ztunnel)
        {
            return false;
        }
        let (selector, target_refs) = match &self.reach {
            Reach::Namespace => {
                return !in_root && point.namespaces().any(|own| own == namespace);
            }
            Reach::Named {
                selector,
                target_refs,
            } => (selector.as_ref(), target_refs.as_slice()),
        };
        let labelled = selector.filter(|s| !s.match_labels.is_empty());
        let scope = |selector, target_refs| Scope {
            namespace,
            selector,
            target_refs,
        };
        // Both are an error; what either names is what the author may have meant.
        let referred = !target_refs.is_empty() && attaches(&scope(None, target_refs), point);
        let selected = match labelled {
            None if in_root || !target_refs.is_empty() => false,
            // In the root namespace Istio ignores the selector of a PeerAuthentication.
            Some(_) if in_root && self.kind == PolicyKind::PeerAuthentication => false,
            _ => attaches(&scope(labelled, &[]), point),
        };
        referred || selected
    }
}

/// The document, where the text is one object.
fn only_document(text: &SourceText) -> Option<Node> {
    let mut documents = document::parse(text).ok()?.into_iter();
    let root = documents.next().filter(|root| root.as_mapping().is_some());
    root.filter(|_| documents.next().is_none())
}

/// On trial, or only recorded: read as far as it can be read, since the rest of it cannot.
fn decides_nothing(kind: PolicyKind, root: &Node, spec: Option<&Node>) -> bool {
    // On a kind without dry-run the annotation is what is wrong with it.
    if !matches!(
        kind,
        PolicyKind::AuthorizationPolicy | PolicyKind::CedarPolicy
    ) {
        return false;
    }
    let metadata = root.get("metadata");
    let annotations = metadata.and_then(|m| m.get("annotations"));
    let on_trial = annotations
        .and_then(|a| a.get(DRY_RUN))
        .and_then(Node::as_str)
        .and_then(parse_bool);
    let action = spec.and_then(|s| s.get("action")).and_then(Node::as_str);
    on_trial == Some(true) || (kind == PolicyKind::AuthorizationPolicy && action == Some("AUDIT"))
}
