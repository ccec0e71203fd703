//! Our spans stand below Envoy's own: it states its span in the metadata of the check by itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Text;
use opentelemetry_proto::tonic::trace::v1::Span;
use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::component::run_folder;
use portcullis_tests::envoy::Envoy;
use portcullis_tests::envoy::config::{Config, ExtAuthz, Listener, Service};
use portcullis_tests::portcullis::Server;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::setting::{PORTCULLIS, envoy, pod};

/// Spans by the service that sent them.
type Spans = Arc<Mutex<Vec<(String, Span)>>>;

struct Collector(Spans);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let name = attributes.into_iter().find(|a| a.key == "service.name");
            let name = match name.and_then(|name| name.value?.value) {
                Some(Text::StringValue(name)) => name,
                other => panic!("{other:?}"),
            };
            let spans = resource.scope_spans.into_iter().flat_map(|s| s.spans);
            let spans = spans.map(|span| (name.clone(), span));
            self.0.lock().unwrap().extend(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn collect(runtime: &Runtime) -> (SocketAddr, Spans) {
    let spans = Spans::default();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let service = TraceServiceServer::new(Collector(Arc::clone(&spans)));
    let server = tonic::transport::Server::builder().add_service(service);
    runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, spans)
}

#[test]
fn a_decision_is_a_span_below_the_span_of_the_proxy() {
    let Some(executable) = envoy() else { return };
    let folder = run_folder("tracing");
    let runtime = Runtime::new().unwrap();
    let (collector, spans) = collect(&runtime);
    let pods = pod("shop", "web");
    let server = Server::start(
        PORTCULLIS.as_ref(),
        &folder,
        &[("pods.yaml", pods.as_str())],
        &json!({ "otlp": { "endpoint": format!("http://{collector}") } }),
    )
    .unwrap_or_else(|cause| panic!("{cause}"));
    let tracing = json!({
        "random_sampling": { "value": 100 },
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": { "envoy_grpc": { "cluster_name": "collector" }, "timeout": "5s" },
                "service_name": "proxy",
            },
        },
    });
    let listener = Listener::http("web")
        .extension("portcullis.workload", "shop/web")
        .filter(ExtAuthz::default().http())
        .manager("tracing", tracing);
    let config = Config {
        authorization: Service::Tcp(server.address),
        upstream: None,
        folder: folder.clone(),
        listeners: vec![listener],
    };
    let mut bootstrap = config.bootstrap();
    let mut cluster = bootstrap["static_resources"]["clusters"][0].clone();
    cluster["name"] = json!("collector");
    cluster["load_assignment"]["cluster_name"] = json!("collector");
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = json!({
        "socket_address": { "address": "127.0.0.1", "port_value": collector.port() },
    });
    let clusters = bootstrap["static_resources"]["clusters"].as_array_mut();
    clusters.unwrap().push(cluster);
    // Without it, Envoy sends its spans every five seconds.
    bootstrap["layered_runtime"]["layers"][0]["static_layer"]["tracing.opentelemetry.min_flush_spans"] =
        json!(1);
    let file = folder.join("envoy.json");
    std::fs::write(&file, bootstrap.to_string()).unwrap();
    let envoy = Envoy::start_file(&executable, &file, &folder).unwrap_or_else(|e| panic!("{e}"));
    let client = Client::plain(envoy.listener("web").unwrap());
    assert_eq!(client.send(&Exchange::get("/books")).unwrap().status, 200);

    let started = Instant::now();
    let of = |service: &str| -> Vec<Span> {
        let spans = spans.lock().unwrap();
        let spans = spans.iter().filter(|(name, _)| name == service);
        spans.map(|(_, span)| span.clone()).collect()
    };
    let joined = loop {
        let (ours, theirs) = (of("portcullis-authz"), of("proxy"));
        let parent = ours.first().and_then(|span| {
            let mut theirs = theirs.iter();
            theirs.find(|parent| parent.span_id == span.parent_span_id)
        });
        if let (Some(span), Some(parent)) = (ours.first(), parent) {
            break (span.clone(), parent.clone());
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{ours:?}\n{theirs:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    };
    let (span, parent) = joined;
    assert_eq!(span.trace_id, parent.trace_id);
    assert_eq!(span.name, "portcullis.check");
    let decision = span
        .attributes
        .iter()
        .find(|a| a.key == "portcullis.decision");
    let decision = decision.unwrap().value.clone().unwrap().value;
    assert_eq!(decision, Some(Text::StringValue("allow".to_owned())));
    assert_eq!(of("portcullis-authz").len(), 1);
}
