//! `portcullis admission`: one file per verb.

pub mod args;
mod judge;
pub mod serve;
mod webhook_config;

use crate::args::GlobalArgs;
use crate::exit::Exit;
use args::AdmissionCommand;

/// Runs the verb.
///
/// # Errors
/// When it could not run.
pub fn run(command: AdmissionCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    match command {
        AdmissionCommand::Serve(args) => serve::run(&args, global),
        AdmissionCommand::WebhookConfig(args) => webhook_config::run(&args),
    }
}
