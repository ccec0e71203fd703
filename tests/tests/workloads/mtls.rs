//! Rust services with the configurations of `portcullis-mtls`: no gap at an update, nobody who is not meant.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis_ca::store::AuthorityKind;
use portcullis_mtls::{Identity, SpiffeId, any, exact, peer_id, trust_domains};
use portcullis_tests::component::run_folder;
use portcullis_tests::workload::ca::{CertificateAuthority, id};
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const LIMIT: Duration = Duration::from_secs(30);

struct Stage {
    runtime: Runtime,
    ca: CertificateAuthority,
}

/// What came of one connection.
#[derive(Debug)]
struct Met {
    /// Whom the client met.
    server: SpiffeId,
    /// Whom the server met.
    client: SpiffeId,
    server_certificate: Vec<u8>,
    kind: Option<HandshakeKind>,
}

impl Stage {
    /// An authority where whoever runs as our user is `/self`.
    fn new(name: &str) -> Self {
        let ca = CertificateAuthority::start(&run_folder(name)).unwrap();
        let uid = format!("unix:uid:{}", rustix::process::getuid().as_raw());
        ca.entry("self", &uid).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        Self { runtime, ca }
    }

    fn endpoint(&self) -> String {
        format!("unix:{}", self.ca.socket().display())
    }

    fn identity(&self) -> Identity {
        let builder = Identity::builder().endpoint(self.endpoint()).timeout(LIMIT);
        self.runtime.block_on(builder.connect()).unwrap()
    }

    fn meet(&self, client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> anyhow::Result<Met> {
        let both = meet(Arc::clone(client), Arc::clone(server));
        self.runtime
            .block_on(async { tokio::time::timeout(LIMIT, both).await })?
    }
}

/// One handshake over a pipe, and a word in either direction.
async fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> anyhow::Result<Met> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let accepted = async {
        let mut tls = TlsAcceptor::from(server).accept(far).await?;
        let who = peer_id(tls.get_ref().1.peer_certificates())?;
        tls.write_all(b"pong").await?;
        tls.shutdown().await?;
        anyhow::Ok(who)
    };
    let connected = async {
        let name = "workload.invalid".try_into()?;
        let mut tls = TlsConnector::from(client).connect(name, near).await?;
        let mut said = Vec::new();
        tls.read_to_end(&mut said).await?;
        anyhow::ensure!(said == b"pong", "it said {said:?}");
        let certificates = tls.get_ref().1.peer_certificates();
        let der = certificates.unwrap().first().unwrap().to_vec();
        anyhow::Ok((
            peer_id(certificates)?,
            der,
            tls.get_ref().1.handshake_kind(),
        ))
    };
    let (client, server) = tokio::join!(accepted, connected);
    // What the server says of it is what made the client fail.
    let client = client?;
    let (server, server_certificate, kind) = server?;
    Ok(Met {
        server,
        client,
        server_certificate,
        kind,
    })
}

#[test]
fn no_handshake_falls_between_an_update_and_its_use() {
    let stage = Stage::new("mtls-updates");
    // Made once, kept for good: what a service does.
    let identity = stage.identity();
    let server = Arc::new(identity.server(exact([id("self")]).unwrap()).unwrap());
    let client = Arc::new(
        stage
            .identity()
            .client(exact([id("self")]).unwrap())
            .unwrap(),
    );
    let (stop, mut met) = (AtomicBool::new(false), Vec::new());
    std::thread::scope(|scope| {
        let talking: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut met = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        met.push(stage.meet(&client, &server).unwrap());
                    }
                    met
                })
            })
            .collect();
        // Each round: another bundle, then another SVID, then an SVID under another root.
        for _ in 0..6 {
            let next = stage.ca.prepare(AuthorityKind::X509).unwrap();
            stage.ca.delivered().unwrap();
            let before = stage.ca.activate(AuthorityKind::X509, &next).unwrap();
            stage.ca.taint(AuthorityKind::X509, &before).unwrap();
            let serial = || identity.svid().unwrap().cert_chain()[0].as_bytes().to_vec();
            let old = serial();
            let start = Instant::now();
            while serial() == old && start.elapsed() < Duration::from_secs(1) {
                std::thread::sleep(Duration::from_millis(5));
            }
            stage.ca.delivered().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for thread in talking {
            met.extend(thread.join().unwrap());
        }
    });
    let leaves: BTreeSet<_> = met.iter().map(|met| &met.server_certificate).collect();
    assert!(leaves.len() >= 6, "{} SVIDs were seen", leaves.len());
    assert!(met.len() > 100, "{} handshakes", met.len());
}

#[test]
fn only_who_is_meant_gets_through_and_sessions_are_not_resumed() {
    let stage = Stage::new("mtls-peers");
    let identity = stage.identity();
    let me: SpiffeId = id("self").parse().unwrap();
    let server = |config: Result<ServerConfig, portcullis_mtls::Error>| Arc::new(config.unwrap());
    let client = |config: Result<ClientConfig, portcullis_mtls::Error>| Arc::new(config.unwrap());
    let everybody = (
        client(identity.client(any())),
        server(identity.server(any())),
    );
    for _ in 0..3 {
        let met = stage.meet(&everybody.0, &everybody.1).unwrap();
        assert_eq!((&met.server, &met.client), (&me, &me));
        assert_eq!(met.kind, Some(HandshakeKind::Full));
    }
    let ours = || trust_domains(["example.org"]).unwrap();
    stage
        .meet(
            &client(identity.client(ours())),
            &server(identity.server(ours())),
        )
        .unwrap();
    let closure = |id: &SpiffeId| id.path().ends_with("/self");
    stage
        .meet(
            &client(identity.client(closure)),
            &server(identity.server(closure)),
        )
        .unwrap();

    let other = || exact([id("other")]).unwrap();
    let refused = stage
        .meet(&everybody.0, &server(identity.server(other())))
        .unwrap_err();
    assert!(
        format!("{refused:#}").contains("ApplicationVerificationFailure"),
        "{refused:#}"
    );
    let refused = stage
        .meet(&client(identity.client(other())), &everybody.1)
        .unwrap_err();
    assert!(
        format!("{refused:#}").contains("AccessDenied"),
        "{refused:#}"
    );
    let foreign = || trust_domains(["example.net"]).unwrap();
    stage
        .meet(&everybody.0, &server(identity.server(foreign())))
        .unwrap_err();
}

#[test]
fn an_identity_of_several_is_told_by_its_hint() {
    let stage = Stage::new("mtls-hint");
    let uid = format!("unix:uid:{}", rustix::process::getuid().as_raw());
    stage
        .ca
        .entry_with_hint("billing", &uid, "billing")
        .unwrap();
    let hinted = Identity::builder()
        .endpoint(stage.endpoint())
        .hint("billing")
        .timeout(LIMIT);
    let billing = stage.runtime.block_on(hinted.connect()).unwrap();
    assert_eq!(billing.id().unwrap().to_string(), id("billing"));
    let server = Arc::new(stage.identity().server(any()).unwrap());
    let met = stage.meet(&Arc::new(billing.client(any()).unwrap()), &server);
    assert_eq!(met.unwrap().client.to_string(), id("billing"));

    let absent = Identity::builder()
        .endpoint(stage.endpoint())
        .hint("absent")
        .timeout(Duration::from_millis(300));
    let error = stage.runtime.block_on(absent.connect()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("no identity from the Workload API"),
        "{error}"
    );
}

#[test]
fn a_workload_that_is_registered_no_longer_presents_nothing() {
    let stage = Stage::new("mtls-withdrawn");
    let identity = stage.identity();
    let server = Arc::new(identity.server(any()).unwrap());
    let client = Arc::new(identity.client(any()).unwrap());
    stage.meet(&client, &server).unwrap();
    stage.ca.delete_all().unwrap();
    let start = Instant::now();
    while identity.svid().is_ok() {
        assert!(start.elapsed() < LIMIT, "the identity stays");
        std::thread::sleep(Duration::from_millis(10));
    }
    stage.meet(&client, &server).unwrap_err();
    // And it is one again, without anything being made anew.
    let uid = format!("unix:uid:{}", rustix::process::getuid().as_raw());
    stage.ca.entry("self", &uid).unwrap();
    let start = Instant::now();
    while stage.meet(&client, &server).is_err() {
        assert!(start.elapsed() < LIMIT, "no identity again");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn peers_made_with_spiffe_rustls_are_understood() {
    let stage = Stage::new("mtls-interop");
    let identity = stage.identity();
    let source = identity.source().clone();
    let (theirs_client, theirs_server) = stage.runtime.block_on(async {
        (
            spiffe_rustls::mtls_client(source.clone()).build().unwrap(),
            spiffe_rustls::mtls_server(source).build().unwrap(),
        )
    });
    let ours = identity.server(exact([id("self")]).unwrap()).unwrap();
    stage
        .meet(&Arc::new(theirs_client), &Arc::new(ours))
        .unwrap();
    let ours = identity.client(exact([id("self")]).unwrap()).unwrap();
    stage
        .meet(&Arc::new(ours), &Arc::new(theirs_server))
        .unwrap();
}
