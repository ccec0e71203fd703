//! A running webhook: replicas, the address that stands for a Service, the shipped configuration.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use kube::client::Body;
use portcullis_tests::client::{Client as HttpClient, Exchange};
use portcullis_tests::component::run_folder;
use portcullis_tests::ports::free_address;
use portcullis_tests::process::{self, Daemon};
use serde_json::{Value, json};

use crate::cluster::{self, Cluster, LIMIT};

const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");

/// One instance of `admission serve`.
pub struct Replica {
    pub daemon: Daemon,
    pub address: SocketAddr,
    pub management: SocketAddr,
}

impl Replica {
    /// Starts one with `more` lines under `admission:`; it is not ready yet.
    pub fn start(cluster: &Cluster, folder: &Path, name: &str, more: &str) -> Self {
        let more = format!("  names: [127.0.0.1]\n{more}");
        Self::start_named(cluster, folder, name, &more)
    }

    /// The same, where `more` says for which names its certificate is to hold.
    pub fn start_named(cluster: &Cluster, folder: &Path, name: &str, more: &str) -> Self {
        let (address, management) = (free_address().unwrap(), free_address().unwrap());
        let config = format!(
            "kubernetes: {{kubeconfig: {}, status: none}}\n\
             admission:\n  listen: {address}\n  management: {management}\n  namespace: portcullis\n\
             \x20 propagation: 500ms\n  limits: {{drain_delay: 1s, drain: 5s}}\n{more}",
            cluster.server.kubeconfig().display(),
        );
        let file = folder.join(format!("{name}.yaml"));
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(PORTCULLIS);
        command.args(["admission", "serve", "--config"]).arg(&file);
        let log = folder.join(format!("{name}.log"));
        let daemon = Daemon::start(&mut command, &log).unwrap();
        Self {
            daemon,
            address,
            management,
        }
    }

    /// What the management listener says at `path`.
    pub fn managed(&self, path: &str) -> Option<(u16, String)> {
        let answer = HttpClient::plain(self.management)
            .send(&Exchange::get(path))
            .ok()?;
        Some((answer.status, answer.body))
    }

    pub fn is_ready(&self) -> bool {
        self.managed("/readyz")
            .is_some_and(|(status, _)| status == 200)
    }

    /// How many changes it has judged.
    pub fn judged(&self) -> u64 {
        let (_, text) = self.managed("/metrics").unwrap_or_default();
        let counts = text
            .lines()
            .filter(|line| line.starts_with("portcullis_admission_decisions_total{"));
        let counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        counts.sum::<f64>() as u64
    }

    /// Waits for readiness.
    pub async fn ready(&self) {
        cluster::until("the webhook is ready", async || self.is_ready()).await;
    }
}

/// Where replicas are, and whether they are ready.
type Replicas = Arc<Mutex<Vec<(SocketAddr, Arc<AtomicBool>)>>>;

/// Forwards connections to ready replicas, one after the other: what a Service is to an API server.
pub struct Service {
    pub address: SocketAddr,
    replicas: Replicas,
    stop: Arc<AtomicBool>,
}

impl Service {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let replicas: Replicas = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (known, stopped, next) = (
            Arc::clone(&replicas),
            Arc::clone(&stop),
            AtomicUsize::new(0),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let known = known.lock().unwrap().clone();
                let ready: Vec<_> = known
                    .iter()
                    .filter(|(_, ready)| ready.load(Ordering::SeqCst))
                    .collect();
                let Some((to, _)) =
                    ready.get(next.fetch_add(1, Ordering::SeqCst) % ready.len().max(1))
                else {
                    continue;
                };
                let (Ok(from), Ok(to)) = (stream, TcpStream::connect(to)) else {
                    continue;
                };
                copy(from.try_clone().unwrap(), to.try_clone().unwrap());
                copy(to, from);
            }
        });
        Self {
            address,
            replicas,
            stop,
        }
    }

    /// Sends connections there while the flag says that it is ready.
    pub fn add(&self, to: SocketAddr) -> Arc<AtomicBool> {
        let ready = Arc::new(AtomicBool::new(true));
        self.replicas.lock().unwrap().push((to, Arc::clone(&ready)));
        ready
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

/// The configuration as `admission webhook-config` prints it, for namespaces with the label `judged: LABEL` only, so
/// that tests do not judge each other's objects.
pub fn configuration(url: &str, name: &str, label: &str, more: &[&str]) -> Value {
    let mut command = Command::new(PORTCULLIS);
    command
        .args([
            "admission",
            "webhook-config",
            "--url",
            url,
            "--namespace",
            "portcullis",
        ])
        .args(more);
    let printed = process::run(&mut command, Duration::from_secs(60)).unwrap();
    assert!(
        printed.status.success(),
        "{}",
        String::from_utf8_lossy(&printed.stderr)
    );
    let file = std::env::temp_dir().join(format!("portcullis-{}-{name}.yaml", std::process::id()));
    std::fs::write(&file, &printed.stdout).unwrap();
    let mut all = cluster::yaml(&file);
    let _ = std::fs::remove_file(&file);
    let mut one = all.remove(0);
    one["metadata"]["name"] = json!(name);
    let selector = &mut one["webhooks"][0]["namespaceSelector"]["matchExpressions"];
    let only = json!({ "key": "judged", "operator": "In", "values": [label] });
    selector.as_array_mut().unwrap().push(only);
    one
}

/// A namespace whose objects are judged by the configuration with this label.
pub async fn judged_namespace(client: &Client, label: &str, more: Value) -> String {
    let name = cluster::namespace(client, label).await;
    let mut labels = more;
    labels["judged"] = json!(label);
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } });
    cluster::apply(client, &object).await.unwrap();
    name
}

/// What an API server answers to a client: status, warnings, body.
#[derive(Debug)]
pub struct Said {
    pub status: u16,
    pub warnings: Vec<String>,
    pub body: Value,
}

impl Said {
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// True when a webhook did not answer as it should.
    pub fn is_failure(&self) -> bool {
        self.status >= 500
    }
}

/// Sends a request as it is, since clients hide warnings.
pub async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Said {
    let media_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media_type)
        .body(Body::from(body))
        .unwrap();
    let sent = tokio::time::timeout(LIMIT, client.send(request))
        .await
        .unwrap();
    let response = sent.unwrap();
    let status = response.status().as_u16();
    let warnings = response.headers().get_all("warning").iter();
    let warnings = warnings
        .map(|value| value.to_str().unwrap_or_default().to_owned())
        .collect();
    let bytes = response.into_body().collect_bytes().await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Said {
        status,
        warnings,
        body,
    }
}

/// Where objects of a kind are, in a namespace.
pub fn path(namespace: &str, plural: &str, name: &str, query: &str) -> String {
    let group = match plural {
        "cedarpolicies" | "policytests" => "portcullis.dev/v1alpha1",
        _ => "security.istio.io/v1",
    };
    let slash = if name.is_empty() { "" } else { "/" };
    format!("/apis/{group}/namespaces/{namespace}/{plural}{slash}{name}{query}")
}

pub fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "name": name }, "spec": spec,
    })
}

pub fn good() -> Value {
    let source = json!({ "principals": ["cluster.local/ns/default/sa/default"] });
    json!({ "action": "DENY", "rules": [{ "from": [{ "source": source }] }] })
}

/// Past the schema, and refused: PC0102.
pub fn bad() -> Value {
    json!({ "action": "DENY" })
}

/// A folder and an API server of a test's own, with every definition; `None` where these tests are skipped.
pub async fn cluster(name: &str) -> Option<(Cluster, Client, PathBuf)> {
    let definitions = cluster::definitions()?;
    let (name, own) = (name.to_owned(), name.to_owned());
    let started = tokio::task::spawn_blocking(move || cluster::start(&name, &[]));
    let cluster = started.await.unwrap()?;
    let client = cluster.client().await;
    cluster::define(&client, &definitions).await;
    cluster::make_namespace(&client, "portcullis").await;
    let folder = run_folder(&format!("{own}-webhook"));
    Some((cluster, client, folder))
}
