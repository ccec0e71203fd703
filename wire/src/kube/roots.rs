//! The authorities of an API server, read again where they come from a file that the cluster renews.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::ConnectError;

const WHAT: &str = "certificate authority";
/// The file is looked at no more often than this.
const LOOK: Duration = Duration::from_secs(5);

/// Verifies servers by `roots`.
pub(super) fn verifier(
    roots: impl Iterator<Item = CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, ConnectError> {
    let mut store = RootCertStore::empty();
    let (added, refused) = store.add_parsable_certificates(roots);
    if added == 0 {
        let cause = format!("none that can be used, {refused} that cannot");
        return Err(ConnectError::credential(WHAT, cause));
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|cause| ConnectError::credential(WHAT, cause))
}

/// Verifies servers by the authorities in a file, as it is when a connection is made. A file that cannot be
/// used leaves the last that could.
pub(super) struct ReloadedRoots {
    path: PathBuf,
    provider: Arc<CryptoProvider>,
    current: Mutex<Current>,
}

struct Current {
    verifier: Arc<WebPkiServerVerifier>,
    modified: Option<SystemTime>,
    looked: Instant,
}

impl ReloadedRoots {
    pub(super) fn new(path: PathBuf, provider: Arc<CryptoProvider>) -> Result<Self, ConnectError> {
        let modified = modified(&path);
        let verifier = read(&path, &provider)?;
        let current = Current {
            verifier,
            modified,
            looked: Instant::now(),
        };
        Ok(Self {
            path,
            provider,
            current: Mutex::new(current),
        })
    }

    fn verifier(&self) -> Arc<WebPkiServerVerifier> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK {
            current.looked = Instant::now();
            let modified = modified(&self.path);
            if modified != current.modified {
                match read(&self.path, &self.provider) {
                    Ok(verifier) => {
                        current.verifier = verifier;
                        current.modified = modified;
                    }
                    Err(error) => tracing::warn!(
                        %error,
                        path = %self.path.display(),
                        "the authorities of the API server stay as they were"
                    ),
                }
            }
        }
        Arc::clone(&current.verifier)
    }
}

fn modified(path: &PathBuf) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|file| file.modified())
        .ok()
}

fn read(
    path: &PathBuf,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, ConnectError> {
    let refused = |cause: &dyn fmt::Display| {
        ConnectError::credential(WHAT, format!("`{}`: {cause}", path.display()))
    };
    let text = std::fs::read(path).map_err(|cause| refused(&cause))?;
    let roots = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|cause| refused(&cause))?;
    verifier(roots.into_iter(), Arc::clone(provider))
}

impl fmt::Debug for ReloadedRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadedRoots")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for ReloadedRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier().verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier()
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier()
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
