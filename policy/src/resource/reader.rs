//! Reads typed values out of a document's tree and says, at the right place, what is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::path::Path;
use super::{Located, Values};
use crate::diagnostic::code::{self, Code};
use crate::diagnostic::{Diagnostic, Location};
use crate::document::{Entry, Excerpt, Mark, Node, Value};

/// Diagnostics kept of one file; beyond that a person needs no more, and a machine no memory.
const MOST: usize = 1000;

/// What is read, and what was wrong with it.
pub(crate) struct Reader<'a> {
    /// File that the tree came from.
    file: &'a Arc<str>,
    /// `Kind/namespace/name` of the current resource.
    resource: String,
    diagnostics: Vec<Diagnostic>,
    dropped: bool,
    /// A value of the current resource could not be read.
    unreadable: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &'a Arc<str>) -> Self {
        Self {
            file,
            resource: String::new(),
            diagnostics: Vec::new(),
            dropped: false,
            unreadable: false,
        }
    }

    /// A new resource begins; its name may not be known yet.
    pub(crate) fn begin(&mut self, resource: String) {
        self.resource = resource;
        self.unreadable = false;
    }

    /// True when a value of the current resource could not be read, so that no typed form of it
    /// would be faithful.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// `Kind/namespace/name` of the current resource.
    pub(crate) fn resource(&self) -> &str {
        &self.resource
    }

    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        if self.dropped {
            let at = Location {
                file: Arc::clone(self.file),
                line: 1,
                column: 1,
            };
            self.diagnostics.push(
                code::TOO_MANY
                    .at(at, format!("more than {MOST} diagnostics in this file"))
                    .with_hint("mend these first, then check again"),
            );
        }
        self.diagnostics
    }

    pub(crate) fn location(&self, at: Mark) -> Location {
        at.in_file(self.file)
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.len() < MOST {
            self.diagnostics.push(diagnostic);
        } else if diagnostic.is_error() {
            self.dropped = true;
        }
    }

    /// A diagnostic about the value at `path`, not reported yet.
    pub(crate) fn build(
        &self,
        code: &Code,
        at: Location,
        path: &Path<'_>,
        message: impl Into<String>,
    ) -> Diagnostic {
        let mut diagnostic = code.at(at, message);
        let field = path.to_string();
        if !field.is_empty() {
            diagnostic = diagnostic.with_field(field);
        }
        if !self.resource.is_empty() {
            diagnostic = diagnostic.with_resource(self.resource.clone());
        }
        diagnostic
    }

    /// Reports something about the value at `path`.
    pub(crate) fn report(
        &mut self,
        code: &Code,
        at: Location,
        path: &Path<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let diagnostic = self.build(code, at, path, message).with_hint(hint);
        self.push(diagnostic);
    }

    /// The value is not of the expected type.
    pub(crate) fn wrong_type(&mut self, node: &Node, path: &Path<'_>, expected: &str) {
        self.unreadable = true;
        if node.is_null() {
            self.report(
                &code::WRONG_TYPE,
                self.location(node.at),
                path,
                format!("expected {expected}, found null"),
                "remove the entry, or give it a value",
            );
            return;
        }
        let hint = match (&node.value, expected) {
            (Value::Bool(_, text) | Value::Integer(_, text) | Value::Float(text), "a string") => {
                format!("quote it: `\"{text}\"`")
            }
            (Value::String(text, _), "a whole number" | "a boolean" | "a port")
                if text.len() < 32 =>
            {
                format!("write {expected} without quotes")
            }
            (Value::String(..) | Value::Mapping(_), "a list") => {
                "put `- ` in front of each entry, or `[` and `]` around them".to_owned()
            }
            (Value::Sequence(_), "an object") => {
                "remove the `-`: only one is allowed here".to_owned()
            }
            _ => format!("write {expected}"),
        };
        self.report(
            &code::WRONG_TYPE,
            self.location(node.at),
            path,
            format!("expected {expected}, found {}", node.described()),
            hint,
        );
    }

    /// An unknown key, with the nearest known one.
    pub(crate) fn unknown_field(&mut self, entry: &Entry, path: &Path<'_>, known: &[&str]) {
        self.unknown_field_as(&code::UNKNOWN_FIELD, entry, path, known);
    }

    pub(crate) fn unknown_field_as(
        &mut self,
        code: &Code,
        entry: &Entry,
        path: &Path<'_>,
        known: &[&str],
    ) {
        let hint = match nearest(&entry.key, known) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("the fields here are {}", listed(known)),
        };
        self.report(
            code,
            self.location(entry.key_at),
            &path.key(&entry.key),
            format!("unknown field `{}`", Excerpt(&entry.key)),
            hint,
        );
    }

    /// The entries of an object; `None` (reported) for anything else.
    pub(crate) fn object<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n [Entry]> {
        let entries = node.as_mapping();
        if entries.is_none() {
            self.wrong_type(node, path, "an object");
        }
        entries
    }

    /// The entries of a list; `None` (reported) for anything else.
    pub(crate) fn list<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n [Node]> {
        match &node.value {
            Value::Sequence(nodes) => Some(nodes),
            _ => {
                self.wrong_type(node, path, "a list");
                None
            }
        }
    }

    /// A string with its place.
    pub(crate) fn string(&mut self, node: &Node, path: &Path<'_>) -> Option<Located<String>> {
        match node.as_str() {
            Some(text) => Some(Located {
                value: text.to_owned(),
                at: self.location(node.at),
            }),
            None => {
                self.wrong_type(node, path, "a string");
                None
            }
        }
    }

    /// A list of strings.
    pub(crate) fn strings(&mut self, node: &Node, path: &Path<'_>) -> Values {
        let Some(nodes) = self.list(node, path) else {
            return Values::new();
        };
        nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| self.string(node, &path.index(index)))
            .collect()
    }

    /// A boolean.
    pub(crate) fn boolean(&mut self, node: &Node, path: &Path<'_>) -> Option<bool> {
        match node.value {
            Value::Bool(value, _) => Some(value),
            _ => {
                self.wrong_type(node, path, "a boolean");
                None
            }
        }
    }

    /// A port number.
    pub(crate) fn port(&mut self, node: &Node, path: &Path<'_>) -> Option<u16> {
        let Value::Integer(value, text) = &node.value else {
            self.wrong_type(node, path, "a port");
            return None;
        };
        let port = u16::try_from(*value).ok().filter(|port| *port != 0);
        if port.is_none() {
            self.unreadable = true;
            self.report(
                &code::WRONG_TYPE,
                self.location(node.at),
                path,
                format!("`{}` is not a port", Excerpt(text)),
                "ports are 1 to 65535",
            );
        }
        port
    }

    /// An object whose values are strings, such as labels; null values are pruned as the API server
    /// does.
    pub(crate) fn string_map(&mut self, node: &Node, path: &Path<'_>) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        let Some(entries) = self.object(node, path) else {
            return map;
        };
        for entry in entries.iter().filter(|entry| !entry.value.is_null()) {
            let path = path.key(&entry.key);
            if matches!(entry.key.as_str(), "true" | "false") {
                self.report(
                    &code::CONVERTED_KEY,
                    self.location(entry.key_at),
                    &path,
                    format!("this label's key is read as `{}`", entry.key),
                    "if you wrote `y`, `n`, `yes`, `no`, `on` or `off`, quote it",
                );
            }
            if let Some(value) = self.string(&entry.value, &path) {
                map.insert(entry.key.clone(), value.value);
            }
        }
        map
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(
        &mut self,
        node: &Node,
        path: &Path<'_>,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.string(node, path)?;
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            self.unreadable = true;
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let hint = match nearest(&text.value, &known) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("write one of {}", listed(&known)),
            };
            self.report(
                &code::UNKNOWN_WORD,
                text.at,
                path,
                format!("unknown word `{}`", Excerpt(&text.value)),
                hint,
            );
        }
        found.map(|(_, value)| *value)
    }
}

/// Names in backticks, separated by commas.
pub(crate) fn listed(names: &[&str]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push('`');
        text.push_str(name);
        text.push('`');
    }
    text
}

/// The known name that was probably meant.
pub(crate) fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    // Nobody misspells a name into 64 characters, and distances cost the product of the lengths.
    if name.len() > 64 {
        return None;
    }
    let folded = fold(name);
    known
        .iter()
        .map(|candidate| {
            let distance = if fold(candidate) == folded {
                0
            } else {
                strsim::damerau_levenshtein(name, candidate)
            };
            (distance, *candidate)
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Spelling without case, `_` and `-`: `ip_blocks` is `ipBlocks`.
fn fold(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}
