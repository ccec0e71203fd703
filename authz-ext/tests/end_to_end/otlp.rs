//! What an OpenTelemetry collector gets: one that is there, one that comes and one that never does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use portcullis_authz::observe::{log, otlp};
use portcullis_authz::server::{ServeError, Server};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::management::{Answer, managed};
use super::support::*;
use super::tokens::request;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const OTHER: &str = "11f067aa0ba902b7";

/// A collector that remembers.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    records: Arc<Mutex<Vec<LogRecord>>>,
    services: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let service = text(&resource.resource.unwrap().attributes, "service.name");
            self.services.lock().unwrap().push(service.unwrap());
            let spans = resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        for resource in request.into_inner().resource_logs {
            let scopes = resource.scope_logs.into_iter();
            let records = scopes.flat_map(|scope| scope.log_records);
            self.records.lock().unwrap().extend(records);
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

impl Collector {
    async fn start(address: &str) -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .add_service(LogsServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|pair| pair.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::ArrayValue(list) => {
            let texts = list.values.iter().map(|value| match &value.value {
                Some(Value::StringValue(text)) => text.as_str(),
                other => panic!("{other:?}"),
            });
            Some(texts.collect::<Vec<_>>().join(","))
        }
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn server(
    collector: SocketAddr,
    change: impl FnOnce(&mut portcullis_authz::observe::Options),
) -> (tempfile::TempDir, Running) {
    let folder = folder(&[("inventory.yaml", INVENTORY), ("p.yaml", &allow("/ok"))]);
    let mut options = managed(options(folder.path(), vec![tcp()]));
    options.observe.otlp = Some(otlp::Options::new(format!("http://{collector}")));
    change(&mut options.observe);
    let running = Running::start(options).await;
    (folder, running)
}

/// Asks with these headers in the request and this metadata of the check itself.
async fn check(running: &Running, path: &str, headers: &[(&str, &str)], metadata: &[(&str, &str)]) {
    let mut check = Request::new(request(path, headers, None));
    for (name, value) in metadata {
        let name = name.parse::<tonic::metadata::AsciiMetadataKey>().unwrap();
        check.metadata_mut().insert(name, value.parse().unwrap());
    }
    let mut client = running.client().await;
    within("an answer", client.check(check)).await.unwrap();
}

#[tokio::test]
async fn spans_join_the_span_of_the_proxy_where_it_is_recorded() {
    let (collector, address) = Collector::start("127.0.0.1:0").await;
    let (_folder, running) = server(address, |_| {}).await;
    let parent = |span: &str, flags: &str| format!("00-{TRACE}-{span}-{flags}");
    // By the check's own metadata, whatever the client's request says.
    let client = parent(OTHER, "00");
    let (w3c, b3) = (parent(SPAN, "01"), format!("{TRACE}-{SPAN}-1"));
    let metadata = [("traceparent", w3c.as_str()), ("tracestate", "a=b")];
    check(
        &running,
        "/ok?token=hush",
        &[("traceparent", &client)],
        &metadata,
    )
    .await;
    // By the request's headers, B3 in one and in several.
    check(&running, "/no", &[("b3", &b3)], &[]).await;
    let several = [
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", SPAN),
        ("x-b3-sampled", "1"),
    ];
    check(&running, "/no", &several, &[]).await;
    // Not recorded, and nobody's.
    check(&running, "/no", &[("traceparent", &client)], &[]).await;
    check(&running, "/no", &[], &[]).await;
    running.stop().await;

    let spans = collector.spans.lock().unwrap().clone();
    assert_eq!(spans.len(), 3, "{spans:?}");
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(hex(&span.parent_span_id), SPAN);
        assert!(span.span_id.len() == 8 && span.span_id != [0; 8]);
        assert_eq!(span.name, "portcullis.check");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert!(span.end_time_unix_nano - span.start_time_unix_nano < 60_000_000_000);
        assert_eq!(span.status, None, "a denial is no error");
        assert!(!format!("{span:?}").contains("hush"));
    }
    let mut ids: Vec<_> = spans.iter().map(|span| span.span_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "each span has a name of its own");
    let allowed = spans.iter().find(|span| span.trace_state == "a=b").unwrap();
    for (key, value) in [
        ("portcullis.decision", "allow"),
        ("portcullis.reason", "allowed_by"),
        ("portcullis.policies", "foo/p#rule[0]"),
        ("portcullis.destination", "pod/foo/a"),
        ("http.request.method", "GET"),
        ("url.path", "/ok"),
        ("server.address", "a.foo"),
        ("server.port", "8080"),
        ("network.peer.address", "10.0.0.9"),
    ] {
        assert_eq!(
            text(&allowed.attributes, key).as_deref(),
            Some(value),
            "{key}"
        );
    }
    assert_eq!(collector.services.lock().unwrap()[0], "portcullis-authz");
    assert!(collector.records.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_decision_log_goes_to_a_collector() {
    let (collector, address) = Collector::start("127.0.0.1:0").await;
    let (_folder, running) = server(address, |observe| {
        observe.log = Some(log::Options {
            allows: portcullis_authz::observe::sample::Share::NONE,
            ..log::Options::new(log::Output::Otlp)
        });
    })
    .await;
    let parent = format!("00-{TRACE}-{SPAN}-00");
    check(&running, "/ok", &[], &[]).await;
    check(
        &running,
        "/no",
        &[("authorization", "Basic hush"), ("traceparent", &parent)],
        &[],
    )
    .await;
    running.stop().await;
    let records = collector.records.lock().unwrap().clone();
    assert_eq!(records.len(), 1, "{records:?}");
    let record = &records[0];
    assert_eq!(record.severity_text, "WARN");
    assert_eq!(
        (hex(&record.trace_id), hex(&record.span_id)),
        (TRACE.into(), SPAN.into())
    );
    assert_eq!(record.flags, 0, "the proxy does not record it");
    let attributes = &record.attributes;
    assert_eq!(
        text(attributes, "portcullis.reason").unwrap(),
        "no_allow_matched"
    );
    assert_eq!(text(attributes, "url.path").unwrap(), "/no");
    assert!(!format!("{record:?}").contains("hush"));
    assert!(collector.spans.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_collector_that_is_not_there_delays_no_verdict_and_is_found_when_it_comes() {
    // A port that nobody listens at.
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (_folder, running) = server(address, |_| {}).await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let started = Instant::now();
    for _ in 0..20 {
        check(&running, "/no", &[("traceparent", &parent)], &[]).await;
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    let metric = |name: &'static str| {
        let running = &running;
        async move {
            let text = Answer::to(running, "/metrics").await.rest().await;
            let name = format!("portcullis_authz_{name} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&name));
            value.unwrap().parse::<u64>().unwrap()
        }
    };
    within("losses", async {
        while metric(r#"spans_lost_total{cause="output"}"#).await < 20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(metric("spans_sent_total").await, 0);
    let (collector, _) = Collector::start(&address.to_string()).await;
    within("a span", async {
        while metric("spans_sent_total").await == 0 {
            check(&running, "/no", &[("traceparent", &parent)], &[]).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(!collector.spans.lock().unwrap().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_log_for_a_collector_needs_one() {
    let folder = folder(&[("inventory.yaml", INVENTORY)]);
    let mut options = options(folder.path(), vec![tcp()]);
    options.observe.log = Some(log::Options::new(log::Output::Otlp));
    let started = Server::start(options).await;
    assert!(matches!(started, Err(ServeError::Observe(_))));
}
