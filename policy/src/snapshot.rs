//! A snapshot: an immutable, revisioned set of compiled policies and the inventory behind them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::cedar::context::Uids;
use crate::cedar::translate;
use crate::decide;
use crate::decision::{Decision, DryRun, Shadow};
use crate::diagnostic::{Diagnostic, Location};
use crate::explain::{self, Explanation};
use crate::inventory::{Candidate, Inventory};
use crate::mesh::Mesh;
use crate::model::Dialect;
use crate::policy_set::PolicySet;
use crate::request::Request;
use crate::settings::CustomProvider;
use crate::slice::Slice;
use crate::worker;

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

/// What a snapshot is made of; [`Compiler`](crate::compile::Compiler) fills it.
#[derive(Debug)]
pub(crate) struct Parts {
    pub revision: String,
    pub diagnostics: Diagnostics,
    pub mesh: Arc<Mesh>,
    pub inventory: Inventory,
    pub set: Arc<PolicySet>,
    pub uids: Arc<Uids>,
    pub custom_providers: BTreeMap<String, CustomProvider>,
    pub serving: bool,
    pub require_svid: bool,
    pub memo: bool,
    /// The proposed set, compiled whole.
    pub candidate: Option<Arc<Snapshot>>,
}

/// What there is to say of the set as a whole.
#[derive(Debug)]
pub(crate) enum Diagnostics {
    /// Said when it was compiled.
    Found(Vec<Diagnostic>),
    /// Found when somebody asks: where pods come and go, hardly anybody does.
    Later(OnceLock<Vec<Diagnostic>>, Box<dyn Lint>),
}

/// Finds the diagnostics of a set.
pub(crate) trait Lint: Debug + Send + Sync {
    fn lint(&self, parts: &Parts) -> Vec<Diagnostic>;
}

/// Compiled policies with the inventory they apply to. Never changes; reload makes another.
#[derive(Debug)]
pub struct Snapshot {
    /// Tells snapshots of one process apart; workers keep their state by it.
    serial: u64,
    parts: Parts,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Snapshot {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            serial: NEXT.fetch_add(1, Ordering::Relaxed),
            parts,
        }
    }

    /// Names the content: equal documents and settings give equal revisions.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.parts.revision
    }

    /// Warnings and notes of the compilation, in document order. Where objects come and go they are found
    /// when this is first called, which takes milliseconds in a large cluster.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match &self.parts.diagnostics {
            Diagnostics::Found(found) => found,
            Diagnostics::Later(found, lint) => found.get_or_init(|| lint.lint(&self.parts)),
        }
    }

    /// Number of policies in force (AuthorizationPolicies and user Cedar policies).
    #[must_use]
    pub fn policy_count(&self) -> usize {
        self.parts.set.len()
    }

    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.parts.mesh
    }

    /// The destinations.
    #[must_use]
    pub fn inventory(&self) -> &Inventory {
        &self.parts.inventory
    }

    /// The policies.
    #[must_use]
    pub fn policies(&self) -> &PolicySet {
        &self.parts.set
    }

    /// The proposed set, when the snapshot was compiled with one.
    #[must_use]
    pub fn candidate(&self) -> Option<&Arc<Snapshot>> {
        self.parts.candidate.as_ref()
    }

    pub(crate) fn uids(&self) -> &Uids {
        &self.parts.uids
    }

    /// What is done when a rule of a CUSTOM provider matches; `None` where nothing is configured.
    #[must_use]
    pub fn custom_provider(&self, name: &str) -> Option<CustomProvider> {
        self.parts.custom_providers.get(name).copied()
    }

    pub(crate) fn requires_svid(&self) -> bool {
        self.parts.require_svid
    }

    pub(crate) fn serving(&self) -> bool {
        self.parts.serving
    }

    pub(crate) fn slice(&self, candidate: Candidate, dialect: Dialect) -> Option<Arc<Slice>> {
        self.parts
            .set
            .slice(candidate, dialect, &self.parts.inventory)
    }

    /// Every Cedar policy of the snapshot, in the order of the documents.
    #[must_use]
    pub fn translate(&self) -> Vec<TranslatedPolicy> {
        translate::snapshot(&self.parts.set)
    }

    /// Decides one request on this thread's worker.
    #[must_use]
    pub fn decide(self: &Arc<Self>, request: &Request) -> Decision {
        self.decide_each(request, request)
    }

    /// Decides one request by the policies in force, and `proposed`, which is the same request as it
    /// was checked under them, by the proposed set. Without a candidate, as [`Self::decide`].
    #[must_use]
    pub fn decide_each(self: &Arc<Self>, request: &Request, proposed: &Request) -> Decision {
        let decision = worker::with(self.serial, self.parts.memo, |worker| {
            decide::decide(self, worker, request)
        });
        match &self.parts.candidate {
            Some(candidate) => on_trial(decision, candidate.decide(proposed)),
            None => decision,
        }
    }

    /// The rules for tokens at the request's destination; `None` where no token is looked for.
    #[must_use]
    pub fn token_rules(self: &Arc<Self>, request: &Request) -> Option<Arc<Slice>> {
        worker::with(self.serial, self.parts.memo, |worker| {
            let located = decide::locate(self, worker, request).ok()?;
            located.slice.tokens.is_some().then_some(located.slice)
        })
    }

    /// The CUSTOM providers whose rules match the request, in name order.
    #[must_use]
    pub fn custom_matches(self: &Arc<Self>, request: &Request) -> Vec<decide::CustomMatch> {
        worker::with(self.serial, self.parts.memo, |worker| {
            decide::custom_matches(self, worker, request)
        })
    }

    /// Decides one request and tells why; `all` reports every rule that selects the workload.
    #[must_use]
    pub fn explain(self: &Arc<Self>, request: &Request, all: bool) -> Explanation {
        let decision = self.decide(request);
        worker::with(self.serial, self.parts.memo, |worker| {
            explain::explain(self, worker, request, decision, all)
        })
    }
}

/// The decision in force, with that of the proposed set as the one on trial. On trial is the proposed
/// set as a whole; what the annotation would do is another question.
fn on_trial(decision: Decision, proposed: Decision) -> Decision {
    let shadow = decision.dry_run.map_or_else(Shadow::default, |d| d.shadow);
    Decision {
        dry_run: Some(DryRun {
            decision: proposed.decision,
            reason: proposed.reason,
            policies: proposed.policies,
            shadow,
        }),
        ..decision
    }
}
