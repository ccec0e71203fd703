//! What every client of the admin API does: connect, ask, say what was refused.

use std::future::Future;

use portcullis_ca::admin;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::args::DataArg;
use super::options;
use crate::exit::Exit;
use crate::out;

/// Connects to the server of a data folder and runs `ask`. A refusal is told, and is exit code 2; a server that cannot
/// be reached or cannot answer now is an error.
///
/// # Errors
/// When there is no answer.
pub fn with<F, A>(data: &DataArg, ask: F) -> anyhow::Result<Exit>
where
    F: FnOnce(Channel) -> A,
    A: Future<Output = anyhow::Result<Exit>>,
{
    let socket = admin::socket_in(&options::data(data)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let channel = admin::client::connect(&socket).await?;
        match ask(channel).await {
            Err(error) => match error.downcast::<Status>() {
                Ok(status) => refused(&status),
                Err(error) => Err(error),
            },
            answer => answer,
        }
    })
}

fn refused(status: &Status) -> anyhow::Result<Exit> {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unimplemented => {
            report(status.message());
            Ok(Exit::No)
        }
        code => Err(anyhow::anyhow!(
            "the server answered {code:?}: {}",
            status.message()
        )),
    }
}

/// Tells on standard error what was refused.
pub fn report(message: &str) {
    out::report(format_args!(
        "{}error{}: {message}",
        out::BAD.render(),
        out::BAD.render_reset()
    ));
}

/// `Ok` for the outcome of one item that went well, else its message.
///
/// # Errors
/// With the server's words.
pub fn outcome(status: Option<&portcullis_ca::proto::types::Status>) -> Result<(), String> {
    match status {
        Some(status) if status.code == i32::from(Code::Ok) => Ok(()),
        Some(status) => Err(status.message.clone()),
        None => Err("the server said nothing of it".to_owned()),
    }
}

/// Unix seconds for people.
pub fn time(seconds: i64) -> String {
    let text = portcullis_ca::journal::rfc3339(portcullis_ca::clock::from_unix_seconds(seconds));
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text,
    }
}
