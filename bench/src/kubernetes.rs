//! `authz serve` that follows an API server: thousands of policies and pods loaded, then pods that change all the time.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use portcullis_wire::kube::{Cluster, client};
use prost::bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::contender::Contender;

/// Objects are spread over so many namespaces.
const NAMESPACES: usize = 50;
/// Requests to the API server at once.
const AT_ONCE: usize = 16;
/// What is wanted: of a hundred changes, 99 are in force within this.
const WANTED: Duration = Duration::from_millis(500);

/// What `kubernetes` measures, and how.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The `portcullis` executable [default: the one beside this executable]
    #[arg(long)]
    pub portcullis: Option<PathBuf>,
    /// The API server of the tests, `target/components/kube-api-VERSION/kube-api`: started for the measurement
    #[arg(long, required_unless_present = "kubeconfig")]
    api_server: Option<PathBuf>,
    /// A cluster that is there already; it is filled with objects
    #[arg(long, conflicts_with = "api_server")]
    kubeconfig: Option<PathBuf>,
    /// Policies
    #[arg(long, default_value_t = 2000)]
    policies: usize,
    /// Pods
    #[arg(long, default_value_t = 5000)]
    pods: usize,
    /// Pod changes a second
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Seconds of changes
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
}

/// The API server, gone with this.
struct Server {
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(executable: &Path, folder: &Path) -> anyhow::Result<(Self, PathBuf)> {
        let log = folder.join("api-server.log");
        let mut command = Command::new(executable);
        command.arg("-dir").arg(folder.join("api-server"));
        // It ends with its standard input.
        command.stdin(Stdio::piped()).stderr(Stdio::null());
        command.stdout(std::fs::File::create(&log)?);
        let child = command.spawn().context("cannot start the API server")?;
        let mut server = Self { child };
        let started = Instant::now();
        while !std::fs::read_to_string(&log)?.contains("ready https://") {
            ensure!(
                started.elapsed() < Duration::from_secs(120),
                "the API server is not ready"
            );
            if let Some(status) = server.child.try_wait()? {
                bail!("the API server ended, {status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok((server, folder.join("api-server/kubeconfig")))
    }
}

/// Loads, follows, measures and prints.
pub async fn run(options: &Options, portcullis: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_server, kubeconfig) = match (&options.api_server, &options.kubeconfig) {
        (Some(executable), _) => {
            let (server, kubeconfig) = Server::start(executable, folder.path())?;
            (Some(server), kubeconfig)
        }
        (None, Some(kubeconfig)) => (None, std::path::absolute(kubeconfig)?),
        (None, None) => bail!("no API server"),
    };
    let cluster = Cluster {
        kubeconfig: Some(kubeconfig.clone()),
        context: None,
    };
    let client = client(&cluster).await?;
    let loading = Instant::now();
    load(&client, options).await?;
    println!(
        "loaded {} policies and {} pods in {:.1} s",
        options.policies,
        options.pods,
        loading.elapsed().as_secs_f64()
    );

    let management = free_port()?;
    let config = folder.path().join("portcullis.yaml");
    let settings = json!({
        "listeners": [{ "address": "127.0.0.1:0" }],
        "management": { "address": format!("127.0.0.1:{management}") },
        "kubernetes": { "kubeconfig": kubeconfig, "status": "none" },
        "log": { "format": "json" },
    });
    std::fs::write(&config, serde_json::to_vec(&settings)?)?;
    let starting = Instant::now();
    // The listener of operators says so as well.
    let contender = Contender::portcullis(portcullis, &config, 1)?;
    let ready = async |path: &str| fetch(management, path).await;
    while !ready("/readyz")
        .await
        .is_ok_and(|(status, _)| status == 200)
    {
        ensure!(
            starting.elapsed() < Duration::from_secs(300),
            "it is not ready"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let synced = starting.elapsed();
    let before = Seen::of(management, &contender).await?;
    println!(
        "ready after {:.2} s, with {:.1} s of processor time and {} MiB",
        synced.as_secs_f64(),
        before.cpu.as_secs_f64(),
        before.resident >> 20
    );
    let changing = Instant::now();
    let made = change(&client, options).await?;
    let elapsed = changing.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = Seen::of(management, &contender).await?;
    let lag = after.lag.since(&before.lag);
    let (p50, p99) = (lag.quantile(0.5), lag.quantile(0.99));
    println!(
        "{made} pod changes in {:.1} s ({:.1}/s); {} of them seen in force",
        elapsed.as_secs_f64(),
        made as f64 / elapsed.as_secs_f64(),
        lag.count()
    );
    println!("lag p50 {:.1} ms, p99 {:.1} ms", p50 * 1e3, p99 * 1e3);
    println!(
        "processor {:.1} %, resident {} MiB",
        100.0 * (after.cpu - before.cpu).as_secs_f64() / elapsed.as_secs_f64(),
        after.resident >> 20
    );
    let missed = (made as u64).saturating_sub(lag.count());
    ensure!(
        missed * 100 <= made as u64,
        "{missed} changes were not seen"
    );
    let verdict = if p99 <= WANTED.as_secs_f64() {
        "within"
    } else {
        "above"
    };
    println!(
        "p99 is {verdict} the {} ms that are wanted",
        WANTED.as_millis()
    );
    Ok(())
}

fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}

/// Status and body of a page of the management listener.
async fn fetch(port: u16, path: &str) -> anyhow::Result<(u16, String)> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let question = http::Request::get(path)
        .header("host", "portcullis")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(question).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// What the process says of itself, and the operating system of it.
struct Seen {
    lag: Histogram,
    cpu: Duration,
    resident: u64,
}

impl Seen {
    async fn of(management: u16, contender: &Contender) -> anyhow::Result<Self> {
        let (_, text) = fetch(management, "/metrics").await?;
        Ok(Self {
            lag: Histogram::read(&text, "portcullis_source_lag_seconds"),
            cpu: contender.cpu()?,
            resident: contender.resident()?,
        })
    }
}

/// Upper bounds and how many are at or below each.
struct Histogram(Vec<(f64, u64)>);

impl Histogram {
    fn read(text: &str, name: &str) -> Self {
        let prefix = format!("{name}_bucket{{le=\"");
        let buckets = text.lines().filter_map(|line| {
            let (bound, count) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
            let bound = match bound {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().ok()?,
            };
            Some((bound, count.trim().parse().ok()?))
        });
        Self(buckets.collect())
    }

    fn since(&self, before: &Self) -> Self {
        let was = |bound: f64| {
            let known = before.0.iter().find(|(other, _)| *other == bound);
            known.map_or(0, |(_, count)| *count)
        };
        let grown = self
            .0
            .iter()
            .map(|(bound, count)| (*bound, count - was(*bound)));
        Self(grown.collect())
    }

    fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// As Prometheus reckons it: evenly within a bucket.
    fn quantile(&self, share: f64) -> f64 {
        let rank = share * self.count() as f64;
        let (mut low, mut below) = (0.0, 0);
        for (bound, count) in &self.0 {
            if *count as f64 >= rank && *count > below {
                if bound.is_infinite() {
                    return low;
                }
                return low + (bound - low) * (rank - below as f64) / (count - below) as f64;
            }
            (low, below) = (*bound, *count);
        }
        low
    }
}

fn api(
    client: &Client,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

async fn apply(api: &Api<DynamicObject>, object: &Value) -> Result<(), kube::Error> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    let params = PatchParams::apply("portcullis-bench").force();
    let patch = Patch::Apply(object);
    api.patch(name.unwrap_or_default(), &params, &patch)
        .await
        .map(drop)
}

/// Applies until it is taken: kinds and service accounts come a moment after what they hang on.
async fn apply_soon(api: &Api<DynamicObject>, object: &Value) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        match apply(api, object).await {
            Ok(()) => return Ok(()),
            Err(error) if started.elapsed() > Duration::from_secs(60) => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn namespace(number: usize) -> String {
    format!("bench-{}", number % NAMESPACES)
}

async fn load(client: &Client, options: &Options) -> anyhow::Result<()> {
    let definitions = api(
        client,
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        None,
    );
    apply_soon(&definitions, &definition()).await?;
    for number in 0..NAMESPACES {
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace(number) } });
        apply_soon(
            &api(client, "", "v1", "Namespace", "namespaces", None),
            &object,
        )
        .await?;
    }
    let policies = (0..options.policies).map(|number| {
        let namespace = namespace(number);
        let object = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": { "namespace": namespace, "name": format!("policy-{number}") },
            "spec": {
                "selector": { "matchLabels": { "app": format!("app-{}", number % 100) } },
                "action": "ALLOW",
                "rules": [{
                    "from": [{ "source": { "principals": [format!("cluster.local/ns/{namespace}/sa/client-{number}")] } }],
                    "to": [{ "operation": { "methods": ["GET"], "paths": [format!("/api/{number}/*")] } }],
                }],
            },
        });
        (api(client, "security.istio.io", "v1", "AuthorizationPolicy", "authorizationpolicies", Some(&namespace)), object)
    });
    let pods = (0..options.pods).map(|number| {
        let namespace = namespace(number);
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": namespace, "name": format!("pod-{number}"), "labels": { "app": format!("app-{}", number % 100) } },
            "spec": { "containers": [{ "name": "c", "image": "c", "ports": [{ "containerPort": 8080 }] }] },
        });
        (api(client, "", "v1", "Pod", "pods", Some(&namespace)), object)
    });
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (api, object) in policies.chain(pods) {
        let turn = Arc::clone(&turns).acquire_owned().await?;
        tasks.spawn(async move {
            let applied = apply_soon(&api, &object).await;
            drop(turn);
            applied
        });
        while let Some(done) = tasks.try_join_next() {
            done??;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Changes the labels of pods at the rate that is wanted; how many were changed.
async fn change(client: &Client, options: &Options) -> anyhow::Result<usize> {
    let total = (options.seconds * f64::from(options.rate)).round() as usize;
    let mut beat = tokio::time::interval(Duration::from_secs(1) / options.rate.max(1));
    let mut tasks = JoinSet::new();
    for number in 0..total {
        beat.tick().await;
        let pod = number % options.pods.max(1);
        let api = api(client, "", "v1", "Pod", "pods", Some(&namespace(pod)));
        tasks.spawn(async move {
            let change = json!({ "metadata": { "labels": { "change": number.to_string() } } });
            let params = PatchParams::default();
            api.patch(&format!("pod-{pod}"), &params, &Patch::Merge(&change))
                .await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(total)
}

/// AuthorizationPolicy, as far as the API server needs it.
fn definition() -> Value {
    let free = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "authorizationpolicies.security.istio.io" },
        "spec": {
            "group": "security.istio.io", "scope": "Namespaced",
            "names": { "kind": "AuthorizationPolicy", "listKind": "AuthorizationPolicyList", "plural": "authorizationpolicies", "singular": "authorizationpolicy" },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": free, "status": free } } },
            }],
        },
    })
}
