//! The operating system's word that something in a folder moved.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::PolicyFiles;

/// Watches on the folders of policy files. Without any (too many watches on this machine, a folder
/// that is gone) the slow look still happens.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    armed: Option<Armed>,
    /// Last failure, so that each is reported once.
    failure: Option<String>,
}

#[derive(Debug)]
struct Armed {
    /// Folders and what they were when the watch was set: one that was removed and made anew
    /// needs another.
    roots: BTreeMap<PathBuf, Root>,
    events: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Root {
    recursive: bool,
    /// Device and inode; `None` when it is not there.
    identity: Option<(u64, u64)>,
}

impl Notices {
    /// Watches the folders as they are now; true if a new watch was set.
    pub(crate) fn arm(&mut self, files: &PolicyFiles) -> bool {
        let roots = roots(files);
        if self
            .armed
            .as_ref()
            .is_some_and(|armed| armed.roots == roots)
        {
            return false;
        }
        // The old watch goes first: a machine has few of them.
        self.armed = None;
        match arm(roots) {
            Ok(armed) => {
                self.armed = Some(armed);
                self.failure = None;
                true
            }
            Err(error) => {
                let error = error.to_string();
                if self.failure.as_ref() != Some(&error) {
                    tracing::warn!(error, "cannot watch files; looking at them now and then");
                    self.failure = Some(error);
                }
                false
            }
        }
    }

    /// Returns at the first notice, or after `longest`.
    pub(crate) async fn wait(&mut self, longest: Duration) {
        let Some(armed) = &mut self.armed else {
            return tokio::time::sleep(longest).await;
        };
        if let Ok(None) = tokio::time::timeout(longest, armed.events.recv()).await {
            // The watcher's thread ended.
            self.armed = None;
            tokio::time::sleep(longest).await;
        }
    }
}

fn arm(roots: BTreeMap<PathBuf, Root>) -> notify::Result<Armed> {
    // One waiting notice is as good as many.
    let (sender, events) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| !changes(event.kind)) {
            return;
        }
        let _ = sender.try_send(());
    })?;
    for (path, root) in &roots {
        if root.identity.is_none() {
            continue;
        }
        let mode = if root.recursive {
            RecursiveMode::Recursive
        } else {
            RecursiveMode::NonRecursive
        };
        watcher.watch(path, mode)?;
    }
    Ok(Armed {
        roots,
        events,
        _watcher: watcher,
    })
}

/// Reading the files, as we do ourselves, is no change.
fn changes(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// Folders to watch: those given, recursively, and the parents of files and of missing paths.
fn roots(files: &PolicyFiles) -> BTreeMap<PathBuf, Root> {
    let mut roots = BTreeMap::new();
    for path in files.paths.iter().chain(&files.candidate) {
        if path.as_os_str() == "-" {
            continue;
        }
        let recursive = path.is_dir();
        if recursive {
            insert(&mut roots, path, true);
        }
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => continue,
        };
        if !recursive {
            insert(&mut roots, parent, false);
        }
    }
    roots
}

fn insert(roots: &mut BTreeMap<PathBuf, Root>, path: &Path, recursive: bool) {
    let metadata = std::fs::metadata(path);
    let root = roots.entry(path.to_owned()).or_insert(Root {
        recursive,
        identity: metadata
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino())),
    });
    root.recursive |= recursive;
}
