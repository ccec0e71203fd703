//! TLS: who may connect, certificates that change, sessions that are never resumed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_authz::client::Client;
use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::http::{Dialect, IdentitySource, TrustList, identity};
use portcullis_authz::server::{ListenerOptions, Protocol, ServeError, Server};
use portcullis_authz::tls::{AllowList, Error, Files, Options, Source};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use super::support::*;

const ENVOY: &str = "spiffe://example.org/ns/ingress/sa/envoy";
const OTHER: &str = "spiffe://example.org/ns/shop/sa/web";

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn leaf(&self, uris: &[&str], days: i64) -> Pair {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::ExplicitNoCa;
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(names);
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(30);
        params.not_after = now + time::Duration::days(days);
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    // Whole, by rename, as a mounted secret changes.
    let staged = folder.join(format!(".{name}"));
    std::fs::write(&staged, text).unwrap();
    std::fs::rename(staged, folder.join(name)).unwrap();
}

struct Stage {
    authority: Authority,
    policies: TempDir,
    secrets: TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self {
            authority: Authority::new(),
            policies: folder(&[
                ("inventory.yaml", INVENTORY),
                ("p.yaml", &allow("/public*")),
            ]),
            secrets: tempfile::tempdir().unwrap(),
        };
        stage.write(&stage.authority.leaf(&[], 30));
        write(stage.secrets.path(), "ca.crt", &stage.authority.pem());
        stage
    }

    fn write(&self, pair: &Pair) {
        write(self.secrets.path(), "tls.crt", &pair.certificate);
        write(self.secrets.path(), "tls.key", &pair.key);
    }

    fn tls(&self, allowed: &[&str]) -> Options {
        let path = |name: &str| self.secrets.path().join(name);
        Options {
            source: Source::Files(Files {
                certificate: path("tls.crt"),
                key: path("tls.key"),
                client_ca: Some(path("ca.crt")),
            }),
            allowed: (!allowed.is_empty())
                .then(|| AllowList::new(allowed.iter().map(|id| id.parse().unwrap()).collect())),
        }
    }

    async fn start(&self, allowed: &[&str]) -> Running {
        let listener = ListenerOptions {
            tls: Some(self.tls(allowed)),
            ..tcp()
        };
        Running::start(options(self.policies.path(), vec![listener])).await
    }

    /// A gRPC client that shows `pair`; every connection of it is a new one.
    async fn client(
        &self,
        running: &Running,
        pair: Option<&Pair>,
    ) -> Result<Client, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .domain_name("localhost");
        if let Some(pair) = pair {
            tls = tls.identity(Identity::from_pem(&pair.certificate, &pair.key));
        }
        let channel = Channel::from_shared(format!("https://{}", address(running))).unwrap();
        let channel = channel.tls_config(tls).unwrap().connect().await?;
        Ok(Client::over(&running.endpoints[0], channel))
    }

    /// Whether a client that shows `pair` gets an answer.
    async fn answers(&self, running: &Running, pair: Option<&Pair>) -> bool {
        match self.client(running, pair).await {
            Err(_) => false,
            Ok(mut client) => {
                let asked = client.check(tonic::Request::new(get("/public")));
                let answer = within("an end", asked).await;
                answer.is_ok_and(|answer| reason(&answer) == "allowed_by")
            }
        }
    }

    /// The server's certificate of a new connection.
    async fn served(&self, running: &Running, pair: &Pair) -> CertificateDer<'static> {
        let config = self.rustls(pair);
        let stream = TcpStream::connect(address(running)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        tls.get_ref().1.peer_certificates().unwrap()[0]
            .clone()
            .into_owned()
    }

    fn rustls(&self, pair: &Pair) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![certificate],
                PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

fn address(running: &Running) -> SocketAddr {
    match &running.endpoints[0] {
        Endpoint::Tcp(address) => *address,
        other => panic!("{other}"),
    }
}

async fn counted(what: &str, counter: &AtomicU64, wanted: u64) {
    let start = Instant::now();
    while counter.load(Ordering::Relaxed) < wanted {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_identities_on_the_list_are_answered() {
    let stage = Stage::new();
    let running = stage
        .start(&[ENVOY, "spiffe://example.org/ns/edge/*"])
        .await;
    for id in [ENVOY, "spiffe://example.org/ns/edge/sa/any"] {
        let pair = stage.authority.leaf(&[id], 30);
        assert!(stage.answers(&running, Some(&pair)).await, "{id}");
    }
    let refused = &running.counters.peers_refused;
    assert_eq!(refused.load(Ordering::Relaxed), 0);
    let other = stage.authority.leaf(&[OTHER], 30);
    let nobody = stage.authority.leaf(&[], 30);
    let both = stage.authority.leaf(&[ENVOY, OTHER], 30);
    for pair in [&other, &nobody, &both] {
        assert!(!stage.answers(&running, Some(pair)).await);
    }
    assert!(refused.load(Ordering::Relaxed) >= 3);
    let expired = stage.authority.leaf(&[ENVOY], -1);
    let foreign = Authority::new().leaf(&[ENVOY], 30);
    assert!(!stage.answers(&running, Some(&expired)).await);
    assert!(!stage.answers(&running, Some(&foreign)).await);
    assert!(!stage.answers(&running, None).await, "no certificate");
    assert!(running.counters.handshakes_failed.load(Ordering::Relaxed) >= 6);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_swapped_under_load_and_a_broken_pair_is_not() {
    let stage = Arc::new(Stage::new());
    let running = Arc::new(stage.start(&[ENVOY]).await);
    let envoy = Arc::new(stage.authority.leaf(&[ENVOY], 30));
    let first = stage.served(&running, &envoy).await;

    let done = Arc::new(AtomicBool::new(false));
    let load = {
        let (stage, running) = (Arc::clone(&stage), Arc::clone(&running));
        let (envoy, done) = (Arc::clone(&envoy), Arc::clone(&done));
        tokio::spawn(async move {
            let mut old = stage.client(&running, Some(&envoy)).await.unwrap();
            let mut checks = 0_u32;
            while !done.load(Ordering::Relaxed) {
                // One on the connection that was open before, one on a new one.
                assert_eq!(ask(&mut old, "/public").await, "allowed_by");
                assert!(
                    stage.answers(&running, Some(&envoy)).await,
                    "a check was lost"
                );
                checks += 2;
            }
            checks
        })
    };
    let swapped = &running.counters.certificates_swapped;
    stage.write(&stage.authority.leaf(&[], 30));
    counted("the new certificate is in force", swapped, 1).await;
    let second = stage.served(&running, &envoy).await;
    assert_ne!(first, second);

    let refused = &running.counters.certificates_refused;
    let strange = stage.authority.leaf(&[], 30);
    let expired = stage.authority.leaf(&[], -1);
    for (count, (name, text)) in (1..).zip([
        ("tls.crt", &*strange.certificate),
        ("tls.crt", "no certificate"),
        ("tls.crt", &expired.certificate),
        ("ca.crt", ""),
    ]) {
        write(stage.secrets.path(), name, text);
        counted(text, refused, count).await;
        assert_eq!(stage.served(&running, &envoy).await, second, "{text}");
    }
    write(stage.secrets.path(), "ca.crt", &stage.authority.pem());
    stage.write(&strange);
    counted("what is mended is in force", swapped, 2).await;
    assert_ne!(stage.served(&running, &envoy).await, second);

    // Another authority of clients: the old one's certificates are no good any more.
    let next = Authority::new();
    write(
        stage.secrets.path(),
        "ca.crt",
        &format!("{}{}", stage.authority.pem(), next.pem()),
    );
    counted("both authorities", swapped, 3).await;
    assert!(
        stage
            .answers(&running, Some(&next.leaf(&[ENVOY], 30)))
            .await
    );
    done.store(true, Ordering::Relaxed);
    let checks = within("the load ends", load).await.unwrap();
    assert!(checks > 0);
    write(stage.secrets.path(), "ca.crt", &next.pem());
    counted("the new authority alone", swapped, 4).await;
    assert!(!stage.answers(&running, Some(&envoy)).await);
    Arc::into_inner(running).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_never_resumed() {
    let stage = Stage::new();
    let running = stage.start(&[ENVOY]).await;
    let pair = stage.authority.leaf(&[ENVOY], 30);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut config = stage.rustls(&pair);
        config = {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut roots = rustls::RootCertStore::empty();
            let root = stage.authority.pem();
            roots
                .add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
                .unwrap();
            let mut one = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_client_cert_resolver(config.client_auth_cert_resolver.clone());
            one.alpn_protocols = config.alpn_protocols.clone();
            one
        };
        // This client would resume.
        let config = Arc::new(config);
        for _ in 0..3 {
            let stream = TcpStream::connect(address(&running)).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let connector = TlsConnector::from(Arc::clone(&config));
            let mut tls = connector.connect(name, stream).await.unwrap();
            // Tickets would come with the first octets of the server.
            tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
                .await
                .unwrap();
            let mut octets = [0; 9];
            within("the server's settings", tls.read_exact(&mut octets))
                .await
                .unwrap();
            let kind = tls.get_ref().1.handshake_kind().unwrap();
            assert_eq!(kind, rustls::HandshakeKind::Full);
        }
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_the_identity_of_the_connection_is_the_peer() {
    let stage = Stage::new();
    let policy = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: a}}
  rules: [{from: [{source: {principals: ["example.org/ns/shop/sa/web"]}}]}]
"#;
    std::fs::write(stage.policies.path().join("p.yaml"), policy).unwrap();
    let mut http = portcullis_authz::http::Options::new(Dialect::Traefik);
    http.workload = Some("foo/a".to_owned());
    http.identity = Some(identity::Options {
        source: IdentitySource::Peer,
        require_svid: true,
    });
    http.trusted = TrustList::default();
    let listener = ListenerOptions {
        protocol: Protocol::Http(Box::new(http)),
        tls: Some(stage.tls(&[])),
        ..tcp()
    };
    let mut options = options(stage.policies.path(), vec![listener]);
    options.settings.mesh.trust_domain = Some("example.org".into());
    let running = Running::start(options).await;
    for (id, status) in [(OTHER, "200"), (ENVOY, "403")] {
        let config = stage.rustls(&stage.authority.leaf(&[id], 30));
        let stream = TcpStream::connect(address(&running)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let mut tls = connector.connect(name, stream).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-forwarded-method: GET\r\nx-forwarded-uri: /\r\nx-forwarded-host: a\r\nx-forwarded-proto: https\r\n\r\n";
        tls.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = within("an answer", tls.read_to_end(&mut answer)).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{id}: {answer}"
        );
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_without_a_good_certificate_is_not_started() {
    let stage = Stage::new();
    let start = || async {
        let listener = ListenerOptions {
            tls: Some(stage.tls(&[])),
            ..tcp()
        };
        match Server::start(options(stage.policies.path(), vec![listener])).await {
            Err(ServeError::Tls { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    let strange = stage.authority.leaf(&[], 30);
    write(stage.secrets.path(), "tls.key", &strange.key);
    let error = start().await;
    assert!(matches!(error, Error::Pair { .. }), "{error}");
    assert!(
        error.to_string().ends_with("they do not belong together"),
        "{error}"
    );
    stage.write(&stage.authority.leaf(&[], -1));
    let error = start().await;
    assert!(error.to_string().contains("it expired on "), "{error}");
    std::fs::remove_file(stage.secrets.path().join("tls.key")).unwrap();
    let error = start().await;
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
}
