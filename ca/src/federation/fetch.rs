//! Fetching a bundle: TLS as the profile says, bounded in time, length and redirects.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::verifier::SpiffeEndpoint;
use super::{EndpointProfile, EndpointUrl, UrlError};
use crate::bundle::{Bundle, MAX_DOCUMENT};
use crate::key::pem;

/// Redirects that are followed (SPIFFE Federation §5.2.1).
const MOST_REDIRECTS: usize = 3;
/// Addresses of one host that are tried.
const MOST_ADDRESSES: usize = 4;

/// Why no bundle came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Nobody there, or not who it should be.
    #[error("cannot fetch `{url}`: {cause}")]
    Unreachable {
        /// Where.
        url: EndpointUrl,
        /// Why.
        cause: String,
    },
    /// Not a document.
    #[error("`{url}` answered {status}")]
    Status {
        /// Where.
        url: EndpointUrl,
        /// HTTP status.
        status: u16,
    },
    /// Too long a document.
    #[error("`{0}` sent more than 8 MiB")]
    TooLong(EndpointUrl),
    /// Too slow.
    #[error("`{url}` took longer than {limit:?}")]
    TimedOut {
        /// Where.
        url: EndpointUrl,
        /// How long it may take.
        limit: Duration,
    },
    /// Redirects without end.
    #[error("`{0}` redirects more than 3 times")]
    Redirects(EndpointUrl),
    /// A redirect that is not followed.
    #[error("`{url}` redirects to where we do not go: {cause}")]
    Redirect {
        /// Where.
        url: EndpointUrl,
        /// Why.
        cause: UrlError,
    },
}

/// What hosts of the profile https_web are verified with: the platform's authorities, and those of a file.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

/// A file of authorities that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the certificate authorities in `{}`: {cause}", path.display())]
pub struct RootsError {
    path: PathBuf,
    cause: String,
}

impl Roots {
    /// Reads them.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn read(file: Option<&Path>) -> Result<Self, RootsError> {
        let mut roots = RootCertStore::empty();
        // A store with one bad certificate is still a store.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = file {
            let failed = |cause: String| RootsError {
                path: path.to_owned(),
                cause,
            };
            let text = std::fs::read_to_string(path).map_err(|cause| failed(cause.to_string()))?;
            let read = pem::certificates(&text).map_err(|cause| failed(cause.to_string()))?;
            for certificate in read {
                roots
                    .add(CertificateDer::from(certificate.to_vec()))
                    .map_err(|cause| failed(cause.to_string()))?;
            }
        }
        Ok(Self(Arc::new(roots)))
    }
}

/// How an endpoint is authenticated, with everything that needs.
pub(super) enum Authentication<'a> {
    Web(&'a Roots),
    Spiffe(&'a EndpointProfile, Arc<Bundle>),
}

/// The document at `url`, redirects followed, within `limit`.
pub(super) async fn get(
    url: &EndpointUrl,
    authentication: Authentication<'_>,
    limit: Duration,
) -> Result<Bytes, FetchError> {
    let tls = client_config(authentication).map_err(|cause| FetchError::Unreachable {
        url: url.clone(),
        cause: cause.to_string(),
    })?;
    let following = async {
        let mut at = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            match once(&at, &tls).await? {
                Fetched::Document(bytes) => return Ok(bytes),
                // Followed now and forgotten: the next time the configured address is asked again.
                Fetched::Elsewhere(location) => {
                    at = at
                        .resolve(&location)
                        .map_err(|cause| FetchError::Redirect { url: at, cause })?;
                }
            }
        }
        Err(FetchError::Redirects(url.clone()))
    };
    tokio::time::timeout(limit, following)
        .await
        .unwrap_or_else(|_| {
            Err(FetchError::TimedOut {
                url: url.clone(),
                limit,
            })
        })
}

fn client_config(authentication: Authentication<'_>) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let mut config = match authentication {
        Authentication::Spiffe(EndpointProfile::HttpsSpiffe(id), bundle) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(SpiffeEndpoint {
                id: id.clone(),
                bundle,
                provider,
            }))
            .with_no_client_auth(),
        Authentication::Web(Roots(roots)) => builder
            .with_root_certificates(Arc::clone(roots))
            .with_no_client_auth(),
        // Nobody is trusted where nothing says whom.
        Authentication::Spiffe(EndpointProfile::HttpsWeb, _) => builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
    };
    // A resumed session would be that of the bundle before.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

enum Fetched {
    Document(Bytes),
    Elsewhere(String),
}

async fn once(url: &EndpointUrl, tls: &TlsConnector) -> Result<Fetched, FetchError> {
    let failed = |cause: String| FetchError::Unreachable {
        url: url.clone(),
        cause,
    };
    let tcp = connect(url)
        .await
        .map_err(|cause| failed(cause.to_string()))?;
    let name =
        ServerName::try_from(url.host().to_owned()).map_err(|cause| failed(cause.to_string()))?;
    let stream = tls
        .connect(name, tcp)
        .await
        .map_err(|cause| failed(handshake(&cause)))?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(64)
        .max_buf_size(64 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|cause| failed(cause.to_string()))?;
    // Ends with this function, however that ends: nothing of a slow endpoint stays behind.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let agent = HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
    let request = Request::get(url.path())
        .header(HOST, url.host_header())
        .header(ACCEPT, HeaderValue::from_static("application/json"))
        .header(USER_AGENT, agent)
        .header(CONNECTION, HeaderValue::from_static("close"))
        .body(Empty::<Bytes>::new())
        .map_err(|cause| failed(cause.to_string()))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|cause| failed(cause.to_string()))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|value| value.to_str().ok());
            return location
                .map(|location| Fetched::Elsewhere(location.to_owned()))
                .ok_or_else(|| failed("a redirect to nowhere".to_owned()));
        }
        status => {
            return Err(FetchError::Status {
                url: url.clone(),
                status: status.as_u16(),
            });
        }
    }
    match Limited::new(response.into_body(), MAX_DOCUMENT)
        .collect()
        .await
    {
        Ok(body) => Ok(Fetched::Document(body.to_bytes())),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(FetchError::TooLong(url.clone()))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Why a handshake failed: in our own words where we refused the peer.
fn handshake(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(ours))) => {
            ours.0.to_string()
        }
        _ => error.to_string(),
    }
}

async fn connect(url: &EndpointUrl) -> std::io::Result<TcpStream> {
    let addresses = tokio::net::lookup_host((url.host(), url.port())).await?;
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address");
    for address in addresses.take(MOST_ADDRESSES) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
