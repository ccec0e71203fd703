//! `portcullis policy translate`: the Cedar policies that manifests mean.

use std::io::Write as _;

use portcullis_policy::compile::{Documents, compile};
use serde::Serialize;

use crate::args::{Output, TranslateArgs};
use crate::config::Config;
use crate::exit::Exit;
use crate::inputs::{self, Refused};
use crate::out::{self, DIM};
use crate::policy::decide::json_line;

/// One policy as JSON.
#[derive(Serialize)]
struct Translated<'a> {
    id: &'a str,
    file: &'a str,
    line: u32,
    column: u32,
    cedar: &'a str,
}

/// Translates what `args` name, or prints the schema.
///
/// # Errors
/// When an input cannot be read or the output cannot be written.
pub fn run(args: &TranslateArgs, output: Output) -> anyhow::Result<Exit> {
    let mut stdout = out::stdout();
    if args.schema {
        let schema = portcullis_policies::SCHEMA;
        match output {
            Output::Json => json_line(&mut stdout, &serde_json::json!({"schema": schema}))?,
            Output::Human => write!(stdout, "{schema}")?,
        }
        stdout.flush()?;
        return Ok(Exit::Yes);
    }
    let config = Config::load(args.config.config.as_deref())?;
    let documents = Documents {
        base: inputs::read(&args.paths)?,
        candidate: None,
    };
    let snapshot = match compile(&documents, &config.settings()) {
        Ok(snapshot) => snapshot,
        Err(diagnostics) => {
            return Refused {
                diagnostics,
                documents,
            }
            .report(output);
        }
    };
    for (index, policy) in snapshot.translate().iter().enumerate() {
        match output {
            Output::Json => json_line(
                &mut stdout,
                &Translated {
                    id: &policy.id,
                    file: &policy.origin.file,
                    line: policy.origin.line,
                    column: policy.origin.column,
                    cedar: &policy.cedar,
                },
            )?,
            Output::Human => {
                if index > 0 {
                    writeln!(stdout)?;
                }
                let origin = policy.origin.to_string();
                if origin.is_empty() {
                    writeln!(stdout, "{DIM}// {}{DIM:#}", policy.id)?;
                } else {
                    writeln!(stdout, "{DIM}// {} at {origin}{DIM:#}", policy.id)?;
                }
                writeln!(stdout, "{}", policy.cedar.trim_end())?;
            }
        }
    }
    stdout.flush()?;
    Ok(Exit::Yes)
}
