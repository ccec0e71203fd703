//! The server's identity is an SVID of our own certificate authority, and changes while clients connect.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use portcullis_ca::store::AuthorityKind;
use portcullis_tests::authority::{Leaf, tls_client};
use portcullis_tests::component::run_folder;
use portcullis_tests::portcullis::Server;
use portcullis_tests::ports::free_address;
use portcullis_tests::process::poll;
use portcullis_tests::workload::ca::{CertificateAuthority, id};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::json;
use spiffe::X509Source;
use tokio::runtime::Runtime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::PORTCULLIS;

const PATIENCE: Duration = Duration::from_secs(60);

const POLICIES: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: client, namespace: shop }
spec: { rules: [ { from: [ { source: { principals: [ example.org/client ] } } ] } ] }
---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, labels: { app: web } }
spec: { serviceAccountName: web }
status: { phase: Running }
";

/// A client whose identity is always the newest one.
struct Client {
    runtime: Runtime,
    source: X509Source,
}

impl Client {
    fn start(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        let source = runtime.block_on(async {
            let source = X509Source::builder().endpoint(format!("unix:{}", socket.display()));
            tokio::time::timeout(PATIENCE, source.build())
                .await
                .unwrap()
                .unwrap()
        });
        Self { runtime, source }
    }

    /// Asks once on a connection of its own; the status line and the server's certificate.
    fn ask(&self, address: &str) -> anyhow::Result<(String, Vec<u8>)> {
        self.ask_named(address, "authz")
    }

    /// The same of a server whose identity is `name`.
    fn ask_named(&self, address: &str, name: &str) -> anyhow::Result<(String, Vec<u8>)> {
        let svid = self.source.svid()?;
        let certificates = svid
            .cert_chain()
            .iter()
            .map(|c| pem("CERTIFICATE", c.as_bytes()));
        let leaf = Leaf {
            certificate: certificates.collect(),
            key: pem("PRIVATE KEY", svid.private_key().as_bytes()),
        };
        let client =
            ClientConnection::new(tls_client(Some(&leaf))?, ServerName::try_from("authz")?)?;
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut tls = StreamOwned::new(client, stream);
        tls.write_all(
            b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-forwarded-method: GET\r\nx-forwarded-uri: /\r\nx-forwarded-host: a\r\nx-forwarded-proto: https\r\n\r\n",
        )?;
        let mut answer = [0; 12];
        tls.read_exact(&mut answer)?;
        let peer = tls.conn.peer_certificates().unwrap()[0].to_vec();
        let (_, certificate) = X509Certificate::from_der(&peer)?;
        let names = certificate.subject_alternative_name()?.unwrap();
        let expected = id(name);
        assert_eq!(names.value.general_names, [GeneralName::URI(&expected)]);
        Ok((String::from_utf8_lossy(&answer).into_owned(), peer))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.runtime.block_on(self.source.shutdown());
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn an_svid_is_served_renewed_and_asked_of_clients() {
    let folder = run_folder("serving-svid");
    let ca = CertificateAuthority::start(&folder).unwrap();
    let ours = std::env::current_exe().unwrap();
    ca.entry("client", &format!("unix:path:{}", ours.display()))
        .unwrap();
    let (open, closed) = (free_address().unwrap(), free_address().unwrap());
    let listener = |address: std::net::SocketAddr, allowed: &str| {
        json!({
            "address": address.to_string(),
            "dialect": "traefik",
            "workload": "shop/web",
            "identity": { "source": "peer" },
            "tls": {
                "workload_api": format!("unix:{}", ca.socket().display()),
                "allowed_ids": [allowed],
            },
        })
    };
    let management = free_address().unwrap();
    let config = json!({
        "mesh": { "trustDomain": "example.org" },
        "management": { "address": management.to_string() },
        "listeners": [listener(open, "spiffe://example.org/*"), listener(closed, &id("somebody-else"))],
    });
    let manifests = [("all.yaml", POLICIES)];
    // Nobody has issued it an identity: it runs, and says that it is not ready.
    let ready = || {
        let exchange = portcullis_tests::client::Exchange::get("/readyz");
        let client = portcullis_tests::client::Client::plain(management);
        client.send(&exchange).ok()
    };
    let server = std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            Server::start(PORTCULLIS.as_ref(), &folder, &manifests, &config)
                .unwrap_or_else(|cause| panic!("{cause}"))
        });
        let why = poll(PATIENCE, || {
            ready().filter(|answer| answer.body.contains("has no certificate yet"))
        });
        assert_eq!(why.expect("it says what is missing").status, 503);
        ca.entry("authz", &format!("unix:path:{PORTCULLIS}"))
            .unwrap();
        starting.join().unwrap()
    });
    assert_eq!(ready().unwrap().status, 200);

    let client = Client::start(ca.socket());
    let (open, closed) = (open.to_string(), closed.to_string());
    let (status, first) = client.ask(&open).unwrap();
    assert_eq!(status, "HTTP/1.1 200", "{}", server.log_end());
    client.ask(&closed).unwrap_err();

    // The next authority takes over; what the old one signed is issued anew.
    let next = ca.prepare(AuthorityKind::X509).unwrap();
    ca.delivered().unwrap();
    let old = ca.activate(AuthorityKind::X509, &next).unwrap();
    assert_eq!(client.ask(&open).unwrap().0, "HTTP/1.1 200");
    ca.taint(AuthorityKind::X509, &old).unwrap();
    let mut handshakes = 0;
    let renewed = poll(PATIENCE, || {
        let (status, now) = client.ask(&open).expect("no handshake is lost");
        assert_eq!(status, "HTTP/1.1 200");
        handshakes += 1;
        (now != first).then_some(now)
    });
    assert!(
        renewed.is_some(),
        "after {handshakes} handshakes: {}",
        server.log_end()
    );
    ca.revoke(AuthorityKind::X509, &old).unwrap();
    ca.delivered().unwrap();
    let again = poll(PATIENCE, || {
        client.ask(&open).ok().filter(|(_, now)| *now != first)
    });
    assert_eq!(again.expect("an answer").0, "HTTP/1.1 200");
    client.ask(&closed).unwrap_err();
}

#[test]
fn of_several_svids_the_one_that_is_named_is_served() {
    let folder = run_folder("serving-several-svids");
    let ca = CertificateAuthority::start(&folder).unwrap();
    let ours = std::env::current_exe().unwrap();
    ca.entry("client", &format!("unix:path:{}", ours.display()))
        .unwrap();
    let of_server = format!("unix:path:{PORTCULLIS}");
    ca.entry_with_hint("one", &of_server, "first").unwrap();
    ca.entry_with_hint("two", &of_server, "second").unwrap();
    let addresses = [(); 3].map(|()| free_address().unwrap());
    let choices = [
        json!({ "hint": "second" }),
        json!({ "spiffe_id": id("one") }),
        json!({ "hint": "third" }),
    ];
    let listener = |(address, choice): (&std::net::SocketAddr, &serde_json::Value)| {
        let mut tls = choice.clone();
        tls["workload_api"] = json!(format!("unix:{}", ca.socket().display()));
        json!({
            "address": address.to_string(),
            "dialect": "traefik",
            "workload": "shop/web",
            "identity": { "source": "peer" },
            "tls": tls,
        })
    };
    let listeners: Vec<_> = addresses.iter().zip(&choices).map(listener).collect();
    let config = json!({ "mesh": { "trustDomain": "example.org" }, "listeners": listeners });
    let server = std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            Server::start(
                PORTCULLIS.as_ref(),
                &folder,
                &[("all.yaml", POLICIES)],
                &config,
            )
            .unwrap_or_else(|cause| panic!("{cause}"))
        });
        let client = Client::start(ca.socket());
        let [two, one, three] = addresses.map(|address| address.to_string());
        for (address, name) in [(&two, "two"), (&one, "one")] {
            let answer = poll(PATIENCE, || client.ask_named(address, name).ok());
            assert_eq!(answer.expect("an answer").0, "HTTP/1.1 200", "{name}");
        }
        client.ask_named(&three, "three").unwrap_err();
        // When there is one, it is served; the others stay what they are.
        ca.entry_with_hint("three", &of_server, "third").unwrap();
        let answer = poll(PATIENCE, || client.ask_named(&three, "three").ok());
        assert_eq!(answer.expect("an answer").0, "HTTP/1.1 200");
        client.ask_named(&two, "two").unwrap();
        client.ask_named(&one, "one").unwrap();
        starting.join().unwrap()
    });
    let log = server.log();
    let named = log.contains("no SVID of the Workload API is the one") && log.contains("third");
    assert!(named, "{log}");
}
