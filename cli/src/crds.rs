//! `portcullis crds`: the custom resource definitions to install.

use std::io::Write as _;

use portcullis_source::crd;

use crate::args::Output;
use crate::exit::Exit;
use crate::out;

/// Prints them: one stream of YAML documents, or a List in JSON.
///
/// # Errors
/// When the output cannot be written.
pub fn run(output: Output) -> anyhow::Result<Exit> {
    let mut stdout = out::stdout();
    match output {
        Output::Human => stdout.write_all(crd::yaml()?.as_bytes())?,
        Output::Json => {
            serde_json::to_writer(&mut stdout, &crd::list()?)?;
            stdout.write_all(b"\n")?;
        }
    }
    stdout.flush()?;
    Ok(Exit::Yes)
}
