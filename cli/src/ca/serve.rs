//! `portcullis ca serve`: identities for workloads until told to stop.

use portcullis_ca::server::{Server, ServerOptions};

use super::args::ServeArgs;
use super::options;
use crate::args::GlobalArgs;
use crate::authz::serve::runtime;
use crate::config::Config;
use crate::exit::Exit;
use crate::{logging, shutdown};

/// Name of the workload socket in the data folder.
pub const SOCKET_NAME: &str = "workload.sock";

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// When the data cannot be trusted or a socket cannot be had.
pub fn run(args: &ServeArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let config = Config::load(args.init.config.config.as_deref())?;
    logging::start_server(global, &config)?;
    runtime()?.block_on(async {
        // Before anything is bound: a signal at start must stop us, too.
        let stop = shutdown::signal()?;
        let (ca, configured) = options::options(&args.init, &config).await?;
        let socket = args.socket.clone().or(configured);
        let socket = socket.unwrap_or_else(|| ca.data.join(SOCKET_NAME));
        if let Some(folder) = socket.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let web = options::web(&config.ca, &ca)?;
        let options = ServerOptions {
            ca,
            socket,
            web,
            otlp: options::collector(&config),
            kubernetes: options::kubernetes(&config.ca)?,
        };
        let server = Server::start(options).await?;
        tracing::info!(
            trust_domain = %server.ca().trust_domain(),
            data = %server.ca().options().data.display(),
            socket = %server.socket().display(),
            entries = server.ca().registry().index().len(),
            "serving identities"
        );
        for address in server.web() {
            tracing::info!(%address, "listening");
        }
        server.run(stop).await?;
        anyhow::Ok(())
    })?;
    Ok(Exit::Yes)
}
