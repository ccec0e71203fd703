//! What a web listener shows in the handshake: files that may change, or an X.509-SVID that renews itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::ca::{Ca, Requester, X509Request};
use crate::key::{KeyAlgorithm, MemoryKey, SigningKey as _, pem};
use crate::spiffe_id::SpiffeId;
use crate::store::{AuthorityKind, AuthorityState};
use crate::x509::csr::ProvenKey;
use crate::x509::profile::LeafRequest;

/// Path of the identity of the server itself; that of SPIRE's, so that its relationships stay as they are.
const SERVER_PATH: &str = "/spire/server";

/// The certificate of a listener.
#[derive(Debug)]
pub(super) struct Certificates {
    source: Source,
    current: RwLock<Current>,
}

#[derive(Debug)]
enum Source {
    Files { certificate: PathBuf, key: PathBuf },
    Svid(SpiffeId),
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    /// Of files: when they were written.
    written: Option<[SystemTime; 2]>,
    /// Of an SVID: its authority, and half of its life.
    svid: Option<(String, SystemTime)>,
}

impl Certificates {
    /// Reads certificate and key.
    pub(super) fn of_files(certificate: PathBuf, key: PathBuf) -> Result<Self, String> {
        let current = from_files(&certificate, &key)?;
        Ok(Self {
            source: Source::Files { certificate, key },
            current: RwLock::new(current),
        })
    }

    /// Issues an SVID.
    pub(super) async fn of_svid(ca: &Ca) -> Result<Self, String> {
        let id =
            SpiffeId::new(ca.trust_domain(), SERVER_PATH).map_err(|error| error.to_string())?;
        let current = from_svid(ca, &id).await?;
        Ok(Self {
            source: Source::Svid(id),
            current: RwLock::new(current),
        })
    }

    /// Takes over what is due; what cannot be replaced stays.
    pub(super) async fn renew(&self, ca: &Ca) {
        let renewed = match &self.source {
            Source::Files { certificate, key } => {
                let written = written(certificate, key).ok();
                if written.is_none() || written == self.read(|current| current.written) {
                    return;
                }
                from_files(certificate, key)
            }
            Source::Svid(id) => {
                let is_due = self.read(|current| {
                    current.svid.as_ref().is_none_or(|(authority, renew_at)| {
                        ca.clock().now() >= *renew_at || !is_trusted(ca, authority)
                    })
                });
                if !is_due {
                    return;
                }
                from_svid(ca, id).await
            }
        };
        match renewed {
            Ok(renewed) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;
                tracing::info!("the certificate of a web listener was replaced");
            }
            Err(error) => {
                tracing::error!(%error, "the certificate of a web listener stays as it is")
            }
        }
    }

    fn read<T>(&self, what: impl FnOnce(&Current) -> T) -> T {
        what(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// TLS 1.2 and 1.3; no tickets and no stored sessions, so that every connection sees the certificate of now.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<ServerConfig, String> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.read(|current| Arc::clone(&current.key)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn is_trusted(ca: &Ca, authority: &str) -> bool {
    let set = ca.authorities();
    set.with_id(AuthorityKind::X509, authority)
        .is_some_and(|authority| {
            matches!(
                authority.row.state,
                AuthorityState::Active | AuthorityState::Old
            )
        })
}

fn written(certificate: &Path, key: &Path) -> std::io::Result<[SystemTime; 2]> {
    Ok([
        std::fs::metadata(certificate)?.modified()?,
        std::fs::metadata(key)?.modified()?,
    ])
}

fn from_files(certificate: &Path, key: &Path) -> Result<Current, String> {
    let written = written(certificate, key).ok();
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|cause| format!("cannot read `{}`: {cause}", path.display()))
    };
    let chain = pem::certificates(&read(certificate)?)
        .map_err(|cause| format!("`{}`: {cause}", certificate.display()))?;
    let pkcs8 =
        pem::private_key(&read(key)?).map_err(|cause| format!("`{}`: {cause}", key.display()))?;
    let chain = chain.iter().map(|der| CertificateDer::from(der.to_vec()));
    let certified = certified(chain.collect(), &pkcs8)?;
    Ok(Current {
        key: certified,
        written,
        svid: None,
    })
}

async fn from_svid(ca: &Ca, id: &SpiffeId) -> Result<Current, String> {
    let key = MemoryKey::generate(KeyAlgorithm::P256).map_err(|error| error.to_string())?;
    let request = X509Request {
        leaf: LeafRequest {
            spiffe_id: id.clone(),
            dns_names: Vec::new(),
            ttl: None,
            key: ProvenKey::made_here(key.public_key()).map_err(|error| error.to_string())?,
        },
        entry: None,
    };
    let now = ca.clock().now();
    let mut issued = ca
        .issue_x509(vec![request], &Requester::admin("bundle endpoint"))
        .await
        .map_err(|error| error.to_string())?;
    let issued = issued
        .pop()
        .ok_or("nothing was issued")?
        .map_err(|error| error.to_string())?;
    let chain = issued
        .chain
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()));
    let left = issued.not_after.duration_since(now).unwrap_or_default();
    Ok(Current {
        key: certified(chain.collect(), key.pkcs8())?,
        written: None,
        svid: Some((issued.authority, now.checked_add(left / 2).unwrap_or(now))),
    })
}

/// A pair that belongs together.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    pkcs8: &[u8],
) -> Result<Arc<CertifiedKey>, String> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
    CertifiedKey::from_der(chain, key, &provider())
        .map(Arc::new)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

    use super::*;
    use crate::web::{WebAddress, WebContent, WebIdentity, WebOptions, WebServer};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_is_never_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.self_signed(&key).unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("web.pem"), leaf.pem()).unwrap();
        std::fs::write(file("web.key"), key.serialize_pem()).unwrap();
        let options = crate::ca::tests::options(&file("data"));
        let clock = crate::ca::tests::TestClock::new();
        let ca = Arc::new(crate::ca::tests::open(options, &clock).await);
        let options = WebOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            identity: WebIdentity::Files {
                certificate: file("web.pem"),
                key: file("web.key"),
            },
            content: WebContent::Bundle,
        };
        let server = WebServer::bind(&ca, options).await.unwrap();
        let WebAddress::Tcp(address) = server.address().clone() else {
            panic!("an address");
        };
        tokio::spawn(server.run(ca, std::future::pending()));
        tokio::task::spawn_blocking(move || {
            for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
                let mut roots = RootCertStore::empty();
                roots.add(leaf.der().clone()).unwrap();
                // A client that would resume: rustls does by default.
                let config = ClientConfig::builder_with_provider(provider())
                    .with_protocol_versions(versions)
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                let config = Arc::new(config);
                for _ in 0..3 {
                    let name = "localhost".try_into().unwrap();
                    let client = ClientConnection::new(Arc::clone(&config), name).unwrap();
                    let tcp = TcpStream::connect(address).unwrap();
                    let mut stream = StreamOwned::new(client, tcp);
                    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
                    stream.write_all(request).unwrap();
                    let mut answer = Vec::new();
                    let _ = stream.read_to_end(&mut answer);
                    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
                    assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full));
                }
            }
        })
        .await
        .unwrap();
    }
}
