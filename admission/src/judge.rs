//! What else is asked about a change: the cases that must hold, and one day recorded traffic.
//!
//! Who knows requests implements these: here nobody knows Envoy.

use std::sync::Arc;

use portcullis_policy::snapshot::Snapshot;

/// What came of one case of a PolicyTest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseOutcome {
    /// Namespace of the PolicyTest.
    pub namespace: String,
    /// Its name.
    pub test: String,
    /// The case's name.
    pub case: String,
    /// What the case wants, in words.
    pub wanted: String,
    /// What the snapshot decides, in words.
    pub got: String,
    /// They agree.
    pub holds: bool,
}

/// Runs the cases of PolicyTests.
pub trait Judge: Send + Sync {
    /// Every case of the PolicyTests in `snapshot` that are in one of `namespaces`, or of all.
    fn cases(&self, snapshot: &Arc<Snapshot>, namespaces: Option<&[&str]>) -> Vec<CaseOutcome>;
}

/// Knows of no cases.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCases;

impl Judge for NoCases {
    fn cases(&self, _: &Arc<Snapshot>, _: Option<&[&str]>) -> Vec<CaseOutcome> {
        Vec::new()
    }
}

/// Recorded traffic.
pub trait Flows: Send + Sync {
    /// The flows that `after` decides otherwise than `before`, one line each; they are warnings.
    fn flips(&self, before: &Arc<Snapshot>, after: &Arc<Snapshot>) -> Vec<String>;
}

/// Recorded nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFlows;

impl Flows for NoFlows {
    fn flips(&self, _: &Arc<Snapshot>, _: &Arc<Snapshot>) -> Vec<String> {
        Vec::new()
    }
}
