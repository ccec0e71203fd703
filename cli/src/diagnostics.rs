//! Diagnostics on a terminal: the engine's own rendering, in colour.

use std::collections::HashMap;
use std::io::Write;

use anstyle::Style;
use portcullis_policy::compile::Documents;
use portcullis_policy::diagnostic::{Diagnostic, Renderer, Severity};

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

/// Writes every diagnostic with code, excerpt, caret and hint, an empty line after each.
///
/// # Errors
/// When the output cannot be written.
pub fn write_all(
    out: &mut impl Write,
    diagnostics: &[Diagnostic],
    documents: &Documents,
) -> std::io::Result<()> {
    let sources = documents
        .base
        .iter()
        .chain(documents.candidate.iter().flatten());
    let texts: HashMap<&str, &[u8]> = sources
        .map(|source| (&*source.file, &*source.bytes))
        .collect();
    let mut renderers: HashMap<&str, Renderer<'_>> = HashMap::new();
    for diagnostic in diagnostics {
        let file = &*diagnostic.location.file;
        let renderer = renderers.entry(file).or_insert_with(|| {
            let bytes = texts.get(file).copied().unwrap_or_default();
            // What is not UTF-8 has no lines to show.
            Renderer::new(std::str::from_utf8(bytes).unwrap_or_default())
        });
        let (style, _) = severity(diagnostic.severity);
        write_styled(out, &renderer.render(diagnostic), style)?;
        writeln!(out)?;
    }
    Ok(())
}

/// Colours the parts that the eye looks for: what it is, where, the caret, the help.
fn write_styled(out: &mut impl Write, text: &str, style: Style) -> std::io::Result<()> {
    for (number, line) in text.lines().enumerate() {
        let inner = line.trim_start();
        if number == 0 {
            let (head, rest) = line.split_once(": ").unwrap_or((line, ""));
            writeln!(out, "{style}{head}{style:#}: {BOLD}{rest}{BOLD:#}")?;
        } else if inner.starts_with("-->") {
            writeln!(out, "{DIM}{line}{DIM:#}")?;
        } else if let Some((gutter, caret)) = line.split_once('|')
            && caret.trim_start().starts_with('^')
        {
            writeln!(out, "{gutter}|{style}{caret}{style:#}")?;
        } else {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
