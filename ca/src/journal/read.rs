//! Reading the audit journal: verify its chain, export it, show its end.

use std::io::{self, BufRead};

use serde_json::Value;

use super::{GENESIS, line_hash};

/// Longest line that is read, bytes.
const MAX_LINE: usize = 16 << 20;

/// A line whose own hash is right.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedLine {
    /// `seq`.
    pub sequence: u64,
    /// `prev`.
    pub previous: String,
    /// `hash`.
    pub hash: String,
    /// All of it.
    pub record: Value,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not a record.
    #[error("it is no record")]
    NoRecord,
    /// Its content is not what was hashed.
    #[error("its content does not have the hash that it names")]
    Hash,
}

/// Reads one line and checks its own hash.
///
/// # Errors
/// When it is no record, or its hash is another.
pub fn check_line(line: &str) -> Result<CheckedLine, LineError> {
    let (content, end) = line
        .rsplit_once(",\"hash\":\"")
        .ok_or(LineError::NoRecord)?;
    let hash = end.strip_suffix("\"}").ok_or(LineError::NoRecord)?;
    if line_hash(content) != hash {
        return Err(LineError::Hash);
    }
    let record: Value = serde_json::from_str(line).map_err(|_| LineError::NoRecord)?;
    let sequence = record.get("seq").and_then(Value::as_u64);
    let previous = record.get("prev").and_then(Value::as_str);
    match (sequence, previous) {
        (Some(sequence), Some(previous)) => Ok(CheckedLine {
            sequence,
            previous: previous.to_owned(),
            hash: hash.to_owned(),
            record,
        }),
        _ => Err(LineError::NoRecord),
    }
}

/// What a whole journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many records.
    pub records: u64,
    /// Hash of the last: whoever noted it elsewhere can tell whether the end was cut off.
    pub head: String,
    /// The last line has no end: a crash left it, and nobody was told of it.
    pub unfinished: bool,
}

/// A journal whose chain is broken.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file cannot be read.
    #[error("the journal cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line was changed.
    #[error("line {line}: {error}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// What is wrong.
        error: LineError,
    },
    /// A line is missing, doubled or out of place.
    #[error("line {line}: record {found} stands where record {expected} is expected")]
    Sequence {
        /// Which, from 1.
        line: u64,
        /// `seq` that belongs there.
        expected: u64,
        /// `seq` that is there.
        found: u64,
    },
    /// A line that belongs to another chain.
    #[error("line {line}: it does not follow the line before it")]
    Chain {
        /// Which, from 1.
        line: u64,
    },
    /// Something that is no journal.
    #[error("line {line} has more than 16 MiB")]
    TooLong {
        /// Which, from 1.
        line: u64,
    },
}

/// Checks the whole chain; `each` sees every record that is right, in order.
///
/// # Errors
/// With the first line that is wrong.
pub fn verify(
    mut journal: impl BufRead,
    mut each: impl FnMut(&CheckedLine, &str),
) -> Result<Verified, VerifyError> {
    let mut verified = Verified {
        records: 0,
        head: GENESIS.to_owned(),
        unfinished: false,
    };
    let mut bytes = Vec::new();
    loop {
        let line = verified.records + 1;
        bytes.clear();
        let limit = MAX_LINE as u64 + 1;
        let read = io::Read::take(&mut journal, limit).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(verified);
        }
        if bytes.pop() != Some(b'\n') {
            if read > MAX_LINE {
                return Err(VerifyError::TooLong { line });
            }
            verified.unfinished = true;
            return Ok(verified);
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| VerifyError::Line {
            line,
            error: LineError::NoRecord,
        })?;
        let checked = check_line(text).map_err(|error| VerifyError::Line { line, error })?;
        if checked.sequence != line {
            return Err(VerifyError::Sequence {
                line,
                expected: line,
                found: checked.sequence,
            });
        }
        if checked.previous != verified.head {
            return Err(VerifyError::Chain { line });
        }
        each(&checked, text);
        verified.records = line;
        verified.head = checked.hash;
    }
}
