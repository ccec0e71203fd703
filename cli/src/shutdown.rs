//! The signals that stop a server, or have it read its policies again.

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

/// Signals of a server that can be told more than to stop.
#[derive(Debug)]
pub struct Signals {
    /// SIGINT and SIGTERM.
    pub stop: Stops,
    /// SIGHUP.
    pub reload: Hangups,
}

/// SIGINT and SIGTERM.
#[derive(Debug)]
pub struct Stops {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

/// SIGHUP.
#[derive(Debug)]
pub struct Hangups {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Signals are caught from this call on.
    ///
    /// # Errors
    /// When the operating system does not let us catch them.
    pub fn catch() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            stop: Stops {
                interrupt: signal(SignalKind::interrupt()).context("cannot catch SIGINT")?,
                terminate: signal(SignalKind::terminate()).context("cannot catch SIGTERM")?,
            },
            reload: Hangups {
                hangup: signal(SignalKind::hangup()).context("cannot catch SIGHUP")?,
            },
        })
    }
}

#[cfg(unix)]
impl Stops {
    /// Waits for the next.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(unix)]
impl Hangups {
    /// Waits for the next.
    pub async fn next(&mut self) {
        self.hangup.recv().await;
    }
}

#[cfg(not(unix))]
impl Signals {
    /// Only Ctrl-C can be caught here.
    ///
    /// # Errors
    /// Never here.
    pub fn catch() -> anyhow::Result<Self> {
        Ok(Self {
            stop: Stops {},
            reload: Hangups {},
        })
    }
}

#[cfg(not(unix))]
impl Stops {
    /// Waits for the next.
    pub async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

#[cfg(not(unix))]
impl Hangups {
    /// There are none.
    pub async fn next(&mut self) {
        std::future::pending().await
    }
}
