//! A server in this process, with a folder of policies and a client.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use envoy_types::ext_authz::v3::pb::{CheckRequest, CheckResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use portcullis_authz::check_request::from_json;
use portcullis_authz::client::Client;
use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::limits::Counters;
use portcullis_authz::reload::{self, PolicyFiles, ReloadStatus};
use portcullis_authz::server::{ListenerOptions, ServeError, ServeOptions, Server};
use portcullis_policy::settings::Settings;
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub const INVENTORY: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: foo}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: foo, labels: {app: a}}
spec:
  serviceAccountName: a
  containers: [{name: c, ports: [{containerPort: 8080}]}]
status: {phase: Running, podIP: 10.0.0.1}
";

/// An ALLOW policy of workload foo/a for this path.
pub fn allow(path: &str) -> String {
    format!(
        r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: foo}}
spec:
  selector: {{matchLabels: {{app: a}}}}
  action: ALLOW
  rules: [{{to: [{{operation: {{paths: ["{path}"]}}}}]}}]
"#
    )
}

/// A GET of `path` at workload foo/a.
pub fn get(path: &str) -> CheckRequest {
    let json = serde_json::json!({"attributes": {
        "source": {"address": {"socketAddress": {"address": "10.0.0.9", "portValue": 40000}}},
        "destination": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 8080}}},
        "request": {"http": {"method": "GET", "path": path, "host": "a.foo", "scheme": "http"}},
    }});
    from_json(json.to_string().as_bytes()).unwrap()
}

/// A folder with these files.
pub fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

pub fn options(folder: &Path, listeners: Vec<ListenerOptions>) -> ServeOptions {
    ServeOptions {
        listeners,
        files: PolicyFiles {
            paths: vec![folder.to_owned()],
            candidate: Vec::new(),
        },
        feed: None,
        settings: Settings {
            serving: true,
            ..Settings::default()
        },
        reload: reload::Options {
            settle: Duration::from_millis(30),
            poll: Duration::from_millis(500),
        },
        drain: Duration::from_secs(5),
        drain_delay: Duration::ZERO,
        limits: portcullis_authz::limits::Limits::default(),
        tokens: portcullis_authz::token::Settings::default(),
        observe: portcullis_authz::observe::Options::default(),
    }
}

pub fn tcp() -> ListenerOptions {
    ListenerOptions::new("tcp", "127.0.0.1:0".parse().unwrap())
}

/// A running server; stopped by [`Running::stop`].
pub struct Running {
    pub endpoints: Vec<Endpoint>,
    pub status: watch::Receiver<ReloadStatus>,
    /// Where the management listener is.
    pub management: Option<Endpoint>,
    pub counters: Arc<Counters>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    pub async fn start(options: ServeOptions) -> Self {
        let server = Server::start(options).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        Self {
            endpoints: server.endpoints().cloned().collect(),
            status: server.status(),
            management: server.management().cloned(),
            counters: server.counters(),
            stop,
            task: tokio::spawn(server.run(async {
                let _ = stopped.await;
            })),
        }
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.endpoints[0]).await.unwrap()
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        within("the server stops", self.task)
            .await
            .unwrap()
            .unwrap();
    }

    /// Waits until the status is as `wanted`.
    pub async fn until(
        &mut self,
        what: &str,
        wanted: impl FnMut(&ReloadStatus) -> bool,
    ) -> ReloadStatus {
        within(what, self.status.wait_for(wanted))
            .await
            .unwrap()
            .clone()
    }
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .unwrap_or_else(|_| panic!("not within 20 s: {what}"))
}

/// The decision's field of the answer's dynamic metadata.
pub fn field(response: &CheckResponse, name: &str) -> Option<Kind> {
    let metadata = response.dynamic_metadata.as_ref()?;
    let Some(Kind::StructValue(decision)) = &metadata.fields["portcullis"].kind else {
        panic!("no decision");
    };
    decision.fields[name].kind.clone()
}

pub fn reason(response: &CheckResponse) -> String {
    match field(response, "reason") {
        Some(Kind::StringValue(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// Asks for `path` and gives the reason of the answer.
pub async fn ask(client: &mut Client, path: &str) -> String {
    let response = within("an answer", client.check(tonic::Request::new(get(path)))).await;
    reason(&response.unwrap())
}

/// A port that is free now and still is when it is used.
pub fn free_port() -> u16 {
    // Below the range from which the system takes ports by itself: nothing that connects, or listens
    // on port 0, gets it before it is used.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() % 20_000;
    loop {
        let offset = (start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % 20_000;
        let port = 11_000 + u16::try_from(offset).unwrap();
        if std::net::TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}
