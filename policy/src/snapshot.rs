//! A snapshot: an immutable, revisioned set of compiled policies and the inventory behind them.

use std::sync::Arc;

use crate::decision::{Decision, Reason};
use crate::diagnostic::{Diagnostic, Location};
use crate::explain::Explanation;
use crate::request::Request;

/// One generated or user-written Cedar policy with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranslatedPolicy {
    /// `namespace/name#rule[i]`, with a suffix for the protocol and target variant.
    pub id: String,
    /// Where the rule stands.
    pub origin: Location,
    /// Cedar text, formatted, annotations included.
    pub cedar: String,
}

/// Compiled policies with the inventory they apply to. Never changes; reload makes another.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) revision: String,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Snapshot {
    /// Names the content: equal documents and settings give equal revisions.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Warnings and notes of the compilation, in document order.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Number of policies in force (AuthorizationPolicies and user Cedar policies).
    #[must_use]
    pub fn policy_count(&self) -> usize {
        0
    }

    /// Every Cedar policy of the snapshot, in the order of the documents.
    #[must_use]
    pub fn translate(&self) -> Vec<TranslatedPolicy> {
        Vec::new()
    }

    /// Decides one request on this thread's worker.
    #[must_use]
    pub fn decide(self: &Arc<Self>, _request: &Request) -> Decision {
        Decision::closed(Reason::NoSnapshot, self.revision.clone())
    }

    /// Decides one request and tells why; `all` reports every rule that selects the workload.
    #[must_use]
    pub fn explain(self: &Arc<Self>, request: &Request, _all: bool) -> Explanation {
        Explanation {
            decision: self.decide(request),
            destination: None,
            destination_from: String::new(),
            target: None,
            protocol: "http",
            normalised_path: None,
            steps: Vec::new(),
            rules: Vec::new(),
        }
    }
}
