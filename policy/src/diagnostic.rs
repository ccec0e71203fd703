//! Messages to the author of a manifest: what is wrong, where, and what to do.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub mod code;
mod render;

pub use render::{Renderer, render};

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something was passed over or chosen; nothing to do.
    Note,
    /// Accepted by Istio, but probably not what the author meant.
    Warning,
    /// Istio's API server schema or webhook would refuse it, Envoy would abort, or we cannot read it.
    Error,
}

/// A place in a source text. Lines and columns are 1-based; columns count characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    /// Path as the user gave it, `<stdin>` for standard input, empty when nothing stands behind it.
    pub file: Arc<str>,
    /// 1-based line; 0 when unknown.
    pub line: u32,
    /// 1-based column in characters; 0 when unknown.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.file);
        }
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A located message with a code that never changes meaning (`PC0001`…).
///
/// [`crate::diagnostic::code`] lists every code; docs/diagnostics has a page for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Diagnostic {
    /// `PC` and four digits.
    pub code: &'static str,
    /// Error, warning or note.
    pub severity: Severity,
    /// Where the offending value stands.
    #[serde(flatten)]
    pub location: Location,
    /// `Kind/namespace/name`, when the resource is known.
    pub resource: Option<String>,
    /// Path of the field, such as `spec.rules[0].from[1].source.ipBlocks[0]`.
    pub field: Option<String>,
    /// One line: lower case, no full stop, input in backticks.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A diagnostic with neither resource, field nor hint; the `with_` methods add them.
    #[must_use]
    pub fn new(
        code: &'static str,
        severity: Severity,
        location: Location,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity,
            location,
            resource: None,
            field: None,
            message: message.into(),
            hint: None,
        }
    }

    /// Names the resource, as `Kind/namespace/name`.
    #[must_use]
    pub fn with_resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Names the field by its path from the document's root.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// True for [`Severity::Error`].
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.message)
    }
}
