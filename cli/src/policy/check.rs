//! `portcullis policy check`: every diagnostic of a set of documents.

use std::io::Write as _;

use portcullis_authz::policy_test;
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::diagnostic::{Diagnostic, Severity};

use crate::args::{CheckArgs, Output};
use crate::config::Config;
use crate::exit::Exit;
use crate::{diagnostics, inputs, out};

/// Checks what `args` name.
///
/// # Errors
/// When the configuration or a path cannot be read.
pub fn run(args: &CheckArgs, output: Output) -> anyhow::Result<Exit> {
    let config = Config::load(args.config.config.as_deref())?;
    let documents = Documents {
        base: inputs::read(&args.paths)?,
        candidate: None,
    };
    let settings = config.settings();
    let (found, policies) = match compile(&documents, &settings) {
        Ok(snapshot) => {
            let mut found = snapshot.diagnostics().to_vec();
            found.extend(snapshot.policies().tests().flat_map(policy_test::diagnose));
            (found, Some(snapshot.policy_count()))
        }
        Err(found) => (found, None),
    };
    let tally = Tally::of(&found);

    let mut stdout = out::stdout();
    match output {
        Output::Json => {
            for diagnostic in &found {
                serde_json::to_writer(&mut stdout, diagnostic)?;
                stdout.write_all(b"\n")?;
            }
        }
        Output::Human => {
            diagnostics::write_all(&mut stdout, &found, &documents)?;
            writeln!(stdout, "{}", tally.summary(documents.base.len(), policies))?;
        }
    }
    stdout.flush()?;
    let refused = tally.errors > 0 || (args.deny_warnings && tally.warnings > 0);
    Ok(if refused { Exit::No } else { Exit::Yes })
}

/// How many diagnostics of each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Errors.
    pub errors: usize,
    /// Warnings.
    pub warnings: usize,
    /// Notes.
    pub notes: usize,
}

impl Tally {
    /// Counts `diagnostics`.
    #[must_use]
    pub fn of(diagnostics: &[Diagnostic]) -> Self {
        let mut tally = Self::default();
        for diagnostic in diagnostics {
            match diagnostic.severity {
                Severity::Error => tally.errors += 1,
                Severity::Warning => tally.warnings += 1,
                Severity::Note => tally.notes += 1,
            }
        }
        tally
    }

    fn summary(self, files: usize, policies: Option<usize>) -> String {
        let mut text = format!("checked {}", count(files, "file"));
        if let Some(policies) = policies {
            let plural = if policies == 1 { "policy" } else { "policies" };
            text.push_str(&format!(", {policies} {plural}"));
        }
        text.push_str(": ");
        text.push_str(&self.words());
        text
    }

    /// Such as `2 errors, 1 warning`; `nothing wrong` when there is neither.
    #[must_use]
    pub fn words(self) -> String {
        let mut parts = Vec::new();
        if self.errors > 0 {
            parts.push(count(self.errors, "error"));
        }
        if self.warnings > 0 {
            parts.push(count(self.warnings, "warning"));
        }
        if parts.is_empty() {
            parts.push("nothing wrong".to_owned());
        }
        if self.notes > 0 {
            parts.push(count(self.notes, "note"));
        }
        parts.join(", ")
    }
}

/// `1 file`, `2 files`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}
