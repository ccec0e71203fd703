//! The thread that writes the log.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

use super::file::LogFile;
use super::{Output, State};
use crate::observe::event::{DecisionEvent, timestamp};

/// Bytes that are written at once.
const BATCH: usize = 64 << 10;
/// Rest before an empty queue is looked at again. Waiting for an event instead would make every request
/// wake this thread, which costs more than all the rest of telling.
const LOOK: Duration = Duration::from_millis(10);
/// Rest before an output that does not block is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// Where lines go.
#[derive(Debug)]
pub(super) enum Sink {
    Stdout(File),
    File(LogFile),
}

impl Sink {
    pub(super) fn open(output: &Output) -> io::Result<Self> {
        match output {
            Output::Stdout => {
                let own = io::stdout().as_fd().try_clone_to_owned()?;
                Ok(Self::Stdout(own.into()))
            }
            Output::File(path, rotation) => Ok(Self::File(LogFile::open(path, *rotation)?)),
            Output::Otlp => Err(io::Error::other("records for a collector are no lines")),
        }
    }

    /// Bytes that may be written before [`Self::rotate`] is called.
    fn room(&self) -> u64 {
        match self {
            Self::Stdout(_) => u64::MAX,
            Self::File(file) => file.room(),
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(_) => Ok(()),
            Self::File(file) => file.rotate(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(file) => file.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }
}

/// Lines that are written together.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
}

/// Writes until the log is closed or nobody is left to fill it.
pub(super) fn run(sink: Sink, receiver: &Receiver<Arc<DecisionEvent>>, state: &State) {
    let mut writer = Writer {
        sink,
        state,
        torn: false,
        told: 0,
        warned: None,
    };
    let mut batch = Batch::default();
    loop {
        let first = match receiver.try_recv() {
            Ok(event) => event,
            Err(TryRecvError::Empty) if state.closing.load(Ordering::Relaxed) => return,
            Err(TryRecvError::Empty) => {
                std::thread::sleep(LOOK);
                continue;
            }
            Err(TryRecvError::Disconnected) => return,
        };
        let mut next = Some(first);
        while let Some(event) = next.take() {
            state.waiting.fetch_sub(1, Ordering::Relaxed);
            writer.add(&mut batch, &event);
            if batch.bytes.len() < BATCH {
                next = receiver.try_recv().ok();
            }
        }
        let more = batch.bytes.len() >= BATCH;
        writer.flush(&mut batch);
        // What comes next is written together, too.
        if !more && !state.closing.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
        }
    }
}

struct Writer<'s> {
    sink: Sink,
    state: &'s State,
    /// The last line that was written is half a line.
    torn: bool,
    /// Losses that the log itself tells of.
    told: u64,
    warned: Option<Instant>,
}

impl Writer<'_> {
    fn add(&mut self, batch: &mut Batch, event: &DecisionEvent) {
        // Made where it is written from: a line of its own would be copied.
        let before = batch.bytes.len();
        if serde_json::to_writer(&mut batch.bytes, event).is_err() {
            batch.bytes.truncate(before);
            self.state.fate.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        batch.bytes.push(b'\n');
        if u64::try_from(batch.bytes.len()).unwrap_or(u64::MAX) > self.sink.room() {
            let line = batch.bytes.split_off(before);
            self.flush(batch);
            if let Err(error) = self.sink.rotate() {
                self.warn("the decision log cannot be rotated", &error);
            }
            batch.bytes.extend_from_slice(&line);
        }
        batch.ends.push(batch.bytes.len());
    }

    fn flush(&mut self, batch: &mut Batch) {
        if batch.ends.is_empty() {
            return;
        }
        let lost = self.state.fate.lost();
        let mut note = Vec::new();
        if self.torn {
            note.push(b'\n');
        }
        if lost > self.told {
            let time = timestamp(SystemTime::now());
            let line = format!("{{\"time\":\"{time}\",\"lost\":{}}}\n", lost - self.told);
            note.extend_from_slice(line.as_bytes());
        }
        let (noted, mut failed) = self.write(&note);
        let mut written = 0;
        if failed.is_none() {
            self.torn = false;
            self.told = lost;
            (written, failed) = self.write(&batch.bytes);
        } else if noted > 0 {
            self.torn = true;
        }
        let whole = batch.ends.partition_point(|end| *end <= written);
        let fate = &self.state.fate;
        fate.written.fetch_add(count(whole), Ordering::Relaxed);
        if let Some(error) = failed {
            let whole_bytes = whole.checked_sub(1).and_then(|last| batch.ends.get(last));
            self.torn |= written > whole_bytes.copied().unwrap_or_default();
            let lost = count(batch.ends.len() - whole);
            fate.failed.fetch_add(lost, Ordering::Relaxed);
            self.warn("the decision log cannot be written", &error);
        }
        batch.bytes.clear();
        batch.ends.clear();
    }

    /// Writes as much as can be; how much that is, and why not all.
    fn write(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.sink.write(rest) {
                Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.state.closing.load(Ordering::Relaxed) {
                        return (written, Some(error));
                    }
                    std::thread::sleep(RETRY);
                }
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }

    fn warn(&mut self, what: &'static str, error: &io::Error) {
        const PAUSE: Duration = Duration::from_secs(10);
        if self.warned.is_none_or(|warned| warned.elapsed() >= PAUSE) {
            tracing::warn!(%error, lost = self.state.fate.lost(), "{what}");
            self.warned = Some(Instant::now());
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
