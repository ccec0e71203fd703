//! The server's identity is an SVID of our own certificate authority, and changes while clients connect.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use portcullis_ca::store::AuthorityKind;
use portcullis_tests::component::run_folder;
use portcullis_tests::portcullis::{Server, free_address};
use portcullis_tests::process::poll;
use portcullis_tests::workload::ca::{CertificateAuthority, id};
use portcullis_tests::workload::rust::RustWorkload;
use serde_json::json;

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

/// Asks once on a connection of its own; the status line and the server's certificate.
fn ask(client: &RustWorkload, address: &str) -> anyhow::Result<(String, Vec<u8>)> {
    let mut tls = client.connect(address, &id("authz"))?;
    tls.write_all(
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-forwarded-method: GET\r\nx-forwarded-uri: /\r\nx-forwarded-host: a\r\nx-forwarded-proto: https\r\n\r\n",
    )?;
    let mut answer = [0; 12];
    tls.read_exact(&mut answer)?;
    let peer = tls.conn.peer_certificates().unwrap()[0].to_vec();
    Ok((String::from_utf8_lossy(&answer).into_owned(), peer))
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

    let client = RustWorkload::start(ca.socket()).unwrap();
    let (open, closed) = (open.to_string(), closed.to_string());
    let (status, first) = ask(&client, &open).unwrap();
    assert_eq!(status, "HTTP/1.1 200", "{}", server.log_end());
    ask(&client, &closed).unwrap_err();

    // The next authority takes over; what the old one signed is issued anew.
    let next = ca.prepare(AuthorityKind::X509).unwrap();
    ca.delivered().unwrap();
    let old = ca.activate(AuthorityKind::X509, &next).unwrap();
    assert_eq!(ask(&client, &open).unwrap().0, "HTTP/1.1 200");
    ca.taint(AuthorityKind::X509, &old).unwrap();
    let mut handshakes = 0;
    let renewed = poll(PATIENCE, || {
        let (status, now) = ask(&client, &open).expect("no handshake is lost");
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
        ask(&client, &open).ok().filter(|(_, now)| *now != first)
    });
    assert_eq!(again.expect("an answer").0, "HTTP/1.1 200");
    ask(&client, &closed).unwrap_err();
}
