//! The serving certificate, and that whoever calls us can verify it at every moment.
//!
//! ```text
//! files | Workload API | our own small authority -> certificate, key, roots
//!    roots -> caBundle (old and new) -> read back -> there for the propagation time
//!                                                      -> only then is the certificate served
//!    roots that are gone -> caBundle without them, later
//! ```
//!
//! A certificate is put in force when it verifies, for our own name, by exactly those roots that API servers have had
//! long enough. So there is no moment in which neither the old nor the new one holds, and several instances that renew
//! at different times do not disturb each other: each only adds what it needs, and waits.

pub mod authority;
pub mod ca_bundle;
pub mod files;
mod gate;
pub mod workload_api;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub use self::gate::{Gate, Options, State};

/// A root, as its certificate.
pub type Root = CertificateDer<'static>;

/// A certificate that could be served, and what it is verified by.
pub struct Material {
    /// Our certificate, intermediate ones after it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// Every root that verifies ours or will; empty where somebody else tells API servers.
    pub roots: Vec<Root>,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("chain", &self.chain.len())
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// What a source has now; `None` before the first.
pub type Source = watch::Receiver<Option<Arc<Material>>>;

/// Why a certificate cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("`{path}`: {cause}")]
    File {
        /// Which.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// The Workload API.
    #[error("no certificate from the Workload API `{endpoint}`: {cause}")]
    WorkloadApi {
        /// Where.
        endpoint: String,
        /// What is wrong.
        cause: String,
    },
    /// Our own authority, or what it signs.
    #[error("the authority of the webhook: {0}")]
    Authority(String),
    /// The API server.
    #[error("{what}: {cause}")]
    Cluster {
        /// Verb and object.
        what: String,
        /// What it said.
        cause: String,
    },
    /// A certificate that no API server would take.
    #[error("the certificate does not hold for `{name}`: {cause}")]
    Unfit {
        /// Our name.
        name: String,
        /// What is wrong.
        cause: String,
    },
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Material {
    /// What handshakes are made with.
    ///
    /// # Errors
    /// Key and certificate are no pair, or cannot be used.
    pub fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Every connection sees the certificate of now.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Verifies the certificate as an API server does: by `roots` alone, for `name`, at `now`.
    ///
    /// # Errors
    /// [`Error::Unfit`].
    pub fn verify(&self, roots: &[Root], name: &str, now: SystemTime) -> Result<(), Error> {
        let unfit = |cause: String| Error::Unfit {
            name: name.to_owned(),
            cause,
        };
        let server = ServerName::try_from(name.to_owned()).map_err(|e| unfit(e.to_string()))?;
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(roots.iter().cloned());
        if added == 0 {
            return Err(unfit("there is no root to verify it by".to_owned()));
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
            .build()
            .map_err(|e| unfit(e.to_string()))?;
        let Some((leaf, intermediates)) = self.chain.split_first() else {
            return Err(unfit("there is none".to_owned()));
        };
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(since);
        verifier
            .verify_server_cert(leaf, intermediates, &server, &[], now)
            .map(|_| ())
            .map_err(|e| unfit(e.to_string()))
    }

    /// When the first certificate of the chain ends.
    #[must_use]
    pub fn ends(&self) -> SystemTime {
        self.chain.first().map_or(UNIX_EPOCH, |leaf| ends(leaf))
    }
}

/// When a certificate ends; at once where it cannot be read.
#[must_use]
pub fn ends(certificate: &CertificateDer<'_>) -> SystemTime {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return UNIX_EPOCH;
    };
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_secs(seconds)
}
