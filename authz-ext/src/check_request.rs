//! `CheckRequest` as protobuf JSON, one a line: the request format of the command line.
//!
//! ```text
//! line -> JSON -> dynamic message (checked against the descriptor) -> CheckRequest
//! ```
//!
//! camelCase and snake_case names, numbers as strings, and the JSON forms of Struct, Timestamp and
//! Any are accepted as protobuf JSON defines them. A bad line is an error of its own and never
//! stops the lines behind it.

mod diagnose;

use std::io::{self, BufRead};

use envoy_types::ext_authz::v3::pb::CheckRequest;
use prost_reflect::DynamicMessage;

use crate::descriptor;

/// Longest line that is read, in bytes: room for a request with several 1 MB headers.
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// Why a line is not a `CheckRequest`.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not JSON, or JSON that is no `CheckRequest`.
    #[error("{0}")]
    Malformed(String),
    /// Longer than the limit; the rest of the line was passed over.
    #[error("the line is longer than {0} bytes")]
    TooLong(usize),
    /// The input could not be read any further.
    #[error("cannot read requests: {0}")]
    Read(#[from] io::Error),
}

/// One line of input.
#[derive(Debug)]
pub struct Line {
    /// 1-based, blank lines counted.
    pub number: u64,
    /// The request, or what is wrong with the line.
    pub request: Result<CheckRequest, RequestError>,
}

/// Reads one `CheckRequest` from protobuf JSON.
///
/// # Errors
/// [`RequestError::Malformed`], in words that name the field.
pub fn from_json(json: &[u8]) -> Result<CheckRequest, RequestError> {
    match dynamic(json) {
        Ok(message) => message
            .transcode_to()
            .map_err(|error| RequestError::Malformed(format!("not a `CheckRequest`: {error}"))),
        Err(error) => second_reading(json, &error),
    }
}

/// Reads requests line by line; blank lines are skipped but counted.
pub fn lines<R: BufRead>(input: R) -> Lines<R> {
    Lines {
        input,
        number: 0,
        limit: MAX_LINE_BYTES,
        failed: false,
    }
}

/// Iterator over the lines of an input, see [`lines`].
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    number: u64,
    limit: usize,
    failed: bool,
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let mut text = Vec::new();
        while !self.failed {
            text.clear();
            let request = match read_line(&mut self.input, &mut text, self.limit) {
                Ok(Read::End) => return None,
                Ok(Read::TooLong) => Err(RequestError::TooLong(self.limit)),
                Ok(Read::Line) if text.trim_ascii().is_empty() => {
                    self.number += 1;
                    continue;
                }
                Ok(Read::Line) => from_json(text.trim_ascii()),
                Err(error) => {
                    self.failed = true;
                    Err(error.into())
                }
            };
            self.number += 1;
            return Some(Line {
                number: self.number,
                request,
            });
        }
        None
    }
}

enum Read {
    Line,
    TooLong,
    End,
}

/// `BufRead::read_until` with an upper bound: what exceeds it is consumed, not kept.
fn read_line(input: &mut impl BufRead, text: &mut Vec<u8>, limit: usize) -> io::Result<Read> {
    let mut read = Read::End;
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(read);
        }
        if matches!(read, Read::End) {
            read = Read::Line;
        }
        let mut pieces = available.splitn(2, |byte| *byte == b'\n');
        let piece = pieces.next().unwrap_or_default();
        let ended = pieces.next().is_some();
        let used = piece.len() + usize::from(ended);
        if text.len() + piece.len() > limit {
            read = Read::TooLong;
            text.clear();
        }
        if matches!(read, Read::Line) {
            text.extend_from_slice(piece);
        }
        input.consume(used);
        if ended {
            return Ok(read);
        }
    }
}

fn dynamic(json: &[u8]) -> Result<DynamicMessage, serde_json::Error> {
    use serde_json::de::{Deserializer, SliceRead};
    // UTF-8 byte order mark, as Windows editors write it.
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let mut deserializer = Deserializer::new(SliceRead::new(json));
    let message = descriptor::deserialize_check_request(&mut deserializer)?;
    deserializer.end()?;
    Ok(message)
}

/// A line that was refused is read once more as plain JSON: typed metadata, which no policy reads
/// and whose types we may not know, is taken out; what is wrong then is said by its path.
fn second_reading(json: &[u8], first: &serde_json::Error) -> Result<CheckRequest, RequestError> {
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let mut value: serde_json::Value = serde_json::from_slice(json)
        .map_err(|error| RequestError::Malformed(diagnose::not_json(&error)))?;
    if diagnose::remove_typed_metadata(&mut value)
        && let Ok(message) = descriptor::deserialize_check_request(&value)
        && let Ok(request) = message.transcode_to()
    {
        return Ok(request);
    }
    let words =
        diagnose::wrong_field(&value).unwrap_or_else(|| format!("not a `CheckRequest`: {first}"));
    Err(RequestError::Malformed(words))
}

#[cfg(test)]
mod tests;
