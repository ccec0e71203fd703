//! The snapshot in force: swapped whole, read without waiting.

use std::sync::Arc;

use portcullis_policy::snapshot::Snapshot;
use tokio::sync::watch;

/// Holder of the snapshot in force, shared by reload and by every listener; empty until the first
/// good compilation.
///
/// A request takes its own reference once and is decided by that snapshot to the end, whatever is
/// published meanwhile. The lock inside is held for the length of a pointer copy, never across an
/// await.
#[derive(Clone, Debug)]
pub struct Live {
    sender: Arc<watch::Sender<Option<Arc<Snapshot>>>>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            sender: Arc::new(watch::Sender::new(None)),
        }
    }
}

impl Live {
    /// The snapshot in force; `None` before the first.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.sender.borrow().clone()
    }

    /// Puts `snapshot` in force for every request from now on.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.sender.send_replace(Some(snapshot));
    }

    /// Follows what is published.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.sender.subscribe()
    }
}
