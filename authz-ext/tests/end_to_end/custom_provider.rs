//! A CUSTOM provider over gRPC, in a few lines, and a server that asks one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_types::ext_authz::v3::pb::{
    CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpResponse,
    HttpStatus, OkHttpResponse,
};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use portcullis_authz::server::{ListenerOptions, ServeOptions};
use portcullis_policy::settings::CustomProvider;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::support::*;
use super::tokens::request;

pub type Answer = Arc<dyn Fn(&CheckRequest) -> Result<CheckResponse, tonic::Status> + Send + Sync>;

/// A provider over gRPC, in a few lines.
struct Provider {
    answer: Answer,
    delay: Duration,
    asked: Arc<Mutex<Vec<CheckRequest>>>,
}

#[tonic::async_trait]
impl Authorization for Provider {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
        let request = request.into_inner();
        self.asked.lock().unwrap().push(request.clone());
        tokio::time::sleep(self.delay).await;
        (self.answer)(&request).map(tonic::Response::new)
    }
}

pub struct Grpc {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<CheckRequest>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn grpc(delay: Duration, answer: Answer) -> Grpc {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let provider = Provider {
        answer,
        delay,
        asked: Arc::clone(&asked),
    };
    let task = tokio::spawn(async move {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tonic::transport::Server::builder()
            .add_service(AuthorizationServer::new(provider))
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
    Grpc {
        address,
        asked,
        task,
    }
}

pub fn header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            ..HeaderValue::default()
        }),
        ..HeaderValueOption::default()
    }
}

pub fn allowed(response: OkHttpResponse) -> CheckResponse {
    CheckResponse {
        status: Some(RpcStatus::default()),
        http_response: Some(HttpResponse::OkResponse(response)),
        ..CheckResponse::default()
    }
}

pub fn denied(code: i32, headers: Vec<HeaderValueOption>, body: &str) -> CheckResponse {
    CheckResponse {
        status: Some(RpcStatus {
            code: 7,
            ..RpcStatus::default()
        }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code }),
            headers,
            body: body.to_owned(),
        })),
        ..CheckResponse::default()
    }
}

/// `/asked*` is for the provider, `/never` is denied, `/asked/*` and `/free` are allowed.
pub fn policies(providers: &Value) -> String {
    let mesh = json!({"extensionProviders": providers}).to_string();
    let mesh = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": mesh},
    });
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": name, "namespace": "foo"}, "spec": spec,
        })
    };
    let paths = |paths: Value| json!([{"to": [{"operation": {"paths": paths}}]}]);
    let custom = json!({"action": "CUSTOM", "provider": {"name": "ext"}, "rules": paths(json!(["/asked*"]))});
    let deny = json!({"action": "DENY", "rules": paths(json!(["*/never"]))});
    let by_header = json!({"action": "DENY", "rules": [
        {"when": [{"key": "request.headers[x-from-provider]", "values": ["deny me"]}]},
    ]});
    [
        mesh,
        policy("ask", custom),
        policy("never", deny),
        policy("by-header", by_header),
    ]
    .map(|document| document.to_string())
    .join("\n---\n")
}

pub fn grpc_provider(address: SocketAddr, more: Value) -> Value {
    let mut call = json!({"service": address.ip().to_string(), "port": address.port()});
    for (name, value) in more.as_object().unwrap() {
        call[name] = value.clone();
    }
    json!([{"name": "ext", "envoyExtAuthzGrpc": call}])
}

pub fn serve(
    folder: &tempfile::TempDir,
    way: CustomProvider,
    listener: ListenerOptions,
) -> ServeOptions {
    let mut options = options(folder.path(), vec![listener]);
    options
        .settings
        .custom_providers
        .insert("ext".to_owned(), way);
    options
}

pub async fn start(providers: &Value) -> (tempfile::TempDir, Running) {
    let folder = folder(&[
        ("inventory.yaml", INVENTORY),
        ("p.yaml", &policies(providers)),
    ]);
    let running = Running::start(serve(&folder, CustomProvider::Call, tcp())).await;
    (folder, running)
}

pub async fn check(running: &Running, path: &str, headers: &[(&str, &str)]) -> CheckResponse {
    let request = tonic::Request::new(request(path, headers, None));
    let mut client = running.client().await;
    within("an answer", client.check(request)).await.unwrap()
}
