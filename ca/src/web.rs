//! What others may fetch over HTTP: our bundle (SPIFFE Federation §5.2), and what OpenID Connect clients look for.
//!
//! ```text
//! accept -> TLS (files, or our own X.509-SVID) -> GET -> a document that is made when something changed
//! ```

mod certificate;
mod pages;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::ca::Ca;
use crate::identities::Identities as _;
use certificate::Certificates;
use pages::Pages;

pub use pages::IssuerError;

/// Connections at once; more wait at the door.
const CONNECTIONS: usize = 512;
/// How long a handshake, and the head of a request, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may stay, whatever it does.
const LONGEST: Duration = Duration::from_secs(60);
/// Time that open requests get at shutdown.
const DRAIN: Duration = Duration::from_secs(2);
/// Rest after a failed accept: too many open files goes away by itself.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a web listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A unix socket, for a proxy in front.
    Unix(PathBuf),
}

/// Text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address to listen on: write `IP:PORT` or `unix:PATH`")]
pub struct AddressError(String);

impl FromStr for WebAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(crate::trust_domain::shorten(text));
        match text.strip_prefix("unix:") {
            Some("") => Err(wrong()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a web listener shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebIdentity {
    /// A certificate for its host name, PEM, leaf first, and its key: the profile https_web. Changed files are taken over.
    Files {
        /// Certificates.
        certificate: PathBuf,
        /// Private key.
        key: PathBuf,
    },
    /// Our own X.509-SVID, `spiffe://TD/spire/server`: the profile https_spiffe.
    Svid,
    /// None: a proxy in front has it. On this machine only.
    Plain,
}

/// What a web listener serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebContent {
    /// Our bundle, at every path.
    Bundle,
    /// `/.well-known/openid-configuration` and `/keys`, for this issuer.
    Oidc {
        /// `iss` of our JWT-SVIDs, the URL that this listener is reached by.
        issuer: String,
    },
    /// `/metrics`, `/livez` and `/readyz`, for operators and their tools.
    Management,
}

impl WebContent {
    /// True where others look for new authorities every now and then.
    #[must_use]
    pub fn is_polled(&self) -> bool {
        !matches!(self, Self::Management)
    }
}

/// A web listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOptions {
    /// Where.
    pub listen: WebAddress,
    /// Who.
    pub identity: WebIdentity,
    /// What.
    pub content: WebContent,
}

/// A web listener that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// It cannot be bound.
    #[error("cannot listen on `{listen}`: {cause}")]
    Bind {
        /// Where.
        listen: WebAddress,
        /// What the operating system said.
        cause: io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("cannot serve TLS on `{listen}`: {cause}")]
    Tls {
        /// Where.
        listen: WebAddress,
        /// Why.
        cause: String,
    },
    /// In the clear for everybody.
    #[error(
        "`{0}` would be served without TLS to other machines: give it a certificate and a key, or listen on 127.0.0.1 or a unix socket behind a proxy"
    )]
    Plain(WebAddress),
    /// The issuer is no URL that can be discovered.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => Ok(Accepted::Tcp(listener.accept().await?.0)),
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

/// A bound web listener.
pub struct WebServer {
    listener: Listener,
    address: WebAddress,
    certificates: Option<Arc<Certificates>>,
    pages: Arc<Pages>,
}

impl fmt::Debug for WebServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl WebServer {
    /// Binds the listener and reads its certificate, or issues it.
    ///
    /// # Errors
    /// When the address is taken, or what it is to show cannot be had.
    pub async fn bind(ca: &Arc<Ca>, options: WebOptions) -> Result<Self, WebError> {
        let listen = options.listen;
        // Plain HTTP, as Prometheus expects it: where it may listen is the operator's to know.
        let may_be_plain = options.content == WebContent::Management;
        let pages = Arc::new(Pages::new(options.content)?);
        let tls = |cause: String| WebError::Tls {
            listen: listen.clone(),
            cause,
        };
        let certificates = match options.identity {
            WebIdentity::Plain => None,
            WebIdentity::Files { certificate, key } => {
                Some(Certificates::of_files(certificate, key).map_err(tls)?)
            }
            WebIdentity::Svid => Some(Certificates::of_svid(ca).await.map_err(tls)?),
        };
        let is_local = match &listen {
            WebAddress::Tcp(address) => address.ip().is_loopback(),
            WebAddress::Unix(_) => true,
        };
        if certificates.is_none() && !is_local && !may_be_plain {
            return Err(WebError::Plain(listen));
        }
        let bind = |cause| WebError::Bind {
            listen: listen.clone(),
            cause,
        };
        let (listener, address) = match &listen {
            WebAddress::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(bind)?;
                let bound = listener.local_addr().map_err(bind)?;
                (Listener::Tcp(listener), WebAddress::Tcp(bound))
            }
            WebAddress::Unix(path) => {
                // One of a process that died; the lock on the data folder says that it is not alive.
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(bind(error));
                    }
                    _ => {}
                }
                let listener = UnixListener::bind(path).map_err(bind)?;
                (Listener::Unix(listener), listen.clone())
            }
        };
        Ok(Self {
            listener,
            address,
            certificates: certificates.map(Arc::new),
            pages,
        })
    }

    /// Where it listens: with the port that it got.
    #[must_use]
    pub fn address(&self) -> &WebAddress {
        &self.address
    }

    /// Serves until `shutdown`.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub async fn run(
        self,
        ca: Arc<Ca>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), WebError> {
        let acceptor = match &self.certificates {
            None => None,
            Some(certificates) => {
                let config = certificates
                    .server_config()
                    .map_err(|cause| WebError::Tls {
                        listen: self.address.clone(),
                        cause,
                    })?;
                Some(TlsAcceptor::from(Arc::new(config)))
            }
        };
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut open = JoinSet::new();
        tokio::pin!(shutdown);
        let mut renewal = tokio::time::interval(Duration::from_secs(1));
        let mut changes = ca.subscribe();
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                // An authority that is tainted or gone: at once. The sender lives as long as `ca`.
                _ = changes.changed() => {
                    if let Some(certificates) = &self.certificates {
                        certificates.renew(&ca).await;
                    }
                }
                _ = renewal.tick() => {
                    if let Some(certificates) = &self.certificates {
                        certificates.renew(&ca).await;
                    }
                    while open.try_join_next().is_some() {}
                }
                accepted = accept(&self.listener, &places) => {
                    let (stream, place) = match accepted {
                        Ok(accepted) => accepted,
                        Err(error) => {
                            tracing::warn!(listen = %self.address, %error, "a connection was not accepted");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                            continue;
                        }
                    };
                    let (acceptor, pages, ca) = (acceptor.clone(), Arc::clone(&self.pages), Arc::clone(&ca));
                    open.spawn(async move {
                        let _place = place;
                        let served = tokio::time::timeout(LONGEST, connection(stream, acceptor, pages, ca));
                        // What a stranger does wrong is no news.
                        if let Ok(Err(error)) = served.await {
                            tracing::debug!(%error, "a connection ended");
                        }
                    });
                }
            }
        }
        let rest = async { while open.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN, rest).await;
        if let WebAddress::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }
}

async fn accept(
    listener: &Listener,
    places: &Arc<Semaphore>,
) -> io::Result<(Accepted, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    Ok((listener.accept().await?, place))
}

async fn connection(
    stream: Accepted,
    acceptor: Option<TlsAcceptor>,
    pages: Arc<Pages>,
    ca: Arc<Ca>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match (stream, acceptor) {
        (Accepted::Tcp(stream), None) => requests(stream, pages, ca).await,
        (Accepted::Unix(stream), None) => requests(stream, pages, ca).await,
        (Accepted::Tcp(stream), Some(acceptor)) => {
            let stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await??;
            requests(stream, pages, ca).await
        }
        (Accepted::Unix(stream), Some(acceptor)) => {
            let stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await??;
            requests(stream, pages, ca).await
        }
    }
}

async fn requests<S>(
    stream: S,
    pages: Arc<Pages>,
    ca: Arc<Ca>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = move |request: Request<Incoming>| {
        let (pages, ca) = (Arc::clone(&pages), Arc::clone(&ca));
        async move {
            let response: Response<Full<bytes::Bytes>> =
                pages.answer(&ca, request.method(), request.uri().path());
            Ok::<_, std::convert::Infallible>(response)
        }
    };
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_headers(64)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await?;
    Ok(())
}
