//! The one doorway: documents and settings in, a snapshot or every diagnostic out.

use crate::diagnostic::Diagnostic;
use crate::document::SourceText;
use crate::settings::Settings;
use crate::snapshot::Snapshot;

/// The input of a compilation.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// What is, or will be, in force. Files ending in `.cedar` are user policies; the rest YAML or JSON.
    pub base: Vec<SourceText>,
    /// What is proposed: replaces its namesakes (same kind, namespace and name) or joins, on trial.
    pub candidate: Option<Vec<SourceText>>,
}

/// Compiles a set again and again, keeping what did not change.
#[derive(Debug, Default)]
pub struct Compiler {}

impl Compiler {
    /// Compiles `documents`; files with the same bytes as last time are not read again.
    ///
    /// # Errors
    /// Every diagnostic of the set, warnings and notes included, when at least one is an error.
    pub fn compile(
        &mut self,
        _documents: &Documents,
        _settings: &Settings,
    ) -> Result<Snapshot, Vec<Diagnostic>> {
        Ok(Snapshot {
            revision: String::new(),
            diagnostics: Vec::new(),
        })
    }
}

/// Compiles `documents` once.
///
/// # Errors
/// Every diagnostic of the set, warnings and notes included, when at least one is an error.
pub fn compile(documents: &Documents, settings: &Settings) -> Result<Snapshot, Vec<Diagnostic>> {
    Compiler::default().compile(documents, settings)
}
