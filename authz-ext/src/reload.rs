//! Policy files become the live snapshot, at start and whenever they change.
//!
//! ```text
//! change -> wait until nothing moves -> read -> compile -> publish
//!                                         \________\-> refused: the last good snapshot stays
//! ```
//!
//! Changes are noticed by the operating system's notifications and, for what these miss (network
//! file systems, links that lead elsewhere, a folder that was removed and made anew), by looking
//! every few seconds. Both only say "look": what counts is whether the files differ.

mod fingerprint;
pub(crate) mod notice;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portcullis_policy::compile::{Compiler, Documents};
use portcullis_policy::diagnostic::{Diagnostic, Severity};
use portcullis_policy::document::SourceText;
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::Snapshot;
use tokio::sync::{Notify, watch};

use self::fingerprint::Fingerprint;
use self::notice::Notices;
use crate::feed::Feed;
use crate::files::{self, ReadError};
use crate::live::Live;

/// Diagnostics of one compilation that go to the log; the rest is counted.
const LOGGED: usize = 100;

/// Where policies come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFiles {
    /// Files and folders in force.
    pub paths: Vec<PathBuf>,
    /// Files and folders on trial; empty for none.
    pub candidate: Vec<PathBuf>,
}

/// How changes are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Files must stay the same for this long before they are read: an editor or a deployment
    /// writes several, and none should be read half-written.
    pub settle: Duration,
    /// Longest time between two looks at the files, notification or not.
    pub poll: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(100),
            poll: Duration::from_secs(5),
        }
    }
}

/// What reload has done so far.
#[derive(Clone, Debug, Default)]
pub struct ReloadStatus {
    /// Revision in force; `None` before the first good compilation.
    pub revision: Option<String>,
    /// Policies in force.
    pub policies: usize,
    /// When the revision in force was published.
    pub since: Option<SystemTime>,
    /// When files were last read.
    pub last_attempt: Option<SystemTime>,
    /// Why the last attempt failed; `None` when it succeeded.
    pub last_error: Option<String>,
    /// Diagnostics of the last attempt, warnings and notes included.
    pub diagnostics: Arc<[Diagnostic]>,
    /// Attempts that ended with a snapshot.
    pub succeeded: u64,
    /// Attempts that were refused.
    pub failed: u64,
}

/// Why files did not become a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A path could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is nothing to serve; an empty folder is far more often a mistake than a wish.
    #[error("no policy file in {0}; expected .yaml, .yml, .json or .cedar files")]
    Empty(String),
    /// The compiler refused the set.
    #[error("{errors} error(s), the first: {first}")]
    Refused {
        /// How many errors.
        errors: usize,
        /// The first, with its place.
        first: String,
    },
    /// The compiler failed on its own account.
    #[error("the compiler stopped unexpectedly; please report the files that made it")]
    Crashed,
}

/// Has policies read again at once, changed or not.
#[derive(Clone, Debug, Default)]
pub struct ReloadOrder(Arc<Notify>);

impl ReloadOrder {
    /// Orders a load; [`ReloadStatus`] tells how it ended. Several orders before one begins are one.
    pub fn give(&self) {
        self.0.notify_one();
    }
}

/// Compiles policy files into [`Live`], again and again.
#[derive(Debug)]
pub struct Reloader {
    files: PolicyFiles,
    settings: Settings,
    live: Live,
    status: watch::Sender<ReloadStatus>,
    compiler: Compiler,
    order: ReloadOrder,
    /// The load that runs was ordered: its outcome is told even if it was told before.
    ordered: bool,
    /// Makes the snapshots, of the files as well; `None`: the files are all there is.
    feed: Option<Feed>,
    /// The files as they were when last read; `None` after a read that failed, which is tried
    /// again at every look.
    read: Option<Fingerprint>,
}

impl Reloader {
    /// A reloader that has read nothing yet.
    #[must_use]
    pub fn new(files: PolicyFiles, settings: Settings, live: Live) -> Self {
        Self {
            files,
            settings,
            live,
            status: watch::Sender::new(ReloadStatus::default()),
            compiler: Compiler::default(),
            order: ReloadOrder::default(),
            ordered: false,
            feed: None,
            read: None,
        }
    }

    /// Hands what is read to `feed`, which publishes.
    #[must_use]
    pub fn with_feed(mut self, feed: Option<Feed>) -> Self {
        self.feed = feed;
        self
    }

    /// Orders loads while [`Self::watch`] runs.
    #[must_use]
    pub fn order(&self) -> ReloadOrder {
        self.order.clone()
    }

    /// Follows the status.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ReloadStatus> {
        self.status.subscribe()
    }

    /// Reads, compiles and publishes once, on this thread.
    ///
    /// # Errors
    /// [`LoadError`]; what was live before stays live.
    pub fn load(&mut self) -> Result<(), LoadError> {
        let started = Instant::now();
        if let Some(feed) = self.feed.clone() {
            return self.hand_over(&feed);
        }
        // Taken before reading: what changes after it shows at the next look.
        self.read = Fingerprint::take(&self.files).ok();
        let outcome = self.compile();
        let outcome = outcome.map(|snapshot| self.publish(Arc::new(snapshot), started));
        if let Err((error, diagnostics)) = outcome {
            self.refuse(&error, diagnostics);
            return Err(error);
        }
        Ok(())
    }

    fn compile(&mut self) -> Result<Snapshot, (LoadError, Vec<Diagnostic>)> {
        let documents = self.documents().map_err(|error| (error, Vec::new()))?;
        self.compiler
            .compile(&documents, &self.settings)
            .map_err(refused)
    }

    /// Reads the files, if there are any, for `feed` to put beside what it follows.
    fn hand_over(&mut self, feed: &Feed) -> Result<(), LoadError> {
        self.read = Fingerprint::take(&self.files).ok();
        let handed = match self.files.paths.is_empty() {
            true => Ok(()),
            false => match self.documents() {
                Err(error) => Err((error, Vec::new())),
                Ok(documents) => feed.source.set_files(documents.base).map_err(refused),
            },
        };
        if let Err((error, diagnostics)) = handed {
            self.refuse(&error, diagnostics);
            return Err(error);
        }
        self.status.send_modify(|status| {
            status.last_attempt = Some(SystemTime::now());
            status.last_error = None;
            status.succeeded += 1;
        });
        Ok(())
    }

    /// Publishes what `feed` makes, until dropped.
    pub(crate) fn publish_feed(
        &self,
        feed: Feed,
    ) -> impl std::future::Future<Output = ()> + Send + 'static {
        let (live, status) = (self.live.clone(), self.status.clone());
        let mut snapshots = feed.snapshots;
        async move {
            loop {
                let snapshot = snapshots.borrow_and_update().clone();
                if let Some(snapshot) = snapshot {
                    live.publish(Arc::clone(&snapshot));
                    status.send_modify(|status| {
                        status.revision = Some(snapshot.revision().to_owned());
                        status.policies = snapshot.policy_count();
                        status.since = Some(SystemTime::now());
                    });
                }
                if snapshots.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        }
    }

    fn documents(&mut self) -> Result<Documents, LoadError> {
        let read = |paths: &[PathBuf]| -> Result<Vec<SourceText>, LoadError> {
            let texts = files::read(paths)?;
            if texts.is_empty() {
                let names: Vec<_> = paths.iter().map(|p| format!("`{}`", p.display())).collect();
                return Err(LoadError::Empty(names.join(", ")));
            }
            Ok(texts)
        };
        let base = read(&self.files.paths).inspect_err(|_| self.read = None)?;
        let candidate = match self.files.candidate.as_slice() {
            [] => None,
            paths => Some(read(paths).inspect_err(|_| self.read = None)?),
        };
        Ok(Documents { base, candidate })
    }

    fn publish(&self, snapshot: Arc<Snapshot>, started: Instant) {
        let diagnostics = snapshot.diagnostics();
        let live = self.live.snapshot();
        let unchanged = live.is_some_and(|live| live.revision() == snapshot.revision());
        // An equal revision is the same content; its caches are worth keeping.
        if !unchanged {
            log(diagnostics);
            self.live.publish(Arc::clone(&snapshot));
        }
        tracing::info!(
            revision = snapshot.revision(),
            policies = snapshot.policy_count(),
            diagnostics = diagnostics.len(),
            elapsed_ms = started.elapsed().as_millis(),
            unchanged,
            "policies compiled and in force"
        );
        let now = SystemTime::now();
        self.status.send_modify(|status| {
            status.revision = Some(snapshot.revision().to_owned());
            status.policies = snapshot.policy_count();
            if !unchanged || status.since.is_none() {
                status.since = Some(now);
            }
            status.last_attempt = Some(now);
            status.last_error = None;
            status.diagnostics = Arc::from(diagnostics);
            status.succeeded += 1;
        });
    }

    fn refuse(&self, error: &LoadError, diagnostics: Vec<Diagnostic>) {
        let words = error.to_string();
        let repeated = !self.ordered && self.status.borrow().last_error.as_ref() == Some(&words);
        // A missing folder is looked for every few seconds; it is reported once.
        if !repeated {
            log(&diagnostics);
            match self.live.snapshot() {
                Some(live) => tracing::error!(
                    error = words,
                    revision = live.revision(),
                    "policies refused: the last good snapshot stays in force"
                ),
                None => tracing::error!(
                    error = words,
                    "policies refused: there is no snapshot yet, every request is denied"
                ),
            }
        }
        self.status.send_modify(|status| {
            status.last_attempt = Some(SystemTime::now());
            status.last_error = Some(words);
            status.diagnostics = Arc::from(diagnostics);
            status.failed += 1;
        });
    }

    /// Watches the files until dropped; compiles on a blocking thread.
    pub async fn watch(mut self, options: Options) {
        let mut notices = Notices::default();
        loop {
            let armed = notices.arm(&self.files);
            let order = self.order.clone();
            tokio::select! {
                // Whoever orders it knows that the files are complete.
                () = order.0.notified() => self.ordered = true,
                settled = async {
                    // A watch that was just set has not seen what happened before it.
                    if !armed {
                        notices.wait(options.poll).await;
                    }
                    settled(&self.files, options.settle).await
                } => {
                    if self.read.is_some() && settled == self.read {
                        continue;
                    }
                }
            }
            self = self.load_aside().await;
            self.ordered = false;
        }
    }

    /// [`Self::load`] on a blocking thread. Should the compiler panic, it is replaced.
    pub(crate) async fn load_aside(self) -> Self {
        let spare = Self {
            files: self.files.clone(),
            settings: self.settings.clone(),
            live: self.live.clone(),
            status: self.status.clone(),
            compiler: Compiler::default(),
            order: self.order.clone(),
            ordered: self.ordered,
            feed: self.feed.clone(),
            read: self.read.clone(),
        };
        let loading = tokio::task::spawn_blocking(move || {
            let mut reloader = self;
            let fingerprint = Fingerprint::take(&reloader.files).ok();
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                // Reported where it happens.
                let _ = reloader.load();
            }));
            if caught.is_err() {
                reloader.refuse(&LoadError::Crashed, Vec::new());
                reloader.compiler = Compiler::default();
                // The same bytes would do it again: wait for others.
                reloader.read = fingerprint;
            }
            reloader
        });
        loading.await.unwrap_or(spare)
    }
}

/// Waits until two looks, `settle` apart, see the same files; gives up waiting after a while, since
/// files that never rest must not keep a change out for ever. `None`: they cannot be listed.
async fn settled(files: &PolicyFiles, settle: Duration) -> Option<Fingerprint> {
    const LOOKS: u32 = 20;
    let look = || {
        let files = files.clone();
        async move {
            let look = tokio::task::spawn_blocking(move || Fingerprint::take(&files).ok());
            look.await.ok().flatten()
        }
    };
    let mut last = look().await;
    for _ in 0..LOOKS {
        tokio::time::sleep(settle).await;
        let next = look().await;
        if next == last {
            break;
        }
        last = next;
    }
    last
}

fn refused(diagnostics: Vec<Diagnostic>) -> (LoadError, Vec<Diagnostic>) {
    let mut errors = diagnostics.iter().filter(|d| d.is_error());
    let first = errors.next().map(ToString::to_string).unwrap_or_default();
    let errors = errors.count() + 1;
    (LoadError::Refused { errors, first }, diagnostics)
}

fn log(diagnostics: &[Diagnostic]) {
    // Errors first: they are what somebody looks for.
    let mut sorted: Vec<_> = diagnostics.iter().collect();
    sorted.sort_by_key(|diagnostic| std::cmp::Reverse(diagnostic.severity));
    for diagnostic in sorted.iter().take(LOGGED) {
        let Diagnostic {
            code,
            severity,
            location,
            resource,
            field,
            message,
            hint,
        } = diagnostic;
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    code,
                    file = %location.file,
                    line = location.line,
                    column = location.column,
                    resource,
                    field,
                    hint,
                    "{message}"
                )
            };
        }
        match severity {
            Severity::Error => event!(error),
            Severity::Warning => event!(warn),
            Severity::Note => event!(debug),
        }
    }
    if let Some(more) = diagnostics
        .len()
        .checked_sub(LOGGED)
        .filter(|more| *more > 0)
    {
        tracing::warn!(
            more,
            "further diagnostics are not shown; run `portcullis policy check`"
        );
    }
}

#[cfg(test)]
mod tests;
