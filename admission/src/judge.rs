//! What else is asked about a change: the cases that must hold, and one day recorded traffic.
//!
//! Who knows requests implements these: here nobody knows Envoy.

use std::sync::Arc;
use std::time::Instant;

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

/// Which case it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CaseName<'a> {
    /// Namespace of the PolicyTest.
    pub namespace: &'a str,
    /// Its name.
    pub test: &'a str,
    /// The case's name.
    pub case: &'a str,
}

impl CaseOutcome {
    /// Which case it is.
    #[must_use]
    pub fn name(&self) -> CaseName<'_> {
        CaseName {
            namespace: &self.namespace,
            test: &self.test,
            case: &self.case,
        }
    }
}

/// What came of the cases that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Those that were run.
    pub outcomes: Vec<CaseOutcome>,
    /// How many were not, for want of time.
    pub left: usize,
}

/// Runs the cases of PolicyTests.
pub trait Judge: Send + Sync {
    /// The cases of the PolicyTests in `snapshot` that are `wanted`; none is begun after `until`.
    fn cases(
        &self,
        snapshot: &Arc<Snapshot>,
        wanted: &dyn Fn(CaseName<'_>) -> bool,
        until: Instant,
    ) -> Ran;
}

/// Knows of no cases.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCases;

impl Judge for NoCases {
    fn cases(&self, _: &Arc<Snapshot>, _: &dyn Fn(CaseName<'_>) -> bool, _: Instant) -> Ran {
        Ran::default()
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
