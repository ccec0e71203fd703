//! The set in force, as a verdict asks it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::live::{Change, Proposal, Store};
use portcullis_policy::snapshot::Snapshot;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// What a change comes to.
#[derive(Debug)]
pub struct Proposed {
    /// The set as it is.
    pub before: Arc<Snapshot>,
    /// As [`Store::propose`] says.
    pub outcome: Result<Proposal, Vec<Diagnostic>>,
}

impl Proposed {
    /// Asks `store`, which stays as it is.
    #[must_use]
    pub fn to(store: &mut Store, changes: &[Change]) -> Self {
        let before = store.snapshot();
        let outcome = store.propose(changes);
        Self { before, outcome }
    }
}

/// The set in force.
pub trait InForce: Send + Sync {
    /// What `changes` come to; nothing changes by it. May compile, so not for the threads that serve.
    fn propose(&self, changes: &[Change]) -> Proposed;

    /// The labels of a namespace. May ask the API server, for a short time.
    ///
    /// # Errors
    /// Why they are not known, in words.
    fn namespace_labels(&self, name: &str) -> Result<Labels, String>;

    /// True for a namespace that is being deleted.
    fn is_going(&self, namespace: &str) -> bool;
}

/// A set that nobody follows: for files, tests and measurements.
#[derive(Debug)]
pub struct Held {
    store: Mutex<Store>,
    namespaces: BTreeMap<String, Labels>,
    going: BTreeSet<String>,
}

impl Held {
    /// This set, with these labels of namespaces; the others have none.
    #[must_use]
    pub fn new(store: Store, namespaces: BTreeMap<String, Labels>) -> Self {
        Self {
            store: Mutex::new(store),
            namespaces,
            going: BTreeSet::new(),
        }
    }

    /// The same, with these namespaces being deleted.
    #[must_use]
    pub fn with_going(mut self, namespaces: impl IntoIterator<Item = String>) -> Self {
        self.going.extend(namespaces);
        self
    }
}

impl InForce for Held {
    fn propose(&self, changes: &[Change]) -> Proposed {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        Proposed::to(&mut store, changes)
    }

    fn namespace_labels(&self, name: &str) -> Result<Labels, String> {
        Ok(self.namespaces.get(name).cloned().unwrap_or_default())
    }

    fn is_going(&self, namespace: &str) -> bool {
        self.going.contains(namespace)
    }
}
