//! How the writes of the journal went.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::JournalError;
use portcullis_wire::metrics::Latency;

/// Counters of one journal.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Records on disk.
    pub(crate) records: AtomicU64,
    /// Groups on disk.
    pub(crate) commits: AtomicU64,
    /// Groups that are not.
    pub(crate) failures: AtomicU64,
    /// Time of a group, fsync included.
    pub(crate) latency: Latency,
    is_failing: AtomicBool,
    cause: Mutex<String>,
}

impl Stats {
    /// A group of `records` was written, or not.
    pub(crate) fn wrote(
        &self,
        records: usize,
        result: &Result<(), JournalError>,
        elapsed: Duration,
    ) {
        match result {
            Ok(()) => {
                self.records.fetch_add(records as u64, Ordering::Relaxed);
                self.commits.fetch_add(1, Ordering::Relaxed);
                self.latency.observe(elapsed);
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
            }
        }
        // Written only when it changes: readers on other cores keep their copy.
        if self.is_failing.load(Ordering::Relaxed) != result.is_err() {
            self.is_failing.store(result.is_err(), Ordering::Release);
        }
    }

    /// Why the last write failed, if it did.
    pub(crate) fn failing(&self) -> Option<String> {
        let is_failing = self.is_failing.load(Ordering::Acquire);
        is_failing.then(|| {
            self.cause
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        })
    }
}
