//! The decision log: events into a bounded queue, and from there a thread of its own writes lines.
//!
//! ```text
//! event -> queue -> thread: JSON line -> file, rotated by size, or standard output
//!            \_ full: lost       \_ cannot be written: lost
//! ```
//!
//! A disk that is slow or full holds up the thread, never a verdict. What is lost is counted, told by a
//! warning, and by a line `{"time":…,"lost":N}` where the log goes on.

mod file;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use super::event::DecisionEvent;
use super::sample::Share;

pub use self::file::Rotation;

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output, a JSON line each.
    Stdout,
    /// A file, a JSON line each.
    File(PathBuf, Rotation),
    /// OTLP logs.
    Otlp,
}

/// The decision log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where it goes.
    pub output: Output,
    /// Share of the allows that are logged.
    pub allows: Share,
    /// Share of the denials that are logged.
    pub denies: Share,
    /// Events that wait at most; what comes on top is lost.
    pub queue: usize,
}

impl Options {
    /// The usual: all denials, one allow in a hundred.
    #[must_use]
    pub fn new(output: Output) -> Self {
        Self {
            output,
            allows: Share::PERCENT,
            denies: Share::ALL,
            queue: 4096,
        }
    }

    pub(super) fn wants(&self, denied: bool) -> bool {
        match denied {
            true => self.denies.draw(),
            false => self.allows.draw(),
        }
    }
}

/// What became of events.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// Written or exported.
    pub(super) written: AtomicU64,
    /// Lost, because the queue was full.
    pub(super) crowded: AtomicU64,
    /// Lost, because they could not be written or exported.
    pub(super) failed: AtomicU64,
}

impl Fate {
    pub(super) fn lost(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed)
    }
}

/// The way into the log.
#[derive(Debug)]
pub(super) struct Log {
    sender: SyncSender<Arc<DecisionEvent>>,
    state: Arc<State>,
    most: usize,
}

/// What the two ends share.
#[derive(Debug, Default)]
struct State {
    waiting: AtomicUsize,
    fate: Fate,
    closing: AtomicBool,
}

/// The other end, for whoever stops the server.
#[derive(Debug)]
pub(super) struct Closing {
    state: Arc<State>,
    written: oneshot::Receiver<()>,
}

impl Log {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// When the file cannot be opened, or there is no thread.
    pub(super) fn start(output: &Output, most: usize) -> io::Result<(Self, Closing)> {
        let sink = writer::Sink::open(output)?;
        let (sender, receiver) = sync_channel(most);
        let state = Arc::new(State::default());
        let (done, written) = oneshot::channel();
        let theirs = Arc::clone(&state);
        std::thread::Builder::new()
            .name("decision-log".to_owned())
            .spawn(move || {
                writer::run(sink, &receiver, &theirs);
                let _ = done.send(());
            })?;
        let log = Self {
            sender,
            state: Arc::clone(&state),
            most,
        };
        Ok((log, Closing { state, written }))
    }

    /// Whether there is room for one more; if not, it is lost.
    pub(super) fn has_room(&self) -> bool {
        let room = self.state.waiting.load(Ordering::Relaxed) < self.most;
        if !room {
            self.state.fate.crowded.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    pub(super) fn offer(&self, event: &Arc<DecisionEvent>) {
        self.state.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.sender.try_send(Arc::clone(event))
        {
            self.state.waiting.fetch_sub(1, Ordering::Relaxed);
            self.state.fate.crowded.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn fate(&self) -> &Fate {
        &self.state.fate
    }
}

impl Closing {
    /// Writes what waits, for at most `limit`.
    pub(super) async fn close(self, limit: Duration) {
        self.state.closing.store(true, Ordering::Relaxed);
        if tokio::time::timeout(limit, self.written).await.is_err() {
            let waiting = self.state.waiting.load(Ordering::Relaxed);
            tracing::warn!(waiting, "the decision log could not be written to its end");
        }
    }
}

#[cfg(test)]
mod tests;
