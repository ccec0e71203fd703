//! `portcullis svid`: the workload's side of the Workload API, for software that only reads files.

pub mod args;
mod fetch;
mod files;
mod inspect;
mod validate;
mod watch;

use std::future::Future;

use portcullis_ca::workload_api::client::{WorkloadClient, WorkloadEndpoint};
use tonic::{Code, Status};

use crate::args::GlobalArgs;
use crate::ca::args::DataArg;
use crate::ca::client::report;
use crate::ca::{options, serve};
use crate::exit::Exit;
use crate::logging;
use args::{SocketArg, SvidCommand};

/// Runs one verb of `svid`.
///
/// # Errors
/// When it cannot run.
pub fn run(command: SvidCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    logging::start(
        global.log_level.as_deref().unwrap_or("warn"),
        global.log_format.unwrap_or_default(),
    )?;
    match command {
        SvidCommand::Fetch(args) => fetch::run(&args, global.output),
        SvidCommand::Watch(args) => watch::run(&args, global.output),
        SvidCommand::Validate(args) => validate::run(&args, global.output),
        SvidCommand::Inspect(args) => inspect::run(&args, global.output),
    }
}

/// Where the Workload API is: as the flag or the environment says, else our own server's socket.
fn endpoint(socket: &SocketArg) -> anyhow::Result<WorkloadEndpoint> {
    match &socket.socket {
        Some(text) => Ok(text.parse()?),
        None => {
            let data = options::data(&DataArg::default())?;
            Ok(WorkloadEndpoint::Unix(data.join(serve::SOCKET_NAME)))
        }
    }
}

/// Connects and asks. A refusal is told and is exit code 2; a server that cannot be reached or cannot answer now is an error.
fn with<F, A>(socket: &SocketArg, ask: F) -> anyhow::Result<Exit>
where
    F: FnOnce(WorkloadClient) -> A,
    A: Future<Output = anyhow::Result<Exit>>,
{
    let endpoint = endpoint(socket)?;
    block_on(async {
        let client = WorkloadClient::connect(&endpoint).await?;
        match ask(client).await {
            Err(error) => match error.downcast::<Status>() {
                Ok(status) => refused(&status),
                Err(error) => Err(error),
            },
            answer => answer,
        }
    })
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

fn refused(status: &Status) -> anyhow::Result<Exit> {
    match status.code() {
        Code::PermissionDenied | Code::InvalidArgument => {
            report(status.message());
            Ok(Exit::No)
        }
        code => Err(anyhow::anyhow!(
            "the Workload API answered {code:?}: {}",
            status.message()
        )),
    }
}
