//! Every kind of certificate that we issue, verified by Go: key types, authorities, and lengths at which DER changes its form.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_ca::ca::{Ca, KeyStorage, Options, Requester, X509Request};
use portcullis_ca::clock::SystemClock;
use portcullis_ca::key::KeyAlgorithm;
use portcullis_ca::spiffe_id::SpiffeId;
use portcullis_ca::trust_domain::TrustDomain;
use portcullis_ca::x509::csr::ProvenKey;
use portcullis_ca::x509::profile::LeafRequest;
use portcullis_tests::component::{self, go_spiffe};
use serde_json::{Value, json};

/// The client in Go, told to do `what` with `input`.
fn go(client: &std::path::Path, what: &str, input: &str) -> String {
    let mut child = Command::new(client)
        .arg(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = std::thread::spawn(move || to.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // Whoever refuses one line does not read the rest.
    let _ = writing.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{what}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// SPIFFE IDs, DNS names and lifetimes at the edges.
fn leaves() -> Vec<(String, Vec<String>, Option<Duration>)> {
    let id = |length: usize| {
        let prefix = "spiffe://example.org/";
        format!("{prefix}{}", "a".repeat(length - prefix.len()))
    };
    let mut leaves: Vec<_> = [22, 100, 127, 128, 129, 255, 256, 257, 1024, 2048]
        .map(|length| (id(length), Vec::new(), None))
        .into();
    let label = "b".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
    for names in [
        vec!["web".to_owned()],
        vec![format!("{label}.example.org"), "web.example.org".to_owned()],
        vec![longest],
        (0..100).map(|n| format!("web-{n}.example.org")).collect(),
    ] {
        leaves.push((id(60), names, None));
    }
    for seconds in [300, 3600, 86_400, 1 << 40] {
        leaves.push((id(61), Vec::new(), Some(Duration::from_secs(seconds))));
    }
    leaves
}

#[tokio::test(flavor = "multi_thread")]
async fn go_accepts_every_kind_of_certificate_that_we_issue() {
    let Some(client) = component::require(go_spiffe()) else {
        return;
    };
    let requests: Vec<Value> = go(&client.executable, "csrs", "")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(requests.len(), 5);
    let mut lines = String::new();
    let mut count = 0;
    for algorithm in [
        KeyAlgorithm::P256,
        KeyAlgorithm::P384,
        KeyAlgorithm::Ed25519,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(
            TrustDomain::new("example.org").unwrap(),
            folder.path().to_owned(),
        );
        options.keys = KeyStorage::Memory;
        options.x509_key = algorithm;
        let ca = Ca::open(options, Arc::new(SystemClock)).await.unwrap();
        let root = STANDARD.encode(&ca.bundle().x509_authorities[0].der);
        for request in &requests {
            let csr = STANDARD.decode(request["csr"].as_str().unwrap()).unwrap();
            let key = ProvenKey::from_csr(&csr).unwrap();
            let asked = leaves();
            let leaf = |(id, dns, ttl): &(String, Vec<String>, Option<Duration>)| X509Request {
                leaf: LeafRequest {
                    spiffe_id: SpiffeId::parse(id).unwrap(),
                    dns_names: dns.clone(),
                    ttl: *ttl,
                    key: key.clone(),
                },
                entry: None,
            };
            let issued = ca
                .issue_x509(asked.iter().map(leaf).collect(), &Requester::admin("test"))
                .await
                .unwrap();
            for ((id, dns, _), issued) in asked.into_iter().zip(issued) {
                let issued = issued.unwrap();
                let chain: Vec<String> = issued
                    .chain
                    .iter()
                    .map(|der| STANDARD.encode(der))
                    .collect();
                let end = issued
                    .not_after
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap();
                let line = json!({
                    "id": id, "dns": dns, "publicKey": request["publicKey"], "chain": chain, "root": root,
                    "notAfter": end.as_secs(),
                });
                lines.push_str(&format!("{line}\n"));
                count += 1;
            }
        }
    }
    assert_eq!(count, 3 * 5 * leaves().len());
    assert_eq!(
        go(&client.executable, "chains", &lines).trim(),
        count.to_string()
    );
    // It can refuse: one that another root signed.
    let other: Vec<&str> = lines.lines().collect();
    let mut first: Value = serde_json::from_str(other[0]).unwrap();
    let last: Value = serde_json::from_str(other[count - 1]).unwrap();
    first["root"] = last["root"].clone();
    let refused = Command::new("sh")
        .args(["-c", "printf %s \"$1\" | \"$2\" chains", "sh"])
        .args([&first.to_string(), client.executable.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(!refused.status.success());
}
