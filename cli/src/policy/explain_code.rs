//! `portcullis policy explain-code`: what a diagnostic's code means.

use std::io::Write as _;

use anyhow::bail;
use portcullis_policy::diagnostic::code::{self, Code};
use serde_json::json;

use crate::args::Output;
use crate::diagnostics::severity;
use crate::exit::Exit;
use crate::out::{self, BOLD};
use crate::policy::decide::json_line;

/// Tells about one code, or lists them all.
///
/// # Errors
/// When there is no such code.
pub fn run(id: Option<&str>, output: Output) -> anyhow::Result<Exit> {
    let codes: Vec<&Code> = match id {
        None => code::ALL.to_vec(),
        Some(id) => {
            let wanted = id.to_uppercase();
            let Some(code) = code::ALL.iter().find(|code| code.id == wanted) else {
                bail!(
                    "no diagnostic has the code `{id}`; `portcullis policy explain-code` lists every code"
                );
            };
            vec![*code]
        }
    };
    let mut stdout = out::stdout();
    for code in codes {
        let (style, word) = severity(code.severity);
        match output {
            Output::Json => json_line(
                &mut stdout,
                &json!({
                    "code": code.id,
                    "severity": code.severity,
                    "title": code.title,
                    "explanation": code.explanation,
                }),
            )?,
            Output::Human if id.is_some() => writeln!(
                stdout,
                "{BOLD}{}{BOLD:#} ({style}{word}{style:#}): {}\n\n{}",
                code.id, code.title, code.explanation
            )?,
            Output::Human => writeln!(
                stdout,
                "{BOLD}{}{BOLD:#}  {style}{word:<7}{style:#}  {}",
                code.id, code.title
            )?,
        }
    }
    stdout.flush()?;
    Ok(Exit::Yes)
}
