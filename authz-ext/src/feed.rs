//! Snapshots that others make: what follows an API server hands them in here, with how it goes.
//!
//! Files may be given beside it. They are watched as ever, but what is read goes to the source, which makes one snapshot of
//! both.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::document::SourceText;
use portcullis_policy::snapshot::Snapshot;
use portcullis_wire::metrics::{Definition, Samples};
use serde::Serialize;
use tokio::sync::watch;

/// Where snapshots come from that are not made of files alone.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The snapshot in force; `None` before the first.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// How it goes.
    pub status: watch::Receiver<FeedStatus>,
    /// Who makes them.
    pub source: Arc<dyn FeedSource>,
}

/// Who makes snapshots.
pub trait FeedSource: fmt::Debug + Send + Sync {
    /// Puts files beside what the source follows, in place of those before. May block while it compiles.
    ///
    /// # Errors
    /// Every diagnostic, where one is an error; the files before stay.
    fn set_files(&self, files: Vec<SourceText>) -> Result<(), Vec<Diagnostic>>;

    /// What `/metrics` shows of it.
    fn metrics(&self) -> Vec<(&'static Definition, Samples)>;
}

/// How it goes with a source.
#[derive(Clone, Debug, Default)]
pub struct FeedStatus {
    /// Everything was read once, and a snapshot was made of it.
    pub synced: bool,
    /// When the last snapshot was published.
    pub published: Option<SystemTime>,
    /// When the API server last answered.
    pub contact: Option<SystemTime>,
    /// Each kind that is followed.
    pub kinds: Vec<FeedKind>,
    /// Policies of which an earlier version is in force.
    pub kept: usize,
    /// Policies that were never good, and close what they select.
    pub closed: usize,
    /// Why there is no newer snapshot, where compiling failed on its own account.
    pub failure: Option<String>,
    /// What is missing for the first snapshot, for people: `cannot list pods: ...`.
    pub missing: Vec<String>,
    /// Whether this replica writes statuses; `None` where none are written.
    pub leads: Option<bool>,
}

/// One kind that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FeedKind {
    /// `pods`, `authorizationpolicies.security.istio.io`.
    pub resource: String,
    /// How it goes, in a word: `following`, `not_installed`, `forbidden`.
    pub state: &'static str,
    /// Why it is not followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Objects that are held.
    pub objects: usize,
}
