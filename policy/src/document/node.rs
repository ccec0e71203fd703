//! The tree of one document: values and keys with the place where they stood.

use std::fmt;
use std::sync::Arc;

use crate::diagnostic::Location;

/// A place in a text: 1-based line, 1-based column in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// 1-based line.
    pub line: u32,
    /// 1-based column, in characters.
    pub column: u32,
}

impl Mark {
    /// The same place as a [`Location`] in `file`.
    #[must_use]
    pub fn in_file(self, file: &Arc<str>) -> Location {
        Location {
            file: Arc::clone(file),
            line: self.line,
            column: self.column,
        }
    }
}

/// How a string was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Plain, quoted or folded: lines of the text are not lines of the file.
    Inline,
    /// A literal block (`|`): line by line a part of the file.
    Literal {
        /// Line of the file that the text's first line is.
        line: u32,
        /// Columns in front of the text.
        indent: u32,
    },
}

/// A value of a document, as Kubernetes reads it: YAML 1.1's plain `yes` and `0x1f` are a boolean
/// and a number here too.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Null, or nothing at all.
    Null,
    /// A boolean, and how it was written.
    Bool(bool, Box<str>),
    /// A whole number, and how it was written.
    Integer(i128, Box<str>),
    /// Any other number, as it was written.
    Float(Box<str>),
    /// A string.
    String(String, Style),
    /// A list.
    Sequence(Vec<Node>),
    /// An object; keys are unique.
    Mapping(Vec<Entry>),
}

/// A [`Value`] and where it stood.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where the value starts.
    pub at: Mark,
    /// The value.
    pub value: Value,
}

/// One key of a mapping with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key; numbers and booleans in the form that JSON gives them.
    pub key: String,
    /// Where the key stood.
    pub key_at: Mark,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The entries of a mapping.
    #[must_use]
    pub fn as_mapping(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entries of a list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Sequence(nodes) => Some(nodes),
            _ => None,
        }
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text, _) => Some(text),
            _ => None,
        }
    }

    /// True for null and for nothing at all.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The value under `key` of a mapping; null counts as absent, as the API server prunes it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_mapping()?
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
            .filter(|value| !value.is_null())
    }

    /// The value as JSON. A number that JSON cannot hold stays its text.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::{Number, Value as Json};
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value, _) => Json::Bool(*value),
            Value::Integer(value, text) => {
                Number::from_i128(*value).map_or_else(|| Json::from(&**text), Json::Number)
            }
            Value::Float(text) => {
                let number: Option<Number> = serde_json::from_str(text).ok();
                number.map_or_else(|| Json::from(&**text), Json::Number)
            }
            Value::String(text, _) => Json::String(text.clone()),
            Value::Sequence(nodes) => Json::Array(nodes.iter().map(Self::to_json).collect()),
            Value::Mapping(entries) => {
                let entries = entries.iter().map(|e| (e.key.clone(), e.value.to_json()));
                Json::Object(entries.collect())
            }
        }
    }

    /// What the value is, in words and with its text, for "found ...".
    #[must_use]
    pub fn described(&self) -> Described<'_> {
        Described(self)
    }
}

/// Display form of [`Node::described`].
#[derive(Clone, Copy, Debug)]
pub struct Described<'a>(&'a Node);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.value {
            Value::Null => f.write_str("null"),
            Value::Bool(_, text) => write!(f, "the boolean `{text}`"),
            Value::Integer(_, text) | Value::Float(text) => write!(f, "the number `{text}`"),
            Value::String(text, _) => write!(f, "the string `{}`", Excerpt(text)),
            Value::Sequence(_) => f.write_str("a list"),
            Value::Mapping(_) => f.write_str("an object"),
        }
    }
}

/// Shows user input in a one-line message: control characters escaped, long text cut.
#[derive(Clone, Copy, Debug)]
pub struct Excerpt<'a>(pub &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 80;
        for (n, c) in self.0.chars().enumerate() {
            if n == LONGEST {
                return f.write_str("…");
            }
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}
