//! TLS of a listener: our certificate, and who may connect.
//!
//! Every handshake takes the configuration in force at that moment; connections that are open stay open.
//! Sessions are never resumed: that would skip a change of authorities.

mod allowed;
mod clients;
mod files;
mod workload;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::incoming::Socket;
use crate::limits::Load;
use crate::reload;

pub use self::allowed::{AllowList, AllowedId, NotAnId};
pub use self::files::Files;
pub use self::workload::{Choice, WorkloadApi};

/// TLS of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where certificate and key come from, and the authorities of clients.
    pub source: Source,
    /// SPIFFE IDs that may connect; `None`: everybody whose certificate is verified. Of a Workload API
    /// those of our own trust domain.
    pub allowed: Option<AllowList>,
}

/// Where our certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From files.
    Files(Files),
    /// From a SPIFFE Workload API; clients need an SVID.
    WorkloadApi(WorkloadApi),
}

/// Why files make no TLS server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("`{}`: {cause}", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Certificate and key are no pair.
    #[error("`{}` and `{}`: {cause}", .certificate.display(), .key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Something that does not happen.
    #[error("{0}")]
    Crashed(String),
}

/// The configuration in force; `None` while there is no certificate.
type Current = Option<Arc<ServerConfig>>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What all listeners have in common.
fn settle(config: &mut ServerConfig, alpn: &[u8]) {
    config.alpn_protocols = vec![alpn.to_vec()];
    // A resumed session would carry an identity past a change of the authorities or of the list.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}

/// What handshakes of one listener are made with.
#[derive(Clone, Debug)]
pub(crate) struct Material(watch::Receiver<Current>);

impl Material {
    /// True when a handshake can succeed.
    pub(crate) fn is_there(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until a handshake can succeed.
    pub(crate) async fn arrives(&mut self) {
        // An error means that the follower is gone: nothing will come.
        if self.0.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The server's part of a handshake.
    pub(crate) async fn accept(&self, socket: Socket) -> io::Result<TlsStream<Socket>> {
        let config = self.0.borrow().clone();
        let config = config.ok_or_else(|| io::Error::other("there is no certificate yet"))?;
        TlsAcceptor::from(config).accept(socket).await
    }
}

/// Keeps a listener's [`Material`] up to date.
#[derive(Debug)]
pub(crate) enum Follower {
    Files(files::Follower),
    WorkloadApi(workload::Follower),
}

impl Follower {
    /// Follows `options` for a listener that speaks `alpn`.
    ///
    /// # Errors
    /// [`Error`] when files are not what they should be. A Workload API is waited for.
    pub(crate) fn start(
        options: &Options,
        alpn: &'static [u8],
        load: &Load,
    ) -> Result<(Self, Material), Error> {
        let allowed = options.allowed.clone();
        let counters = Arc::clone(load.counters());
        let (follower, current) = match options.source.clone() {
            Source::Files(files) => {
                let started = files::Follower::start(files, allowed, alpn, counters);
                let (follower, current) = started?;
                (Self::Files(follower), current)
            }
            Source::WorkloadApi(source) => {
                let (follower, current) = workload::Follower::new(source, allowed, alpn, counters);
                (Self::WorkloadApi(follower), current)
            }
        };
        Ok((follower, Material(current)))
    }

    /// Follows until dropped.
    pub(crate) async fn run(self, options: reload::Options) {
        match self {
            Self::Files(follower) => follower.run(options).await,
            Self::WorkloadApi(follower) => follower.run().await,
        }
    }
}
