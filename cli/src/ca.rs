//! `portcullis ca`: the certificate authority, and its admin API's client.

pub mod args;
mod audit;
mod authority;
pub mod bundle;
pub mod client;
mod crl;
pub mod entry;
mod federation;
mod init;
pub mod options;
pub mod serve;
mod status;

use crate::args::GlobalArgs;
use crate::exit::Exit;
use crate::logging;
use args::CaCommand;

/// Runs one verb of `ca`.
///
/// # Errors
/// When it cannot run.
pub fn run(command: CaCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    if let CaCommand::Serve(args) = command {
        return serve::run(&args, global);
    }
    logging::start(
        global.log_level.as_deref().unwrap_or("warn"),
        global.log_format.unwrap_or_default(),
    )?;
    match command {
        CaCommand::Serve(args) => serve::run(&args, global),
        CaCommand::Init(args) => init::run(&args, global.output),
        CaCommand::Status(args) => status::run(&args, global.output),
        CaCommand::Entry(command) => entry::run(command, global.output),
        CaCommand::Authority(command) => authority::run(command, global.output),
        CaCommand::Bundle(command) => bundle::run(command, global.output),
        CaCommand::Federation(command) => federation::run(command, global.output),
        CaCommand::Crl(command) => crl::run(command, global.output),
        CaCommand::Audit(command) => audit::run(command, global.output),
    }
}
