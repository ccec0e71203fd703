//! What policy files look like from outside: enough to see that one changed.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::PolicyFiles;
use crate::files::{self, Entry, ReadError};

/// Every file with its identity, size and times, behind all links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<File>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Also moves when a copy keeps the modification time.
    changed: (i64, i64),
}

impl Fingerprint {
    pub(super) fn take(files: &PolicyFiles) -> Result<Self, ReadError> {
        let mut entries = files::list(&files.paths)?;
        entries.extend(files::list(&files.candidate)?);
        let files = entries.into_iter().filter_map(|entry| match entry {
            Entry::Stdin => None,
            Entry::File { path, metadata } => Some(File {
                path,
                device: metadata.dev(),
                inode: metadata.ino(),
                size: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            }),
        });
        Ok(Self(files.collect()))
    }
}
