//! Under load, with other policies every second: memory stays flat, and every answer is the engine's own
//! verdict for a snapshot that was in force while it was given.
//!
//! `PORTCULLIS_SOAK=10m` lets it run longer than a minute.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use envoy_types::ext_authz::v3::pb::CheckRequest;
use envoy_types::pb::google::protobuf::value::Kind;
use portcullis_authz::check_request::from_json;
use portcullis_authz::client::Client as Asker;
use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::http::{Dialect, Options as HttpOptions, Peer};
use portcullis_authz::{check, decide, facts, http};
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::decision::Decision;
use portcullis_policy::document::SourceText;
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::Snapshot;
use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::component::run_folder;
use portcullis_tests::portcullis::Server;
use portcullis_tests::ports::free_address;
use portcullis_tests::process::poll;
use serde_json::{Value, json};

use crate::PORTCULLIS;

const PATIENCE: Duration = Duration::from_secs(30);

/// Growth that is no leak: caches fill, and allocators keep what they had.
const SLACK: u64 = 8 << 20;

/// What is asked for, again and again; some of it is decided otherwise by each set of policies.
const PATHS: [&str; 7] = [
    "/shared",
    "/even",
    "/odd",
    "/admin/x",
    "/nothing",
    "/filler/3/x",
    "/filler/13/y",
];

const INVENTORY: &str = "apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, labels: { app: web } }
spec: { serviceAccountName: web }
status: { phase: Running, podIP: 10.0.0.1 }
";

/// The policies of generation `n`.
fn generation(n: usize) -> String {
    let (open, closed) = match n.is_multiple_of(2) {
        true => ("/even", "/odd"),
        false => ("/odd", "/even"),
    };
    let policy = |name: &str, action: &str, paths: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{ name: {name}-{n}, namespace: shop }}\n\
             spec: {{ action: {action}, rules: [ {{ to: [ {{ operation: {{ paths: [ {paths} ] }} }} ] }} ] }}\n"
        )
    };
    let mut text = policy("open", "ALLOW", &format!("/shared, {open}"));
    text += &policy("closed", "DENY", &format!("\"/admin*\", {closed}"));
    for filler in 0..20 {
        text += &policy(
            &format!("filler{filler}"),
            "ALLOW",
            &format!("\"/filler/{filler}/*\""),
        );
    }
    text
}

fn how_long() -> Duration {
    let Ok(text) = std::env::var("PORTCULLIS_SOAK") else {
        return Duration::from_secs(60);
    };
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let number: u64 = number
        .parse()
        .expect("PORTCULLIS_SOAK is a number with `s` or `m`");
    match unit {
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        _ => panic!("PORTCULLIS_SOAK is a number with `s` or `m`, such as `10m`"),
    }
}

fn question(path: &str) -> CheckRequest {
    let json = json!({"attributes": {
        "source": {"address": {"socketAddress": {"address": "10.0.0.9", "portValue": 40000}}},
        "destination": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 8080}}},
        "request": {"http": {"method": "GET", "path": path, "host": "web.shop", "scheme": "http"}},
    }});
    from_json(json.to_string().as_bytes()).unwrap()
}

/// What the engine says of every path, over gRPC and over HTTP.
struct Verdicts {
    grpc: Vec<Decision>,
    http: Vec<Decision>,
}

fn exchange(path: &str) -> Exchange {
    Exchange::get("/")
        .header("x-forwarded-method", "GET")
        .header("x-forwarded-uri", path)
        .header("x-forwarded-host", "web.shop")
        .header("x-forwarded-proto", "http")
}

impl Verdicts {
    fn of(snapshot: &Arc<Snapshot>) -> Self {
        let options = facts::Options::default();
        let grpc = PATHS.iter().map(|path| {
            let metadata = tonic::metadata::MetadataMap::new();
            decide::decide(snapshot, question(path), &metadata, &options)
        });
        let mut options = HttpOptions::new(Dialect::Traefik);
        options.workload = Some("shop/web".to_owned());
        let peer = Peer {
            address: Some([127, 0, 0, 1].into()),
            ..Peer::default()
        };
        let http = PATHS.iter().map(|path| {
            let exchange = exchange(path);
            let mut request =
                tonic::codegen::http::Request::get("/").header("host", &exchange.host);
            for (name, value) in &exchange.headers {
                request = request.header(name, value);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let proxies = snapshot.mesh().num_trusted_proxies;
            check::decide(snapshot, http::request(&parts, &peer, &options, proxies))
        });
        Self {
            grpc: grpc.collect(),
            http: http.collect(),
        }
    }
}

/// The generations so far. Written before they can be in force, confirmed once they are.
#[derive(Default)]
struct History {
    generations: RwLock<HashMap<String, (u64, Arc<Verdicts>)>>,
    written: AtomicU64,
    confirmed: AtomicU64,
}

impl History {
    /// Checks what was answered to a question sent when `confirmed` was in force.
    fn judge(&self, confirmed: u64, revision: &str, verdict: impl Fn(&Verdicts) -> Option<String>) {
        let written = self.written.load(Ordering::SeqCst);
        let known = self.generations.read().unwrap().get(revision).cloned();
        let (generation, verdicts) =
            known.unwrap_or_else(|| panic!("a snapshot of nobody: {revision}"));
        assert!(
            (confirmed..=written).contains(&generation),
            "decided by {generation}, while {confirmed} to {written} can have been in force"
        );
        if let Some(wrong) = verdict(&verdicts) {
            panic!("wrong by generation {generation}: {wrong}");
        }
    }
}

fn text<'a>(decision: &'a envoy_types::pb::google::protobuf::Struct, name: &str) -> &'a str {
    match &decision.fields[name].kind {
        Some(Kind::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Asks over gRPC until it is over.
fn ask_grpc(address: SocketAddr, history: &History, over: &AtomicBool) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut client = Asker::connect(&Endpoint::Tcp(address)).await.unwrap();
        let mut asked = 0;
        while !over.load(Ordering::SeqCst) {
            for (index, path) in PATHS.iter().enumerate() {
                let confirmed = history.confirmed.load(Ordering::SeqCst);
                let answer = client.check(tonic::Request::new(question(path))).await;
                let answer = answer.expect("no check is lost");
                let metadata = answer.dynamic_metadata.as_ref().unwrap();
                let Some(Kind::StructValue(said)) = &metadata.fields["portcullis"].kind else {
                    panic!("no decision: {metadata:?}");
                };
                history.judge(confirmed, text(said, "snapshot"), |verdicts| {
                    let own = &verdicts.grpc[index];
                    let code = answer.status.as_ref().unwrap().code;
                    let same = (code == 0) == own.is_allow()
                        && text(said, "reason") == own.reason.as_str();
                    (!same).then(|| format!("{path}: {said:?} instead of {own:?}"))
                });
                asked += 1;
            }
        }
        asked
    })
}

/// Asks over HTTP until it is over. A denial says which snapshot; an allow which policy, whose name does.
fn ask_http(address: SocketAddr, history: &History, over: &AtomicBool) -> u64 {
    let mut connection = Client::plain(address).connect().unwrap();
    let mut asked = 0;
    while !over.load(Ordering::SeqCst) {
        for (index, path) in PATHS.iter().enumerate() {
            let confirmed = history.confirmed.load(Ordering::SeqCst);
            let answer = connection.send(&exchange(path)).expect("no check is lost");
            let policy = answer.header("x-portcullis-policy");
            let reason = answer.header("x-portcullis-reason").expect("a reason");
            let revision = match answer.status {
                200 => {
                    let policy = policy.expect("an allow has a policy");
                    let all = history.generations.read().unwrap();
                    let of = |v: &Verdicts| {
                        v.http[index].policies.first().map(String::as_str) == Some(policy)
                    };
                    let found = all.iter().find(|(_, (_, verdicts))| of(verdicts));
                    found
                        .map(|(revision, _)| revision.clone())
                        .unwrap_or_else(|| panic!("{path}: {answer:?}"))
                }
                403 => {
                    let body: Value = serde_json::from_str(&answer.body).unwrap();
                    body["snapshot"].as_str().unwrap().to_owned()
                }
                other => panic!("{path}: {other}: {answer:?}"),
            };
            history.judge(confirmed, &revision, |verdicts| {
                let own = &verdicts.http[index];
                let same = (answer.status == 200) == own.is_allow()
                    && reason == own.reason.as_str()
                    && policy == own.policies.first().map(String::as_str);
                (!same).then(|| format!("{path}: {answer:?} instead of {own:?}"))
            });
            asked += 1;
        }
    }
    asked
}

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

struct Stage {
    server: Server,
    management: SocketAddr,
    history: History,
}

impl Stage {
    /// Compiles generation `n` as the server will.
    fn announce(&self, n: usize) {
        let text = |name: &str, text: String| SourceText {
            file: self
                .server
                .policies
                .join(name)
                .display()
                .to_string()
                .as_str()
                .into(),
            bytes: text.into_bytes().into(),
        };
        let documents = Documents {
            base: vec![
                text("inventory.yaml", INVENTORY.to_owned()),
                text("policies.yaml", generation(n)),
            ],
            candidate: None,
        };
        let settings = Settings {
            serving: true,
            ..Settings::default()
        };
        let snapshot = Arc::new(compile(&documents, &settings).unwrap());
        let entry = (n as u64, Arc::new(Verdicts::of(&snapshot)));
        let revision = snapshot.revision().to_owned();
        self.history
            .generations
            .write()
            .unwrap()
            .insert(revision, entry);
        self.history.written.store(n as u64, Ordering::SeqCst);
    }

    /// Waits until generation `n` is in force.
    fn confirm(&self, n: usize) {
        let in_force = || {
            let answer = Client::plain(self.management)
                .send(&Exchange::get("/readyz"))
                .ok()?;
            let report: Value = serde_json::from_str(&answer.body).ok()?;
            let revision = report["snapshot"]["revision"].as_str()?.to_owned();
            let known = self.history.generations.read().unwrap();
            known
                .get(&revision)
                .is_some_and(|(of, _)| *of == n as u64)
                .then_some(())
        };
        assert!(
            poll(PATIENCE, in_force).is_some(),
            "{}",
            self.server.log_end()
        );
        self.history.confirmed.store(n as u64, Ordering::SeqCst);
    }
}

#[test]
fn answers_stay_right_and_memory_flat_while_policies_change() {
    let length = how_long();
    let folder = run_folder("serving-soak");
    let (http, management) = (free_address().unwrap(), free_address().unwrap());
    let config = json!({
        "reload": { "settle": "20ms", "poll": "1s" },
        "management": { "address": management.to_string() },
        "listeners": [{
            "address": http.to_string(),
            "dialect": "traefik",
            "workload": "shop/web",
            "body": "decision",
            "debug_headers": true,
        }],
    });
    let first = generation(0);
    let manifests = [("policies.yaml", &*first), ("inventory.yaml", INVENTORY)];
    let server = Server::start(PORTCULLIS.as_ref(), &folder, &manifests, &config)
        .unwrap_or_else(|cause| panic!("{cause}"));
    let (address, pid) = (server.address, server.pid());
    let stage = Stage {
        server,
        management,
        history: History::default(),
    };
    stage.announce(0);
    stage.confirm(0);

    let over = AtomicBool::new(false);
    let (mut samples, mut generations) = (Vec::new(), 0);
    let asked: u64 = thread::scope(|scope| {
        let (history, over) = (&stage.history, &over);
        let callers: Vec<_> = (0..2)
            .flat_map(|_| {
                [
                    scope.spawn(move || ask_grpc(address, history, over)),
                    scope.spawn(move || ask_http(http, history, over)),
                ]
            })
            .collect();
        let start = Instant::now();
        // A caller that is surprised ends the whole.
        while start.elapsed() < length && callers.iter().all(|caller| !caller.is_finished()) {
            let begun = Instant::now();
            generations += 1;
            stage.announce(generations);
            stage
                .server
                .replace("policies.yaml", &generation(generations))
                .unwrap();
            stage.confirm(generations);
            samples.push(resident(pid));
            thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
        }
        over.store(true, Ordering::SeqCst);
        callers
            .into_iter()
            .map(|caller| caller.join().expect("every answer is right"))
            .sum()
    });
    let third = samples.len() / 3;
    assert!(third >= 2, "{generations} reloads in {length:?}");
    let after_a_third = median(&samples[third..(third * 2).max(third + 1)]);
    let at_the_end = median(&samples[samples.len() - third..]);
    println!(
        "{asked} answers, {generations} reloads, {} kB after a third, {} kB at the end",
        after_a_third >> 10,
        at_the_end >> 10
    );
    assert!(asked > 1000, "{asked} answers are no load");
    assert!(
        at_the_end <= after_a_third + after_a_third / 10 + SLACK,
        "memory grows: {after_a_third} bytes after a third, {at_the_end} at the end: {samples:?}"
    );
}
