//! Certificate, key and authorities from files, read again when they change.
//!
//! ```text
//! change -> wait until nothing moves -> read -> build -> in force for the next handshake
//!                                          \______\-> refused: what was in force stays
//! ```

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::clients::Listed;
use super::{AllowList, Current, Error};
use crate::limits::Counters;
use crate::reload::notice::Notices;
use crate::reload::{self, PolicyFiles};

/// Largest file that is read, in bytes: a chain of a hundred certificates has less.
const LARGEST: u64 = 1 << 20;

/// Where the files are; all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Our certificate, intermediate ones after it.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
    /// Authorities of clients, which then need a certificate; `None` asks for none.
    pub client_ca: Option<PathBuf>,
}

impl Files {
    fn paths(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.certificate.clone(), self.key.clone()];
        paths.extend(self.client_ca.clone());
        paths
    }
}

/// The octets of all files, in the order of [`Files::paths`].
type Octets = Vec<Vec<u8>>;

/// Follows the files of one listener.
#[derive(Debug)]
pub(crate) struct Follower {
    files: Files,
    allowed: Option<AllowList>,
    alpn: &'static [u8],
    counters: Arc<Counters>,
    current: watch::Sender<Current>,
    /// What was read last, whatever became of it.
    read: Option<Octets>,
    /// Last failure to read, so that each is reported once.
    unreadable: Option<String>,
}

impl Follower {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`Error`]: a listener without a certificate is not started.
    pub(super) fn start(
        files: Files,
        allowed: Option<AllowList>,
        alpn: &'static [u8],
        counters: Arc<Counters>,
    ) -> Result<(Self, watch::Receiver<Current>), Error> {
        let (current, receiver) = watch::channel(None);
        let mut follower = Self {
            files,
            allowed,
            alpn,
            counters,
            current,
            read: None,
            unreadable: None,
        };
        let octets = octets(&follower.files)?;
        let config = follower.build(&octets)?;
        follower.current.send_replace(Some(Arc::new(config)));
        follower.read = Some(octets);
        Ok((follower, receiver))
    }

    /// Follows the files until dropped.
    pub(super) async fn run(mut self, options: reload::Options) {
        let watched = PolicyFiles {
            paths: self.files.paths(),
            candidate: Vec::new(),
        };
        let mut notices = Notices::default();
        loop {
            // A watch that was just set has not seen what happened before it.
            if !notices.arm(&watched) {
                notices.wait(options.poll).await;
            }
            self.look(options.settle).await;
        }
    }

    /// Puts in force what the files hold, if that is something new.
    async fn look(&mut self, settle: Duration) {
        let mut last = self.octets().await;
        // A new certificate is not there before its new key is.
        for _ in 0..20 {
            if last == self.read {
                return;
            }
            tokio::time::sleep(settle).await;
            let next = self.octets().await;
            if next == last {
                break;
            }
            last = next;
        }
        let Some(octets) = last else { return };
        let built = self.build(&octets);
        self.read = Some(octets);
        let certificate = self.files.certificate.display();
        match built {
            Ok(config) => {
                self.current.send_replace(Some(Arc::new(config)));
                Counters::count(&self.counters.certificates_swapped);
                tracing::info!(%certificate, "a new certificate is in force");
            }
            Err(error) => {
                Counters::count(&self.counters.certificates_refused);
                tracing::error!(%certificate, %error, "a new certificate is refused: the one before it stays in force");
            }
        }
    }

    /// `None` when one cannot be read, which is said once.
    async fn octets(&mut self) -> Option<Octets> {
        let files = self.files.clone();
        let read = tokio::task::spawn_blocking(move || octets(&files)).await;
        match read.unwrap_or_else(|error| Err(Error::Crashed(error.to_string()))) {
            Ok(octets) => {
                self.unreadable = None;
                Some(octets)
            }
            Err(error) => {
                let error = error.to_string();
                if self.unreadable.as_ref() != Some(&error) {
                    Counters::count(&self.counters.certificates_refused);
                    tracing::error!(
                        error,
                        "a certificate cannot be read anew: the one before it stays in force"
                    );
                    self.unreadable = Some(error);
                }
                None
            }
        }
    }

    fn build(&self, octets: &Octets) -> Result<ServerConfig, Error> {
        let [certificate, key, client_ca @ ..] = octets.as_slice() else {
            return Err(Error::Crashed("a file was not read".to_owned()));
        };
        let chain = certificates(&self.files.certificate, certificate)?;
        let leaf = chain.first().ok_or_else(|| Error::Pem {
            path: self.files.certificate.clone(),
            cause: "there is no `CERTIFICATE` in it".to_owned(),
        })?;
        in_time(&self.files.certificate, leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| Error::Pem {
            path: self.files.key.clone(),
            cause: format!(
                "it holds no private key that can be read, which must not be encrypted ({error})"
            ),
        })?;
        let builder = ServerConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Crashed(error.to_string()))?;
        let builder = match (&self.files.client_ca, client_ca.first()) {
            (Some(path), Some(pem)) => builder.with_client_cert_verifier(self.clients(path, pem)?),
            _ => builder.with_no_client_auth(),
        };
        let pair = |error: rustls::Error| Error::Pair {
            certificate: self.files.certificate.clone(),
            key: self.files.key.clone(),
            cause: match error {
                rustls::Error::InconsistentKeys(_) => "they do not belong together".to_owned(),
                other => other.to_string(),
            },
        };
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        super::settle(&mut config, self.alpn);
        Ok(config)
    }

    fn clients(&self, path: &Path, pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let wrong = |cause: String| Error::Pem {
            path: path.to_owned(),
            cause,
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path, pem)? {
            roots
                .add(certificate)
                .map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("there is no `CERTIFICATE` in it".to_owned()));
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), super::provider());
        let inner = verifier.build().map_err(|error| wrong(error.to_string()))?;
        Ok(match &self.allowed {
            None => inner,
            Some(allowed) => Arc::new(Listed {
                inner,
                allowed: allowed.clone(),
                counters: Arc::clone(&self.counters),
            }),
        })
    }
}

fn octets(files: &Files) -> Result<Octets, Error> {
    let read = |path: PathBuf| -> Result<Vec<u8>, Error> {
        let unreadable = |source: io::Error| Error::Unreadable {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(unreadable(io::Error::other("it is not a regular file")));
        }
        let mut octets = Vec::new();
        let mut limited = file.take(LARGEST);
        limited.read_to_end(&mut octets).map_err(unreadable)?;
        Ok(octets)
    };
    files.paths().into_iter().map(read).collect()
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(pem);
    certificates
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Pem {
            path: path.to_owned(),
            cause: error.to_string(),
        })
}

/// Nobody would connect to a server whose certificate is not valid now.
fn in_time(path: &Path, leaf: &CertificateDer<'_>) -> Result<(), Error> {
    let wrong = |cause: String| Error::Pem {
        path: path.to_owned(),
        cause,
    };
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| wrong(error.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    let validity = leaf.validity();
    if now > validity.not_after.timestamp() {
        return Err(wrong(format!("it expired on {}", validity.not_after)));
    }
    if now < validity.not_before.timestamp() {
        return Err(wrong(format!(
            "it is not valid before {}",
            validity.not_before
        )));
    }
    Ok(())
}
