//! The signals that stop a server.

use std::future::Future;

use anyhow::Context as _;

/// A future that ends at Ctrl-C or SIGTERM. Signals are caught from this call on.
///
/// # Errors
/// When the operating system does not let us catch them.
#[cfg(unix)]
pub fn signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot catch SIGHUP")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// A future that ends at Ctrl-C.
///
/// # Errors
/// Never here.
#[cfg(not(unix))]
pub fn signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
