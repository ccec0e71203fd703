//! `kubectl portcullis`: `explain` and `check` against the live cluster, when the binary is called `kubectl-portcullis`.

mod args;
mod check;
mod cluster;
mod credentials;
mod destination;
mod explain;
mod path;
mod request;

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory as _, Parser as _};

pub use args::Kubectl;
use args::KubectlCommand;

use crate::args::Cli;
use crate::exit::Exit;
use crate::logging;

/// What `kubectl` calls a plugin named `portcullis`.
const NAME: &str = "kubectl-portcullis";

/// The plugin's command line, if that is what was asked for: the binary has its name, and the first word is none of the
/// nouns of `portcullis`, which stay what they are.
pub fn asked(arguments: &[OsString]) -> Option<Result<Kubectl, clap::Error>> {
    let (program, rest) = arguments.split_first()?;
    if Path::new(program).file_stem()? != NAME {
        return None;
    }
    let first = rest
        .iter()
        .find(|word| !word.to_string_lossy().starts_with('-'));
    let cli = Cli::command();
    let noun = first.is_some_and(|word| {
        cli.get_subcommands()
            .any(|noun| noun.get_name() == word.to_string_lossy())
    });
    (!noun).then(|| Kubectl::try_parse_from(arguments))
}

/// Runs the plugin.
///
/// # Errors
/// When the cluster cannot be read, or an input.
pub fn run(kubectl: Kubectl) -> anyhow::Result<Exit> {
    let Kubectl {
        command,
        cluster,
        global,
    } = kubectl;
    logging::start(
        global.log_level.as_deref().unwrap_or("warn"),
        global.log_format.unwrap_or_default(),
    )?;
    let runtime = crate::authz::serve::runtime()?;
    let ran = match command {
        KubectlCommand::Explain(args) => {
            runtime.block_on(explain::run(&args, &cluster, global.output))
        }
        KubectlCommand::Check(args) => runtime.block_on(check::run(&args, &cluster, global.output)),
    };
    // What is still under way, such as the look-up of a name, is not waited for.
    runtime.shutdown_background();
    ran
}
