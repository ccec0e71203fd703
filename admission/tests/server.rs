//! The listener, asked over TLS: by API servers, and by whoever else reaches the port.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "server/hostile.rs"]
mod hostile;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_admission::break_glass::BreakGlass;
use portcullis_admission::certificate::Material;
use portcullis_admission::decide::Admission;
use portcullis_admission::enforcement::Enforcement;
use portcullis_admission::in_force::Held;
use portcullis_admission::judge::{NoCases, NoFlows};
use portcullis_admission::metrics::Metrics;
use portcullis_admission::server::{Limits, Missing, Options, Readiness, Server};
use portcullis_policy::live::Store;
use portcullis_policy::settings::Settings;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

#[derive(Default)]
struct Synced(AtomicBool);

impl Readiness for Synced {
    fn missing(&self) -> Missing {
        match self.is_synced() {
            true => Missing::default(),
            false => Missing(vec!["the policies in force are not known yet".to_owned()]),
        }
    }

    fn is_synced(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

struct Running {
    address: SocketAddr,
    management: SocketAddr,
    roots: RootCertStore,
    synced: Arc<Synced>,
    metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

async fn start(limits: Limits) -> Running {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().der().clone();
    let material = Material {
        chain: vec![certificate.clone()],
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        roots: Vec::new(),
    };
    let (_, tls) = watch::channel(Some(Arc::new(material.server_config().unwrap())));
    let options = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        management: Some("127.0.0.1:0".parse().unwrap()),
        limits,
        drain_delay: Duration::from_millis(200),
        drain: Duration::from_secs(5),
    };
    let judge = Arc::new(NoCases);
    let admission = Admission::new(
        Enforcement::default(),
        BreakGlass::default(),
        judge,
        Arc::new(NoFlows),
    );
    let held = Arc::new(Held::new(Store::new(Settings::default()), BTreeMap::new()));
    let synced = Arc::new(Synced(AtomicBool::new(true)));
    let metrics = Arc::new(Metrics::default());
    let ready = Arc::clone(&synced) as Arc<dyn Readiness>;
    let server = Server::bind(options, tls, admission, held, ready, Arc::clone(&metrics))
        .await
        .unwrap();
    let (address, management) = (server.address().unwrap(), server.management().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    Running {
        address,
        management,
        roots,
        synced,
        metrics,
        stop,
        serving,
    }
}

impl Running {
    async fn connect(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut config = config
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    /// Status and body of a request of its own connection.
    async fn send(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: Vec<u8>,
    ) -> (StatusCode, String) {
        let stream = TokioIo::new(self.connect(b"http/1.1").await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = request(method, path, media_type, body);
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn review(&self, body: Vec<u8>) -> (StatusCode, String) {
        self.send(
            Method::POST,
            "/validate?timeout=5s",
            "application/json",
            body,
        )
        .await
    }

    async fn managed(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.management).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn request(
    method: Method,
    path: &str,
    media_type: &str,
    body: Vec<u8>,
) -> http::Request<Full<Bytes>> {
    http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", media_type)
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}

fn review(spec: Value) -> Vec<u8> {
    let object = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "name": "web", "namespace": "shop" }, "spec": spec,
    });
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": "CREATE", "name": "web", "namespace": "shop",
            "kind": { "group": "security.istio.io", "version": "v1", "kind": "AuthorizationPolicy" },
            "object": object,
        },
    });
    review.to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_are_answered_over_both_versions_of_http() {
    let server = start(Limits::default()).await;
    let (status, body) = server.review(review(json!({ "rules": [{}] }))).await;
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&answer["response"]["uid"], &answer["response"]["allowed"]),
        (&json!("u"), &json!(true))
    );

    let stream = TokioIo::new(server.connect(b"h2").await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    tokio::spawn(connection);
    let url = "https://localhost/validate";
    let mut request = request(
        Method::POST,
        url,
        "application/json; charset=utf-8",
        review(json!({ "action": "DENY" })),
    );
    request.headers_mut().remove("host");
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(
        (answer.status(), answer.version()),
        (StatusCode::OK, http::Version::HTTP_2)
    );
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["response"]["allowed"], json!(false));
    assert!(
        server
            .managed("/metrics")
            .await
            .contains("cause=\"invalid\"")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_review_gets_a_status_and_a_reason() {
    let limits = Limits {
        body_bytes: 64 << 10,
        ..Limits::default()
    };
    let server = start(limits).await;
    let json = "application/json";
    for (method, path, media_type, body, status, words) in [
        (Method::GET, "/validate", json, Vec::new(), 405, "POST"),
        (Method::DELETE, "/validate", json, Vec::new(), 405, "POST"),
        (Method::POST, "/", json, Vec::new(), 404, "/validate"),
        (
            Method::POST,
            "/validate",
            "application/yaml",
            review(json!({})),
            415,
            "application/json",
        ),
        (
            Method::POST,
            "/validate",
            "",
            review(json!({})),
            415,
            "application/json",
        ),
        (
            Method::POST,
            "/validate",
            json,
            vec![b' '; (64 << 10) + 1],
            400,
            "65536",
        ),
        (
            Method::POST,
            "/validate",
            json,
            b"{".to_vec(),
            400,
            "not JSON",
        ),
        (
            Method::POST,
            "/validate",
            json,
            b"\xff\xfe".to_vec(),
            400,
            "not JSON",
        ),
        (
            Method::POST,
            "/validate",
            json,
            b"{}".to_vec(),
            400,
            "AdmissionReview",
        ),
    ] {
        let (said, body) = server.send(method, path, media_type, body).await;
        assert_eq!(said.as_u16(), status, "{words}: {body}");
        assert!(body.contains(words), "{body}");
    }
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let body = String::from_utf8(review(json!({ "rules": "DEEP" })))
        .unwrap()
        .replace("\"DEEP\"", &deep);
    let (said, body) = server.review(body.into_bytes()).await;
    assert_eq!(said, 200);
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["response"]["status"]["code"], json!(400), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decided_is_left_to_the_failure_policy_and_never_hangs() {
    let limits = Limits {
        deadline: Duration::from_millis(400),
        ..Limits::default()
    };
    let server = start(limits).await;
    server.synced.0.store(false, Ordering::SeqCst);
    let (status, body) = server.review(review(json!({}))).await;
    assert_eq!(status, 503, "{body}");
    assert!(server.managed("/readyz").await.starts_with("HTTP/1.1 503"));
    server.synced.0.store(true, Ordering::SeqCst);
    assert!(server.managed("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(server.managed("/livez").await.starts_with("HTTP/1.1 200"));

    // A body that never comes.
    let mut stream = server.connect(b"http/1.1").await;
    let head = "POST /validate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let started = Instant::now();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 400");
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_closed_and_counted() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let server = start(limits).await;
    let kept = server.connect(b"http/1.1").await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), second.read(&mut [0; 1]))
        .await
        .unwrap();
    assert!(closed.map_or(true, |read| read == 0));
    assert_eq!(
        server.metrics.connections_refused.load(Ordering::Relaxed),
        1
    );
    drop(kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_stop_answers_what_still_comes_and_then_ends() {
    let server = start(Limits::default()).await;
    let Running {
        address,
        roots,
        synced,
        metrics,
        management,
        stop,
        serving,
    } = server;
    let _ = stop.send(());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (idle, _) = oneshot::channel();
    let server = Running {
        address,
        roots,
        synced,
        metrics,
        management,
        stop: idle,
        serving: tokio::spawn(async {}),
    };
    // Not ready any more, and still there for whoever has not noticed.
    assert!(server.managed("/readyz").await.contains("stopping"));
    let (status, _) = server.review(review(json!({ "rules": [{}] }))).await;
    assert_eq!(status, 200);
    tokio::time::timeout(Duration::from_secs(10), serving)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_are_closed_and_reviews_go_on() {
    let limits = Limits {
        connections: 60,
        header_timeout: Duration::from_millis(500),
        idle_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let server = start(limits).await;
    let mut silent = Vec::new();
    // Nothing at all, no handshake, half a preface, half a head, and a preface whose pings nobody answers.
    for said in [
        None,
        Some(&b""[..]),
        Some(b"PRI * HTTP/2.0\r\n\r\nSM"),
        Some(b"POST /validate HTT"),
        Some(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    ] {
        for _ in 0..10 {
            let Some(said) = said else {
                let stream = TcpStream::connect(server.address).await.unwrap();
                silent.push(tokio::spawn(closed(stream)));
                continue;
            };
            let mut stream = server.connect(b"h2").await;
            stream.write_all(said).await.unwrap();
            stream.flush().await.unwrap();
            silent.push(tokio::spawn(closed(stream)));
        }
    }
    let (status, _) = server.review(review(json!({ "rules": [{}] }))).await;
    assert_eq!(status, 200);
    // One that was used stays for a while, and goes then.
    let mut used = server.connect(b"http/1.1").await;
    let get = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    used.write_all(get).await.unwrap();
    let started = Instant::now();
    closed(used).await;
    assert!(started.elapsed() >= Duration::from_millis(400));
    for connection in silent {
        tokio::time::timeout(Duration::from_secs(15), connection)
            .await
            .expect("every silent connection is closed")
            .unwrap();
    }
    let (status, _) = server.review(review(json!({ "rules": [{}] }))).await;
    assert_eq!(status, 200);
    let open = || server.metrics.connections.load(Ordering::Relaxed);
    let started = Instant::now();
    while open() > 0 {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{} are open",
            open()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns when the other side has closed the connection.
async fn closed(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut buffer = [0; 1024];
    while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
}
