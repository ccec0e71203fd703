//! The records of earlier runs: verified beside the start, which does not wait for it.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::read::{self, VerifyError};

/// What is known of the records that were there when the journal was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Past {
    /// It is still read.
    Unknown,
    /// The chain is whole, so many records.
    Whole(u64),
    /// It is not; what was found, with the line.
    Damaged(String),
    /// It could not be read.
    Unreadable(String),
}

impl Past {
    /// What an operator has to be told, where there is something.
    #[must_use]
    pub fn alarm(&self) -> Option<String> {
        match self {
            Self::Unknown | Self::Whole(_) => None,
            Self::Damaged(cause) => Some(format!(
                "the audit journal was damaged or changed before this start: {cause}; what follows is recorded, \
                 what was is no evidence any more. See `portcullis ca audit verify`, keep the file, and look for who wrote to it"
            )),
            Self::Unreadable(cause) => Some(format!(
                "the audit journal of earlier runs cannot be verified: {cause}"
            )),
        }
    }
}

/// The result of a verification that may be under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Verification(Arc<OnceLock<Past>>);

impl Verification {
    /// Verifies the first `end` bytes of the journal at `path` in a thread of its own, in constant memory.
    pub(super) fn start(path: &Path, end: u64) -> io::Result<Self> {
        let verification = Self::default();
        // Opened now: whoever moves the file away takes nothing of it along.
        let file = File::open(path)?;
        let result = verification.clone();
        let name = path.display().to_string();
        std::thread::Builder::new()
            .name("audit-past".to_owned())
            .spawn(move || {
                let past = match read::verify(BufReader::new(file.take(end)), |_, _| {}) {
                    Ok(verified) => Past::Whole(verified.records),
                    Err(VerifyError::Io(cause)) => Past::Unreadable(cause.to_string()),
                    Err(broken) => Past::Damaged(broken.to_string()),
                };
                if let Some(alarm) = past.alarm() {
                    tracing::error!(journal = %name, "{alarm}");
                }
                let _ = result.0.set(past);
            })?;
        Ok(verification)
    }

    pub(super) fn past(&self) -> Past {
        self.0.get().cloned().unwrap_or(Past::Unknown)
    }
}
