//! A collector that lets in who shows a certificate and a token: what it gets, compressed, while both change.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use portcullis_authz::observe::otlp::{
    ClientFiles, Collector, Compression, Header, HeaderValue, Options,
};
use portcullis_authz::server::{ServeError, Server};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::management::{Answer, managed};
use super::support::*;
use super::tls::Authority;
use super::tokens::request;

/// A collector that takes one token.
#[derive(Clone)]
struct Guarded {
    token: Arc<Mutex<String>>,
    /// Paths of the spans that it took.
    taken: Arc<Mutex<Vec<String>>>,
    /// `grpc-encoding` and `x-tenant` of the last message.
    last: Arc<Mutex<(String, String)>>,
}

#[tonic::async_trait]
impl TraceService for Guarded {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let header = |name: &str| {
            let value = request.metadata().get(name);
            value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
        };
        if header("authorization") != *self.token.lock().unwrap() {
            return Err(Status::unauthenticated("another token"));
        }
        *self.last.lock().unwrap() = (header("grpc-encoding"), header("x-tenant"));
        let text = format!("{:?}", request.get_ref());
        let paths = ["/one", "/two", "/three"];
        let seen = paths.into_iter().filter(|path| text.contains(path));
        self.taken.lock().unwrap().extend(seen.map(str::to_owned));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Guarded {
    /// Asks its clients for certificates of `clients`.
    async fn start(authority: &Authority, clients: &Authority) -> (Self, SocketAddr) {
        let collector = Self {
            token: Arc::new(Mutex::new("Bearer first".to_owned())),
            taken: Arc::default(),
            last: Arc::default(),
        };
        let own = authority.leaf(&[], 30);
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(own.certificate, own.key))
            .client_ca_root(Certificate::from_pem(clients.pem()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(collector.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        let server = tonic::transport::Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    async fn has(&self, path: &str) {
        within(path, async {
            while !self.taken.lock().unwrap().iter().any(|taken| taken == path) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    let staged = folder.join(format!(".{name}"));
    std::fs::write(&staged, text).unwrap();
    std::fs::rename(staged, folder.join(name)).unwrap();
}

fn write_client(folder: &Path, authority: &Authority) {
    let pair = authority.leaf(&["spiffe://example.org/authz"], 30);
    write(folder, "client.crt", &pair.certificate);
    write(folder, "client.key", &pair.key);
}

fn options_of(address: SocketAddr, folder: &Path) -> Options {
    let path = |name: &str| folder.join(name);
    let header = |name: &str, value| Header::new(name, value).unwrap();
    let collector = Collector {
        ca_file: Some(path("ca.crt")),
        client: Some(ClientFiles {
            certificate: path("client.crt"),
            key: path("client.key"),
        }),
        headers: vec![
            header("Authorization", HeaderValue::File(path("token"))),
            header("X-Tenant", HeaderValue::Text("shop".to_owned())),
        ],
        compression: Compression::Gzip,
        timeout: Duration::from_secs(5),
        ..Collector::new(format!("https://localhost:{}", address.port()))
    };
    Options {
        collector,
        ..Options::new("")
    }
}

async fn check(running: &Running, path: &str) {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let check = Request::new(request(path, &[("traceparent", parent)], None));
    let mut client = running.client().await;
    within("an answer", client.check(check)).await.unwrap();
}

async fn lost(running: &Running) -> u64 {
    let text = Answer::to(running, "/metrics").await.rest().await;
    let name = "portcullis_authz_spans_lost_total{cause=\"output\"} ";
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.unwrap().parse().unwrap()
}

#[tokio::test]
async fn certificate_token_and_compression_are_those_of_the_collector_and_may_change() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (collector, address) = Guarded::start(&authority, &clients).await;
    let policies = folder(&[("inventory.yaml", INVENTORY)]);
    let secrets = tempfile::tempdir().unwrap();
    write(secrets.path(), "ca.crt", &authority.pem());
    write(secrets.path(), "token", "Bearer first\n");
    write_client(secrets.path(), &clients);
    let mut options = managed(options(policies.path(), vec![tcp()]));
    options.observe.otlp = Some(options_of(address, secrets.path()));
    let running = Running::start(options).await;

    check(&running, "/one").await;
    collector.has("/one").await;
    let (encoding, tenant) = collector.last.lock().unwrap().clone();
    assert_eq!((encoding.as_str(), tenant.as_str()), ("gzip", "shop"));
    assert_eq!(lost(&running).await, 0);

    // Another token is asked for: what is sent with the old one is lost, and counted.
    *collector.token.lock().unwrap() = "Bearer second".to_owned();
    check(&running, "/two").await;
    within("a loss", async {
        while lost(&running).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    write(secrets.path(), "token", "Bearer second");
    // A file is looked at once in a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    check(&running, "/three").await;
    collector.has("/three").await;
    assert!(!collector.taken.lock().unwrap().contains(&"/two".to_owned()));
    running.stop().await;
}

#[tokio::test]
async fn who_is_not_let_in_loses_spans_and_is_let_in_with_new_files() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (collector, address) = Guarded::start(&authority, &clients).await;
    let policies = folder(&[("inventory.yaml", INVENTORY)]);
    let secrets = tempfile::tempdir().unwrap();
    // Its certificate is of an authority that we do not know, and ours of one that it does not know.
    write(secrets.path(), "ca.crt", &Authority::new().pem());
    write(secrets.path(), "token", "Bearer first");
    write_client(secrets.path(), &Authority::new());
    let mut options = managed(options(policies.path(), vec![tcp()]));
    options.observe.otlp = Some(options_of(address, secrets.path()));
    let running = Running::start(options).await;
    check(&running, "/one").await;
    within("a loss", async {
        while lost(&running).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(collector.taken.lock().unwrap().is_empty());

    write(secrets.path(), "ca.crt", &authority.pem());
    write_client(secrets.path(), &clients);
    check(&running, "/two").await;
    collector.has("/two").await;
    running.stop().await;
}

#[tokio::test]
async fn a_header_or_a_certificate_that_is_not_there_is_named_at_start() {
    let authority = Authority::new();
    let policies = folder(&[("inventory.yaml", INVENTORY)]);
    let secrets = tempfile::tempdir().unwrap();
    write(secrets.path(), "ca.crt", &authority.pem());
    write_client(secrets.path(), &authority);
    for (file, content, words) in [
        ("token", None, "cannot read the header `authorization`"),
        (
            "token",
            Some("hush\nhush"),
            "the value of the header `authorization`",
        ),
        ("token", Some(""), "the value of the header `authorization`"),
        ("client.key", None, "client.key` for TLS to the collector"),
    ] {
        write(secrets.path(), "token", "Bearer first");
        let path = secrets.path().join(file);
        match content {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let mut options = options(policies.path(), vec![tcp()]);
        options.observe.otlp = Some(options_of(([127, 0, 0, 1], 1).into(), secrets.path()));
        let Err(error) = Server::start(options).await else {
            panic!("{file}");
        };
        assert!(matches!(error, ServeError::Observe(_)));
        let said = error.to_string();
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("hush"), "{said}");
    }
}
