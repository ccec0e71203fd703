//! How long a review takes, over TLS: 1,000 policies and 2,000 pods in force, one policy changed each time.
//!
//! ```text
//! cargo bench -p portcullis-admission
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement says what is wrong by failing"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use portcullis_admission::break_glass::BreakGlass;
use portcullis_admission::certificate::Material;
use portcullis_admission::decide::Admission;
use portcullis_admission::enforcement::Enforcement;
use portcullis_admission::in_force::Held;
use portcullis_admission::judge::{NoCases, NoFlows};
use portcullis_admission::server::{Limits, Missing, Options, Readiness, Server};
use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, ObjectKey, Store};
use portcullis_policy::settings::Settings;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

const POLICIES: usize = 1000;
const PODS: usize = 2000;
const NAMESPACES: usize = 20;
const REVIEWS: usize = 2000;
/// What an API server should wait for at most, of a hundred reviews for ninety-nine.
const TARGET: Duration = Duration::from_millis(20);

struct Always;

impl Readiness for Always {
    fn missing(&self) -> Missing {
        Missing::default()
    }

    fn is_synced(&self) -> bool {
        true
    }
}

fn apply(group: &str, kind: &str, object: Value) -> Change {
    let meta = &object["metadata"];
    let namespace = meta["namespace"].as_str().unwrap_or_default();
    let key = ObjectKey::new(group, kind, namespace, meta["name"].as_str().unwrap());
    let bytes = object.to_string().into_bytes().into();
    Change::Apply {
        text: SourceText {
            file: key.file(),
            bytes,
        },
        key,
    }
}

fn policy(number: usize, path: usize) -> Value {
    let (namespace, app) = (number % NAMESPACES, number % PODS);
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "name": format!("policy-{number}"), "namespace": format!("ns-{namespace}") },
        "spec": {
            "selector": { "matchLabels": { "app": format!("app-{app}") } },
            "action": "ALLOW",
            "rules": [{
                "from": [{ "source": { "principals": [format!("cluster.local/ns/ns-{namespace}/sa/sa-{}", number % 50)] } }],
                "to": [{ "operation": { "methods": ["GET"], "paths": [format!("/api/{path}/*")] } }],
            }],
        },
    })
}

fn store() -> Store {
    let mut changes = Vec::new();
    for number in 0..NAMESPACES {
        let meta = json!({ "name": format!("ns-{number}") });
        changes.push(apply(
            "",
            "Namespace",
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": meta }),
        ));
    }
    for number in 0..PODS {
        let namespace = format!("ns-{}", number % NAMESPACES);
        let labels = json!({ "app": format!("app-{number}") });
        changes.push(apply("", "Pod", json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("pod-{number}"), "namespace": namespace, "labels": labels },
            "spec": { "serviceAccountName": format!("sa-{}", number % 50) },
            "status": { "phase": "Running", "podIP": format!("10.{}.{}.{}", number / 62_500, number / 250 % 250, number % 250 + 1) },
        })));
    }
    changes.extend(
        (0..POLICIES).map(|n| apply("security.istio.io", "AuthorizationPolicy", policy(n, n))),
    );
    let mut store = Store::new(Settings::default());
    store.change(changes);
    let started = Instant::now();
    assert!(store.snapshot().policy_count() >= POLICIES);
    println!(
        "{POLICIES} policies and {PODS} pods compiled in {:?}",
        started.elapsed()
    );
    store
}

fn review(number: usize) -> Vec<u8> {
    let object = policy(number % POLICIES, number + POLICIES);
    let old = policy(number % POLICIES, number % POLICIES);
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": format!("{number}"), "operation": "UPDATE",
            "kind": { "group": "security.istio.io", "version": "v1", "kind": "AuthorizationPolicy" },
            "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"],
            "userInfo": { "username": "bench" }, "object": object, "oldObject": old,
        },
    });
    review.to_string().into_bytes()
}

#[tokio::main]
async fn main() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().der().clone();
    let material = Material {
        chain: vec![certificate.clone()],
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        roots: Vec::new(),
    };
    let (_keep, tls) = watch::channel(Some(Arc::new(material.server_config().unwrap())));
    let options = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        management: None,
        limits: Limits::default(),
        drain_delay: Duration::ZERO,
        drain: Duration::from_secs(1),
    };
    let admission = Admission::new(
        Enforcement::default(),
        BreakGlass::default(),
        Arc::new(NoCases),
        Arc::new(NoFlows),
    );
    let held = Arc::new(Held::new(store(), BTreeMap::new()));
    let server = Server::bind(
        options,
        tls,
        admission,
        held,
        Arc::new(Always),
        Arc::default(),
    )
    .await
    .unwrap();
    let address = server.address().unwrap();
    tokio::spawn(server.run(std::future::pending()));

    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);

    let mut took = Vec::with_capacity(REVIEWS);
    for number in 0..REVIEWS {
        let request = http::Request::post("/validate?timeout=5s")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(review(number))))
            .unwrap();
        let started = Instant::now();
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        took.push(started.elapsed());
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
    }
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "{REVIEWS} reviews, one after the other: p50 {:?}, p99 {:?}, longest {:?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    let verdict = if at(0.99) <= TARGET { "met" } else { "MISSED" };
    println!("wanted: p99 at most {TARGET:?}: {verdict}");
}
