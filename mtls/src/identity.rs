//! Our own identity, and the configurations made from it.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ClientConfig, ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use spiffe::x509_source::{ResourceLimits, SvidPicker};
use spiffe::{SpiffeId, X509Source, X509SourceUpdates, X509Svid};
use spiffe_rustls::Authorizer;

use crate::material::Current;
use crate::verifier::{Clients, Servers};

/// Why there is no identity, or no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Workload API gives none.
    #[error("no identity from the Workload API: {0}")]
    Source(#[from] spiffe::X509SourceError),
    /// The Workload API gives none in time.
    #[error(
        "no identity from the Workload API within {0:?}: is there an entry for this workload, and does the socket answer?"
    )]
    TimedOut(Duration),
    /// The TLS library refuses it.
    #[error("no TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
}

/// The X.509 identity of this workload, kept up to date by the stream of the Workload API.
///
/// Clones share one stream. It ends with the last clone and the last configuration made from one; configurations work
/// on while nobody answers on the socket, until the SVID expires.
#[derive(Clone, Debug)]
pub struct Identity {
    current: Arc<Current>,
}

/// How an [`Identity`] is had.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct IdentityBuilder {
    endpoint: Option<String>,
    hint: Option<String>,
    timeout: Option<Duration>,
}

/// Takes the SVID with a hint, whatever else there is.
struct ByHint(String);

impl SvidPicker for ByHint {
    fn pick_svid(&self, svids: &[Arc<X509Svid>]) -> Option<usize> {
        svids.iter().position(|svid| svid.hint() == Some(&self.0))
    }
}

impl IdentityBuilder {
    /// The socket: `unix:///PATH` or `tcp://IP:PORT`. Otherwise SPIFFE_ENDPOINT_SOCKET says which.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// The hint of the identity that is meant, for a workload that has several. Otherwise the first is taken, as the
    /// standard has it (SPIFFE Workload API, section 5.3).
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// How long to wait for the first identity; otherwise as long as it takes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Connects and waits for the first identity.
    ///
    /// # Errors
    /// [`Error`]: the socket's address is none, or there is no identity in time. A socket that does not answer, and a
    /// workload that nobody has registered yet, are waited for.
    pub async fn connect(self) -> Result<Identity, Error> {
        // Bundles may be as large as the authority serves them.
        let mut builder = X509Source::builder().resource_limits(ResourceLimits::unlimited());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if let Some(hint) = self.hint {
            builder = builder.picker(ByHint(hint));
        }
        let source = match self.timeout {
            Some(timeout) => tokio::time::timeout(timeout, builder.build())
                .await
                .map_err(|_| Error::TimedOut(timeout))??,
            None => builder.build().await?,
        };
        Ok(Identity::from(source))
    }
}

impl From<X509Source> for Identity {
    fn from(source: X509Source) -> Self {
        Self {
            current: Arc::new(Current::new(source, provider())),
        }
    }
}

impl Identity {
    /// The identity that the socket in SPIFFE_ENDPOINT_SOCKET gives.
    ///
    /// # Errors
    /// As [`IdentityBuilder::connect`].
    pub async fn connect() -> Result<Self, Error> {
        Self::builder().connect().await
    }

    /// More to say.
    pub fn builder() -> IdentityBuilder {
        IdentityBuilder::default()
    }

    /// The SVID of now.
    ///
    /// # Errors
    /// It has expired, or was withdrawn.
    pub fn svid(&self) -> Result<Arc<X509Svid>, Error> {
        Ok(self.current.source().state().svid()?)
    }

    /// Tells of each update.
    #[must_use]
    pub fn updated(&self) -> X509SourceUpdates {
        self.current.source().updated()
    }

    /// The source that it is made from, for whoever needs more of it.
    #[must_use]
    pub fn source(&self) -> &X509Source {
        self.current.source()
    }

    /// For servers: presents our SVID, and demands one of a workload that `clients` lets in.
    ///
    /// # Errors
    /// The TLS library refuses it.
    pub fn server(&self, clients: impl Authorizer) -> Result<ServerConfig, Error> {
        let clients = Clients::new(Arc::clone(&self.current), Arc::new(clients));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(clients))
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(&self.current))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For clients: presents our SVID, and demands one of a workload that `servers` lets through. The name that a
    /// connection is opened with is sent to the server and proves nothing: the SPIFFE ID does.
    ///
    /// # Errors
    /// The TLS library refuses it.
    pub fn client(&self, servers: impl Authorizer) -> Result<ClientConfig, Error> {
        let servers = Servers::new(Arc::clone(&self.current), Arc::new(servers));
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(servers))
            .with_client_cert_resolver(Arc::new(Resolver(Arc::clone(&self.current))));
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// The SPIFFE ID of now.
    ///
    /// # Errors
    /// As [`Identity::svid`].
    pub fn id(&self) -> Result<SpiffeId, Error> {
        Ok(self.svid()?.spiffe_id().clone())
    }

    /// The authorities of a trust domain that peers are verified by now; empty for one that is not known.
    #[must_use]
    pub fn roots(&self, trust_domain: &spiffe::TrustDomain) -> Arc<RootCertStore> {
        let domain = self.current.domain(trust_domain).ok();
        domain.map_or_else(|| Arc::new(RootCertStore::empty()), |domain| domain.roots)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Presents the SVID of the moment of the handshake.
#[derive(Debug)]
struct Resolver(Arc<Current>);

impl Resolver {
    fn key(&self) -> Option<Arc<CertifiedKey>> {
        let key = self.0.key();
        key.inspect_err(|error| tracing::warn!(%error, "no identity to present in a handshake"))
            .ok()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key()
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key()
    }

    fn has_certs(&self) -> bool {
        true
    }
}
