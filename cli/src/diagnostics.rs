//! Diagnostics on a terminal.

use std::io::Write;

use anstyle::Style;
use portcullis_policy::compile::Documents;
use portcullis_policy::diagnostic::{Diagnostic, Severity};

use crate::out::{BAD, BOLD, CAUTION, DIM};

/// Style and word of a severity.
#[must_use]
pub fn severity(severity: Severity) -> (Style, &'static str) {
    match severity {
        Severity::Error => (BAD, "error"),
        Severity::Warning => (CAUTION, "warning"),
        Severity::Note => (DIM, "note"),
    }
}

/// Writes every diagnostic with its code, excerpt and hint.
///
/// # Errors
/// When the output cannot be written.
pub fn write_all(
    out: &mut impl Write,
    diagnostics: &[Diagnostic],
    _documents: &Documents,
) -> std::io::Result<()> {
    for diagnostic in diagnostics {
        let (style, word) = severity(diagnostic.severity);
        writeln!(
            out,
            "{BOLD}{}{BOLD:#}: {style}{word}[{}]{style:#}: {}",
            diagnostic.location, diagnostic.code, diagnostic.message
        )?;
        if let Some(hint) = &diagnostic.hint {
            writeln!(out, "  {BOLD}hint{BOLD:#}: {hint}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
