//! Documents: text in, trees that remember where every value stood out.
//!
//! ```text
//! SourceText -> UTF-8 -> YAML or JSON -> Node (line and column of every value and key)
//! ```
//!
//! A file is read whole or not at all: one mistake, and none of its documents leaves here. Size,
//! depth, number of values and what aliases expand to are bounded.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location, code};

mod json;
mod lines;
mod node;
mod scalar;
mod unique;
mod yaml;

pub(crate) use lines::Lines;
pub use node::{Described, Entry, Excerpt, Mark, Node, Style, Value};

/// Largest file that is read, in octets. Whoever reads files may refuse earlier, by the file's size.
pub const MAX_BYTES: usize = 32 << 20;

/// One input file, or standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// Path as the user gave it; `<stdin>`.
    pub file: Arc<str>,
    /// Its bytes: not necessarily UTF-8, not necessarily YAML.
    pub bytes: Arc<[u8]>,
}

/// Bounds on what one file may hold.
pub(crate) struct Limits {
    /// Levels of nesting.
    depth: usize,
    /// Values in a file.
    nodes: usize,
    /// Values copied by aliases and merge keys.
    expanded: usize,
}

const LIMITS: Limits = Limits {
    depth: 128,
    nodes: 4_000_000,
    expanded: 200_000,
};

/// Reads every document of a file, empty ones as null.
///
/// # Errors
/// Located diagnostics when the file is too large, not UTF-8, holds a NUL, is neither YAML nor JSON,
/// repeats a key, nests too deep or expands too far.
pub fn parse(source: &SourceText) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let text = text(source).map_err(|d| vec![*d])?;
    parse_text(text, &source.file)
}

/// As [`parse`], for text that is known to be a text: a document inside a document.
pub(crate) fn parse_text(text: &str, file: &Arc<str>) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let looks_like_json = text.trim_start().starts_with(['{', '[']);
    if !looks_like_json {
        return yaml::parse(text, file, &LIMITS);
    }
    // YAML in flow style looks like JSON too. What is neither is reported in the words of the
    // language that its name claims.
    json::parse(text, file, &LIMITS).or_else(|in_json| {
        if in_json.iter().any(|d| d.code != code::SYNTAX.id) {
            return Err(in_json);
        }
        yaml::parse(text, file, &LIMITS).map_err(|in_yaml| {
            if file.ends_with(".json") || looks_like_object(text) {
                in_json
            } else {
                in_yaml
            }
        })
    })
}

/// The text of a file that is small enough, UTF-8, and free of NUL.
fn text(source: &SourceText) -> Result<&str, Box<Diagnostic>> {
    let file = &source.file;
    let whole = Location {
        file: Arc::clone(file),
        line: 1,
        column: 1,
    };
    if source.bytes.len() > MAX_BYTES {
        return Err(Box::new(too_large(file, source.bytes.len())));
    }
    if source.bytes.starts_with(&[0xff, 0xfe]) || source.bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Box::new(
            code::NOT_UTF8
                .at(whole, "the file is UTF-16, not UTF-8")
                .with_hint("save it as UTF-8"),
        ));
    }
    let text = match std::str::from_utf8(&source.bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = source.bytes.get(..error.valid_up_to()).unwrap_or_default();
            let before = std::str::from_utf8(valid).unwrap_or_default();
            let octet = source.bytes.get(error.valid_up_to()).copied();
            return Err(Box::new(
                code::NOT_UTF8
                    .at(
                        Lines::new(before).mark(before.len()).in_file(file),
                        format!(
                            "octet {:#04x} at offset {} is not UTF-8",
                            octet.unwrap_or_default(),
                            error.valid_up_to()
                        ),
                    )
                    .with_hint("save the file as UTF-8"),
            ));
        }
    };
    if let Some(offset) = text.find('\0') {
        let before = text.get(..offset).unwrap_or_default();
        return Err(Box::new(
            code::CONTROL_CHARACTER
                .at(
                    Lines::new(before).mark(offset).in_file(file),
                    format!("a NUL character at offset {offset}"),
                )
                .with_hint("remove it: no manifest holds one"),
        ));
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Refuses a file for its size, for whoever looked before reading it.
#[must_use]
pub fn too_large(file: &Arc<str>, octets: usize) -> Diagnostic {
    code::TOO_LARGE
        .at(
            Location {
                file: Arc::clone(file),
                line: 1,
                column: 1,
            },
            format!("the file has {octets} octets, more than the {MAX_BYTES} that are read"),
        )
        .with_hint("split the file")
}

/// `{` and then a quoted key: what a person would call JSON.
fn looks_like_object(text: &str) -> bool {
    text.trim_start()
        .trim_start_matches(['{', '['])
        .trim_start()
        .starts_with('"')
}
