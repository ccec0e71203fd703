//! What a running server tells: pages of the management listener, spans for a collector.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use rcgen::{CertificateParams, KeyPair, SanType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

use super::*;
use crate::journal::JournalError;
use crate::proto::spire::api::server::svid::v1 as svid_api;
use crate::proto::spire::api::server::svid::v1::svid_client::SvidClient;
use crate::store::AuthorityKind;
use crate::web::{WebContent, WebIdentity};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A collector that remembers.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        self.0.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        (collector, endpoint)
    }

    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap();
        spans
            .iter()
            .filter(|span| span.name == name)
            .cloned()
            .collect()
    }
}

struct Running {
    ca: Arc<Ca>,
    management: WebAddress,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServerError>>,
}

impl Running {
    async fn start(data: &Path, otlp: Option<otlp::Options>) -> Self {
        let mut ca = crate::ca::tests::options(data);
        // No spare time for a bundle endpoint that there is not.
        ca.propagation = Duration::ZERO;
        let server = Server::start(ServerOptions {
            ca,
            socket: data.join("workload.sock"),
            web: vec![WebOptions {
                listen: "127.0.0.1:0".parse().unwrap(),
                identity: WebIdentity::Plain,
                content: WebContent::Management,
            }],
            otlp,
        });
        let server = server.await.unwrap();
        assert_eq!(server.ca().options().propagation, Duration::ZERO);
        let management = server.web().next().unwrap().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        Self {
            ca: Arc::clone(server.ca()),
            management,
            stop,
            serving: tokio::spawn(server.run(async {
                let _ = stopped.await;
            })),
        }
    }

    /// Head and body of `GET path`.
    async fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.management.to_string())
            .await
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.serving.await.unwrap().unwrap();
    }
}

/// Asks for an SVID of `spiffe_id`, with a `traceparent`.
async fn mint(data: &Path, spiffe_id: &str, traceparent: &str) -> Result<(), Status> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into().unwrap())];
    let csr = params.serialize_request(&key).unwrap().der().to_vec();
    let channel = admin::client::connect(&admin::socket_in(data))
        .await
        .unwrap();
    let mut request = Request::new(svid_api::MintX509svidRequest {
        csr: csr.into(),
        ttl: 0,
    });
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", traceparent.parse().unwrap());
    metadata.insert("tracestate", "vendor=1".parse().unwrap());
    let minted = SvidClient::new(channel).mint_x509svid(request).await;
    minted.map(|_| ())
}

fn hex(octets: &[u8]) -> String {
    crate::x509::certificate::hex(octets)
}

#[tokio::test]
async fn pages_tell_metrics_life_and_readiness() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(folder.path(), None).await;
    let (head, body) = server.get("/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(body.ends_with("# EOF\n"), "{body}");
    let (head, _) = server.get("/livez").await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let (head, body) = server.get("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let page: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(page["ready"], true);
    for path in [
        "/",
        "/keys",
        "/metrics/x",
        "/.well-known/openid-configuration",
    ] {
        let (head, body) = server.get(path).await;
        assert!(head.starts_with("HTTP/1.1 404"), "{path}: {head}");
        assert_eq!(body, "", "{path}");
    }
    let full = Err(JournalError::Write("no space left".to_owned()));
    let journal = server.ca.journal().stats();
    journal.wrote(1, &full, Duration::ZERO);
    let (head, body) = server.get("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(
        body.contains("the audit journal cannot be written"),
        "{body}"
    );
    let (_, body) = server.get("/metrics").await;
    assert!(body.contains("portcullis_ca_journal_failing 1.0"), "{body}");
    // The next one that is written says that all is well again.
    server.ca.prepare(AuthorityKind::Jwt, "test").await.unwrap();
    let (head, _) = server.get("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    server.stop().await;
}

#[tokio::test]
async fn recorded_calls_and_steps_of_rotation_are_spans() {
    let folder = tempfile::tempdir().unwrap();
    let (collector, endpoint) = Collector::start().await;
    let otlp = otlp::Options {
        collector: otlp::Collector::new(endpoint),
        service: "portcullis-ca".to_owned(),
    };
    let server = Running::start(folder.path(), Some(otlp)).await;
    let recorded = format!("00-{TRACE}-{SPAN}-01");
    mint(folder.path(), "spiffe://example.org/a", &recorded)
        .await
        .unwrap();
    let refused = mint(folder.path(), "spiffe://other.org/a", &recorded).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
    // Nobody records these.
    mint(
        folder.path(),
        "spiffe://example.org/a",
        &format!("00-{TRACE}-{SPAN}-00"),
    )
    .await
    .unwrap();
    mint(folder.path(), "spiffe://example.org/a", "nonsense")
        .await
        .unwrap();
    server.ca.prepare(AuthorityKind::Jwt, "test").await.unwrap();
    // The end sends what waits.
    let started = Instant::now();
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(10));
    let calls = collector.named("spire.api.server.svid.v1.SVID/MintX509SVID");
    assert_eq!(calls.len(), 2, "{calls:?}");
    for call in &calls {
        assert_eq!(hex(&call.trace_id), TRACE);
        assert_eq!(hex(&call.parent_span_id), SPAN);
        assert_eq!(call.trace_state, "vendor=1");
        assert!(call.end_time_unix_nano >= call.start_time_unix_nano);
    }
    assert!(calls[0].status.is_none(), "{:?}", calls[0]);
    let status = calls[1].status.as_ref().unwrap();
    assert!(!status.message.is_empty());
    let issued = collector.named("portcullis.issue");
    assert_eq!(issued[0].parent_span_id, calls[0].span_id);
    assert_eq!(hex(&issued[0].trace_id), TRACE);
    let steps = collector.named("portcullis.authority");
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert_eq!(steps[0].parent_span_id, Vec::<u8>::new());
    assert_ne!(hex(&steps[0].trace_id), TRACE);
    let step = format!("{:?}", steps[0].attributes);
    assert!(step.contains("prepare") && step.contains("jwt"), "{step}");
}
