//! Fetching what issuers publish: key sets and OpenID configurations, and nothing else.
//!
//! Addresses stand in manifests, which tenants write; a request of ours to whatever a tenant names
//! would reach what only we can reach. So only hosts that the configuration names are asked, over
//! https unless the host is this machine; a redirect is held to the same rules; length and time are
//! bounded.

mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

pub use self::target::{AllowedHost, BadHost};
use self::target::{Scheme, Target};

/// Longest answer, in octets.
const LONGEST: usize = 1 << 20;
/// Redirects that are followed.
const MOST_REDIRECTS: usize = 3;

/// Why there is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The address is none that we ask.
    #[error("`{0}` is not fetched: {1}")]
    Refused(String, &'static str),
    /// Nobody there, or not who it should be.
    #[error("cannot fetch `{0}`: {1}")]
    Unreachable(String, String),
    /// Not a document.
    #[error("`{0}` answered {1}")]
    Status(String, u16),
    /// Too long a document.
    #[error("`{0}` sent more than 1 MiB")]
    TooLong(String),
    /// Too slow.
    #[error("`{0}` took longer than {1:?}")]
    TimedOut(String, Duration),
    /// Redirects without end.
    #[error("`{0}` redirects more than 3 times")]
    Redirects(String),
}

/// Fetches documents from hosts that are allowed.
#[derive(Clone)]
pub struct Fetcher {
    hosts: Arc<[AllowedHost]>,
    tls: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher")
            .field("hosts", &self.hosts)
            .finish()
    }
}

/// Why there is no fetcher.
#[derive(Debug, thiserror::Error)]
pub enum FetcherError {
    /// The file of authorities cannot be read.
    #[error("cannot read the certificate authorities in `{}`: {source}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// An authority is none.
    #[error("`{}` has a certificate that is no authority: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Fetcher {
    /// A fetcher for `hosts`, which trusts the platform's certificate authorities and those of a PEM
    /// file.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn new(hosts: Vec<AllowedHost>, ca_file: Option<PathBuf>) -> Result<Self, FetcherError> {
        let mut roots = rustls::RootCertStore::empty();
        if !hosts.is_empty() {
            // A store with one bad certificate is still a store.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if let Some(path) = ca_file {
            let read = CertificateDer::pem_file_iter(&path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let certificates = read.map_err(|source| FetcherError::Authorities {
                path: path.clone(),
                source,
            })?;
            for certificate in certificates {
                roots
                    .add(certificate)
                    .map_err(|source| FetcherError::Authority {
                        path: path.clone(),
                        source,
                    })?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            hosts: hosts.into(),
            tls: Arc::new(tls),
        })
    }

    /// The document at `url`, redirects followed, within `limit`.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get(&self, url: &str, limit: Duration) -> Result<Bytes, FetchError> {
        let following = async {
            let mut url = url.to_owned();
            for _ in 0..=MOST_REDIRECTS {
                let target = self.target(&url)?;
                match self.once(&url, &target).await? {
                    Fetched::Document(bytes) => return Ok(bytes),
                    Fetched::Elsewhere(location) => url = target.resolve(&location),
                }
            }
            Err(FetchError::Redirects(url))
        };
        tokio::time::timeout(limit, following)
            .await
            .unwrap_or_else(|_| Err(FetchError::TimedOut(url.to_owned(), limit)))
    }

    /// Whether `url` may be fetched at all.
    ///
    /// # Errors
    /// [`FetchError::Refused`].
    pub fn allows(&self, url: &str) -> Result<(), FetchError> {
        self.target(url).map(|_| ())
    }

    fn target(&self, url: &str) -> Result<Target, FetchError> {
        let refused = |why| FetchError::Refused(shown(url), why);
        let target = Target::parse(url).ok_or_else(|| refused("it is no http or https address"))?;
        if !self.hosts.iter().any(|host| host.allows(&target)) {
            return Err(refused("its host is not among `tokens.hosts`"));
        }
        if target.scheme == Scheme::Http && !target.is_this_machine() {
            return Err(refused("only https is fetched from another machine"));
        }
        Ok(target)
    }

    async fn once(&self, url: &str, target: &Target) -> Result<Fetched, FetchError> {
        let failed =
            |error: &dyn std::fmt::Display| FetchError::Unreachable(shown(url), error.to_string());
        let tcp = target.connect().await.map_err(|error| failed(&error))?;
        match target.scheme {
            Scheme::Http => exchange(tcp, url, target).await,
            Scheme::Https => {
                let host = target.host.trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).map_err(|error| failed(&error))?;
                let tls = TlsConnector::from(Arc::clone(&self.tls));
                let stream = tls
                    .connect(name, tcp)
                    .await
                    .map_err(|error| failed(&error))?;
                exchange(stream, url, target).await
            }
        }
    }
}

enum Fetched {
    Document(Bytes),
    Elsewhere(String),
}

async fn exchange<S>(stream: S, url: &str, target: &Target) -> Result<Fetched, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed =
        |error: &dyn std::fmt::Display| FetchError::Unreachable(shown(url), error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(64)
        .max_buf_size(64 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    // Ends with this function, however that ends: nothing of a slow issuer stays behind.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let host = if target.port == target.scheme.port() {
        target.host.clone()
    } else {
        format!("{}:{}", target.host, target.port)
    };
    let request = Request::get(target.path.as_str())
        .header(HOST, host)
        .header(
            ACCEPT,
            HeaderValue::from_static("application/json, application/jwk-set+json"),
        )
        .header(
            USER_AGENT,
            HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION"))),
        )
        .header(CONNECTION, HeaderValue::from_static("close"))
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| failed(&error))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|value| value.to_str().ok());
            let nowhere = || failed(&"a redirect to nowhere");
            return Ok(Fetched::Elsewhere(location.ok_or_else(nowhere)?.to_owned()));
        }
        status => return Err(FetchError::Status(shown(url), status.as_u16())),
    }
    let body = Limited::new(response.into_body(), LONGEST).collect().await;
    match body {
        Ok(body) => Ok(Fetched::Document(body.to_bytes())),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(FetchError::TooLong(shown(url)))
        }
        Err(error) => Err(failed(&error)),
    }
}

/// An address as a log may have it: short, and without secrets in its query.
fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    plain
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &[&str], url: &str) -> Result<(), String> {
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let fetcher = Fetcher::new(hosts, None).unwrap();
        fetcher.allows(url).map_err(|error| error.to_string())
    }

    #[test]
    fn only_configured_hosts_are_asked() {
        let hosts = [
            "login.example.com",
            "*.auth.example.com",
            "keys.example.com:8443",
        ];
        for url in [
            "https://login.example.com/keys",
            "https://LOGIN.example.com:443/keys?a=b",
            "https://a.b.auth.example.com/",
            "https://keys.example.com:8443",
        ] {
            assert_eq!(check(&hosts, url), Ok(()), "{url}");
        }
        for url in [
            "https://login.example.com:8443/keys",
            "https://keys.example.com/",
            "https://auth.example.com/",
            "https://.auth.example.com/",
            "https://evilauth.example.com/",
            "https://login.example.com.evil.com/",
            "https://evil.com/login.example.com",
            "https://login.example.com@evil.com/",
            "https://evil.com#@login.example.com/",
            "https://user@login.example.com/",
            "https://login.example.com:99999/",
            "https://169.254.169.254/latest/meta-data",
            "ftp://login.example.com/",
            "file:///etc/passwd",
            "login.example.com/keys",
            "/keys",
            "",
        ] {
            assert!(check(&hosts, url).is_err(), "{url}");
        }
        assert!(check(&[], "https://login.example.com/").is_err());
    }

    #[test]
    fn only_this_machine_is_asked_in_the_clear() {
        let hosts = [
            "login.example.com",
            "127.0.0.1:8080",
            "localhost:8080",
            "[::1]:8080",
            "10.0.0.1:80",
        ];
        for url in [
            "http://127.0.0.1:8080/keys",
            "http://localhost:8080/keys",
            "http://[::1]:8080/keys",
            "https://127.0.0.1:8080/keys",
        ] {
            assert_eq!(check(&hosts, url), Ok(()), "{url}");
        }
        for url in [
            "http://login.example.com/",
            "http://10.0.0.1/",
            "http://127.0.0.1/",
        ] {
            assert!(check(&hosts, url).is_err(), "{url}");
        }
    }
}
