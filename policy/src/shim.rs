//! Stands in for the manifest reader until it lands.
use crate::diagnostic::Diagnostic;
use crate::resource::Resource;
use std::sync::Arc;
/// What one file came to.
#[derive(Clone, Debug, Default)]
pub struct FileResources {
    /// Resources.
    pub resources: Vec<Arc<Resource>>,
    /// Diagnostics.
    pub diagnostics: Vec<Diagnostic>,
}
/// Reads one file.
#[must_use]
pub fn read(_source: &crate::document::SourceText) -> FileResources {
    FileResources::default()
}
/// Lints.
#[must_use]
pub fn lint(_r: &[Arc<Resource>], _root: &str, _t: &[String]) -> Vec<Diagnostic> {
    Vec::new()
}
