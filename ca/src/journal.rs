//! The audit journal: every issuance, denial, authority and registry change, hash-chained.
//!
//! One record is one line of JSON. It names the hash of the line before it (`prev`) and ends with its
//! own (`hash`, SHA-256 of the line without that field): who changes, removes or reorders a line breaks
//! the chain. [`Journal::append`] returns once its records are on disk; records of callers that wait at
//! the same time share one `fsync`.

mod past;
pub mod read;
mod stats;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

pub(crate) use stats::Stats;

pub use self::past::Past;
use self::past::Verification;
use crate::clock::Clock;
use crate::x509::certificate::hex;

/// Name of the journal's file in the data folder.
pub const FILE_NAME: &str = "audit.jsonl";
/// What the first record names as the hash before it.
pub(crate) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Callers whose records may wait for the disk at a time; the others wait for a place.
const QUEUE: usize = 1024;
/// Records that one `fsync` covers at most.
const GROUP: usize = 4096;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    event: &'static str,
    /// Fields as they will stand in the line: `,"name":value` each. Written once, however often the record is copied.
    fields: String,
    /// Why a value is no JSON: such a record is not written.
    unwritable: Option<String>,
}

impl Record {
    /// A record of `event`: a word with underscores, such as `x509_issued`.
    #[must_use]
    pub fn new(event: &'static str) -> Self {
        Self {
            event,
            fields: String::new(),
            unwritable: None,
        }
    }

    /// The record with one more field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        match serde_json::to_string(&value) {
            Ok(value) => self.push(name, &value),
            Err(cause) => self.unwritable = Some(format!("{name}: {cause}")),
        }
        self
    }

    /// The record with one more field, whose value is JSON already.
    #[must_use]
    pub(crate) fn with_json(mut self, name: &str, value: &str) -> Self {
        self.push(name, value);
        self
    }

    /// The same about another event.
    #[must_use]
    pub(crate) fn of(&self, event: &'static str) -> Self {
        Self {
            event,
            ..self.clone()
        }
    }

    fn push(&mut self, name: &str, value: &str) {
        for part in [",\"", name, "\":", value] {
            self.fields.push_str(part);
        }
    }
}

/// A journal that cannot be opened or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be had.
    #[error("audit journal `{path}`: {cause}")]
    File {
        /// Which.
        path: String,
        /// Why.
        cause: String,
    },
    /// The last record is not what was written.
    #[error(
        "audit journal `{path}`: record {record} is damaged; nothing is issued without a journal. See `portcullis ca audit verify`, then move the file away to start a new one"
    )]
    Damaged {
        /// Which file.
        path: String,
        /// Which record, as far as is known.
        record: String,
    },
    /// A write failed: nothing that depends on it may happen.
    #[error("the audit journal cannot be written: {0}")]
    Write(String),
    /// A write failed in a way that leaves the file's state unknown.
    #[error("the audit journal failed earlier and takes nothing until a restart: {0}")]
    Broken(String),
}

/// The way to the thread that writes.
#[derive(Clone, Debug)]
pub struct Journal {
    queue: mpsc::Sender<Request>,
    path: Arc<Path>,
    stats: Arc<Stats>,
    verification: Verification,
}

#[derive(Debug)]
struct Request {
    records: Vec<Record>,
    done: oneshot::Sender<Result<(), JournalError>>,
}

/// The end of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    sequence: u64,
    hash: String,
}

impl Journal {
    /// Opens the journal at `path`, made when missing, and goes on where it ended. A line without its end, left
    /// by a crash, was never acknowledged and is cut off.
    ///
    /// # Errors
    /// When the file cannot be had, or its last record is damaged.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        let failed = |cause: io::Error| JournalError::File {
            path: path.display().to_string(),
            cause: cause.to_string(),
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let (head, end) = read_head(&mut file, length, path).map_err(|error| match error {
            HeadError::Io(cause) => failed(cause),
            HeadError::Damaged(record) => JournalError::Damaged {
                path: path.display().to_string(),
                record,
            },
        })?;
        if end < length {
            tracing::warn!(
                bytes = length - end,
                "cut an unfinished record off the audit journal"
            );
            file.set_len(end).map_err(failed)?;
        }
        file.seek(SeekFrom::Start(end)).map_err(failed)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
        let verification = Verification::start(path, end).map_err(failed)?;
        let (queue, requests) = mpsc::channel(QUEUE);
        let stats = Arc::new(Stats::default());
        let writer = Writer {
            stats: Arc::clone(&stats),
            file,
            head,
            end,
            clock,
            broken: None,
        };
        std::thread::Builder::new()
            .name("audit-journal".to_owned())
            .spawn(move || writer.run(requests))
            .map_err(failed)?;
        Ok(Self {
            queue,
            path: path.into(),
            stats,
            verification,
        })
    }

    /// What is known of the records that were there at the start: all of them are verified, beside everything else.
    #[must_use]
    pub fn past(&self) -> Past {
        self.verification.past()
    }

    /// Appends records, in order and together. They are on disk when this returns.
    ///
    /// # Errors
    /// When they are not on disk: whatever they record must not happen.
    pub async fn append(&self, records: Vec<Record>) -> Result<(), JournalError> {
        if records.is_empty() {
            return Ok(());
        }
        let (done, written) = oneshot::channel();
        let gone = || JournalError::Broken("its thread is gone".to_owned());
        self.queue
            .send(Request { records, done })
            .await
            .map_err(|_| gone())?;
        written.await.map_err(|_| gone())?
    }

    /// How its writes went.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

struct Writer {
    stats: Arc<Stats>,
    file: File,
    head: Head,
    /// Length of what is known to be on disk.
    end: u64,
    clock: Arc<dyn Clock>,
    broken: Option<String>,
}

impl Writer {
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut count = first.records.len();
            let mut group = vec![first];
            while count < GROUP
                && let Ok(next) = requests.try_recv()
            {
                count += next.records.len();
                group.push(next);
            }
            let started = Instant::now();
            let result = self.write(&group);
            self.stats.wrote(count, &result, started.elapsed());
            for request in group {
                // Who no longer waits needs no answer.
                let _ = request.done.send(result.clone());
            }
        }
    }

    fn write(&mut self, group: &[Request]) -> Result<(), JournalError> {
        if let Some(cause) = &self.broken {
            return Err(JournalError::Broken(cause.clone()));
        }
        let now = rfc3339(self.clock.now());
        let mut head = self.head.clone();
        let mut text = String::with_capacity(1 << 10);
        for record in group.iter().flat_map(|request| &request.records) {
            head = push_line(&mut text, record, &head, &now).map_err(JournalError::Write)?;
        }
        if let Err(cause) = self.file.write_all(text.as_bytes()) {
            // What was written of it was acknowledged to nobody: back to the last whole record.
            let back = self.file.set_len(self.end);
            if back
                .and_then(|()| self.file.seek(SeekFrom::Start(self.end)))
                .is_err()
            {
                self.broken = Some(cause.to_string());
            }
            return Err(JournalError::Write(cause.to_string()));
        }
        if let Err(cause) = self.file.sync_data() {
            // After a failed fsync nobody knows what the disk has, and asking again would say "all is well".
            self.broken = Some(cause.to_string());
            return Err(JournalError::Write(cause.to_string()));
        }
        self.end += text.len() as u64;
        self.head = head;
        Ok(())
    }
}

fn push_line(text: &mut String, record: &Record, head: &Head, time: &str) -> Result<Head, String> {
    if let Some(cause) = &record.unwritable {
        return Err(cause.clone());
    }
    let sequence = head.sequence + 1;
    let start = text.len();
    let number = sequence.to_string();
    for part in [
        "{\"seq\":",
        &number,
        ",\"time\":\"",
        time,
        "\",\"event\":\"",
        record.event,
        "\"",
        &record.fields,
        ",\"prev\":\"",
        &head.hash,
        "\"",
    ] {
        text.push_str(part);
    }
    let hash = line_hash(text.get(start..).unwrap_or_default());
    for part in [",\"hash\":\"", &hash, "\"}\n"] {
        text.push_str(part);
    }
    Ok(Head { sequence, hash })
}

/// The hash of a line: of its text up to the field that holds it.
pub(crate) fn line_hash(before_hash: &str) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, before_hash.as_bytes()).as_ref())
}

/// A time in RFC 3339, microseconds, UTC.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond()
    )
}

enum HeadError {
    Io(io::Error),
    Damaged(String),
}

/// The last whole record, and where it ends.
fn read_head(file: &mut File, length: u64, path: &Path) -> Result<(Head, u64), HeadError> {
    let mut window = 64 << 10;
    loop {
        let start = length.saturating_sub(window);
        file.seek(SeekFrom::Start(start)).map_err(HeadError::Io)?;
        let mut tail = Vec::new();
        file.take(window)
            .read_to_end(&mut tail)
            .map_err(HeadError::Io)?;
        let Some(last) = tail.iter().rposition(|byte| *byte == b'\n') else {
            if start == 0 {
                // Nothing, or one unfinished line.
                let head = Head {
                    sequence: 0,
                    hash: GENESIS.to_owned(),
                };
                return Ok((head, 0));
            }
            window = window.saturating_mul(2);
            continue;
        };
        let whole = tail.get(..last).unwrap_or_default();
        let before = whole.iter().rposition(|byte| *byte == b'\n');
        if before.is_none() && start > 0 {
            window = window.saturating_mul(2);
            continue;
        }
        let line = whole
            .get(before.map_or(0, |at| at + 1)..)
            .unwrap_or_default();
        let text = String::from_utf8_lossy(line);
        let checked = read::check_line(&text).map_err(|error| {
            HeadError::Damaged(format!("at the end of `{}`: {error}", path.display()))
        })?;
        let head = Head {
            sequence: checked.sequence,
            hash: checked.hash,
        };
        return Ok((head, start + last as u64 + 1));
    }
}

/// The journal's file in a data folder.
#[must_use]
pub fn path_in(data: &Path) -> PathBuf {
    data.join(FILE_NAME)
}

#[cfg(test)]
mod tests;
