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
use crate::proto::status::RevokeX509sviDsRequest;
use crate::proto::status::revocation_client::RevocationClient;
use crate::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use crate::proto::workload::{
    WitBundlesRequest, WitsvidRequest, X509BundlesRequest, X509svidRequest,
};
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
        Self::with(crate::ca::tests::options(data), otlp).await
    }

    async fn with(mut ca: Options, otlp: Option<otlp::Options>) -> Self {
        let data = ca.data.clone();
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
            #[cfg(feature = "kubernetes")]
            kubernetes: None,
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

/// A request of a workload.
fn asking<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

/// The next message of a stream, within ten seconds.
async fn next<T>(stream: &mut tonic::Streaming<T>) -> T {
    let message = tokio::time::timeout(Duration::from_secs(10), stream.message());
    message.await.unwrap().unwrap().unwrap()
}

/// An entry for this process.
async fn own_entry(ca: &Ca) {
    let uid = format!("unix:uid:{}", rustix::process::geteuid().as_raw());
    crate::ca::tests::create(ca, crate::ca::tests::entry("/own", &[&uid])).await;
}

#[tokio::test]
async fn revocation_lists_reach_workloads_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = crate::ca::tests::options(folder.path());
    options.revocation = Some(crate::ca::LIST_LIFE);
    let server = Running::with(options, None).await;
    own_entry(&server.ca).await;
    let channel = admin::client::connect(&folder.path().join("workload.sock"))
        .await
        .unwrap();
    let mut workload = SpiffeWorkloadApiClient::new(channel);
    let svids = workload.fetch_x509svid(asking(X509svidRequest {})).await;
    let bundles = workload
        .fetch_x509_bundles(asking(X509BundlesRequest {}))
        .await;
    let (mut svids, mut bundles) = (svids.unwrap().into_inner(), bundles.unwrap().into_inner());
    let (first, bundle) = (next(&mut svids).await, next(&mut bundles).await);
    assert_eq!(first.crl.len(), 1);
    assert_eq!(bundle.crl, first.crl);
    let (_, leaf) = x509_parser::parse_x509_certificate(&first.svids[0].x509_svid).unwrap();
    let serials = vec![leaf.raw_serial_as_string(), "77".to_owned()];
    let channel = admin::client::connect(&admin::socket_in(folder.path()))
        .await
        .unwrap();
    let mut operator = RevocationClient::new(channel);
    let reason = "key-compromise".to_owned();
    let request = RevokeX509sviDsRequest { serials, reason };
    let results = operator
        .revoke_x509svi_ds(request.clone())
        .await
        .unwrap()
        .into_inner()
        .results;
    assert_eq!(results[0].code, 0, "{results:?}");
    assert_eq!(results[1].code, tonic::Code::NotFound as i32, "{results:?}");
    // Both the list and the SVID are other ones, perhaps in two messages.
    let mut now = next(&mut svids).await;
    while now.crl == first.crl || now.svids[0].x509_svid == first.svids[0].x509_svid {
        now = next(&mut svids).await;
    }
    let (_, list) = x509_parser::parse_x509_crl(&now.crl[0]).unwrap();
    let listed: Vec<&[u8]> = list
        .iter_revoked_certificates()
        .map(|r| r.raw_serial())
        .collect();
    assert_eq!(listed, [leaf.raw_serial()]);
    let mut bundle = next(&mut bundles).await;
    assert_eq!(bundle.crl, now.crl);
    bundle.crl.clear();
    let unknown = RevokeX509sviDsRequest {
        reason: "whim".to_owned(),
        ..request
    };
    let refused = operator.revoke_x509svi_ds(unknown).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    server.stop().await;
}

#[tokio::test]
async fn wit_svids_reach_workloads_where_they_are_switched_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = crate::ca::tests::options(folder.path());
    options.wit_svid = true;
    let server = Running::with(options, None).await;
    own_entry(&server.ca).await;
    let channel = admin::client::connect(&folder.path().join("workload.sock"))
        .await
        .unwrap();
    let mut workload = SpiffeWorkloadApiClient::new(channel);
    let all = WitsvidRequest::default();
    let mut svids = workload
        .fetch_witsvid(asking(all))
        .await
        .unwrap()
        .into_inner();
    let bundles = workload
        .fetch_wit_bundles(asking(WitBundlesRequest {}))
        .await;
    let mut bundles = bundles.unwrap().into_inner();
    let (first, keys) = (next(&mut svids).await, next(&mut bundles).await);
    assert_eq!(first.svids.len(), 1);
    let svid = &first.svids[0];
    assert_eq!(svid.spiffe_id, "spiffe://example.org/own");
    // Whoever has the bundle verifies it.
    let keys =
        keys.bundles["spiffe://example.org"].replace("\"kid\"", "\"use\":\"wit-svid\",\"kid\"");
    let ours = server.ca.trust_domain().clone();
    let bundle = crate::bundle::Bundle::from_document(ours, keys.as_bytes()).unwrap();
    let now = std::time::SystemTime::now();
    let valid = crate::wit_svid::validate(&svid.wit_svid, now, |_| Some(&bundle)).unwrap();
    assert_eq!(valid.spiffe_id.as_str(), svid.spiffe_id);
    assert!(
        svid.wit_svid_key.contains("\"d\":"),
        "the private key is there"
    );
    for (id, code) in [
        ("spiffe://example.org/own", None),
        (
            "spiffe://example.org/other",
            Some(tonic::Code::PermissionDenied),
        ),
        ("nonsense", Some(tonic::Code::InvalidArgument)),
    ] {
        let spiffe_id = id.to_owned();
        let asked = workload
            .fetch_witsvid(asking(WitsvidRequest { spiffe_id }))
            .await;
        assert_eq!(asked.err().map(|status| status.code()), code, "{id}");
    }
    // A taint replaces it at once.
    let active = server.ca.bundle().wit_authorities[0].key_id.clone();
    server
        .ca
        .taint(AuthorityKind::Wit, &active, true, "test")
        .await
        .unwrap();
    let replaced = next(&mut svids).await;
    assert_ne!(replaced.svids[0].wit_svid, svid.wit_svid);
    server.stop().await;
}
