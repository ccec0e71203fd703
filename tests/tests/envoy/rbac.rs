//! The same traffic through Envoy's own RBAC and through ours, side by side: the same verdicts.
//!
//! Policy sets of the corpus with the filters that Istio made of them. For each set one Envoy holds two listeners,
//! alike but for their filters, and everything is sent to both. Nothing recorded is compared: both answers are live,
//! so addresses can be moved onto loopback (10.x and 192.168 become 127.x) in policies and filters alike.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use portcullis_tests::authority::Names;
use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::component::run_folder;
use portcullis_tests::corpus::CaseRequest;
use portcullis_tests::envoy::config::{ExtAuthz, Listener, Service, jwt_authn};
use portcullis_tests::portcullis::Server;
use portcullis_tests::token::Signer;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::setting::{Front, Identities, PORTCULLIS, envoy};

/// Sets in an ordinary run; `PORTCULLIS_RBAC_SETS` asks for more, up to all of them.
const SETS: usize = 60;

/// What is sent over TCP: longer than the head of a TLS record, which Envoy waits for where it has to tell TLS from
/// plain text (15 seconds, then it goes on).
const LINE: &str = "what a client says first\n";

/// The two sides, and the second octet of the addresses that their listeners stand on. Another run of these tests
/// on this machine has other octets.
fn sides() -> [(&'static str, u8); 2] {
    let base = 170 + 2 * u8::try_from(std::process::id() % 40).unwrap();
    [("rbac", base), ("ours", base + 1)]
}

/// A set of the corpus with its filters.
#[derive(Deserialize)]
struct Set {
    id: String,
    policies: Vec<Value>,
    workload: Value,
    mesh: Value,
    #[serde(rename = "useFilterState")]
    use_filter_state: bool,
    rbac_http: Vec<Value>,
    rbac_tcp: Vec<Value>,
    validation: Option<Vec<Value>>,
    requests: Vec<CaseRequest>,
}

impl Set {
    /// What this machine can send: IPv4 only, and sets that Istio's webhook would let in.
    fn usable(&self) -> bool {
        let refused = self
            .validation
            .iter()
            .flatten()
            .any(|said| said["error"].is_string());
        !self.use_filter_state && !refused && self.requests.iter().any(sendable)
    }
}

fn sendable(request: &CaseRequest) -> bool {
    let v4 = |text: &str| text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4());
    v4(&request.source.ip) && v4(&request.destination.ip)
}

/// Moves addresses onto loopback, wherever they stand in a document; the destination's network gets a second octet
/// of its own for each side, so that the two listeners can share a port.
fn moved(value: &Value, destination: u8) -> Value {
    let mut text = value.to_string();
    for network in ["10.200.", "10.201.", "10.202."] {
        text = text.replace(&format!("\"{network}"), &format!("\"127.{destination}."));
    }
    text = text
        .replace("\"10.", "\"127.")
        .replace("\"192.168.", "\"127.168.");
    serde_json::from_str(&text).unwrap()
}

fn moved_address(text: &str, destination: u8) -> IpAddr {
    moved(&json!(text), destination)
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// The filters of a set as Envoy reads them: `typedConfig` is Istio's own spelling.
fn filters(list: &[Value], destination: u8) -> Vec<Value> {
    let spelt =
        |filter: &Value| json!({ "name": filter["name"], "typed_config": filter["typedConfig"] });
    list.iter()
        .map(|filter| moved(&spelt(filter), destination))
        .collect()
}

fn names(request: &CaseRequest) -> Names {
    let source = &request.source;
    let uris = source
        .uri_sans
        .clone()
        .unwrap_or_else(|| source.principal.iter().cloned().collect());
    let common_name = source
        .subject
        .as_deref()
        .and_then(|subject| subject.strip_prefix("CN="));
    Names {
        uris,
        dns: source.dns_sans.clone(),
        common_name: common_name.map(str::to_owned),
    }
}

/// Envoy hands this path over in a form that normalising again would change (`/a/..;/b`). Whoever stands behind Envoy
/// may do so; ours decides both forms and allows only where both are allowed.
fn twice_normalised(request: &CaseRequest) -> bool {
    let seen = request
        .request
        .as_ref()
        .and_then(|http| http.path_seen.as_deref());
    seen.is_some_and(|path| path.contains("/..;") || path.contains("/.;"))
}

/// One set on the stage.
struct Stage<'a> {
    set: &'a Set,
    identities: Identities,
    signer: Signer,
    front: Front,
    _server: Server,
    clients: std::cell::RefCell<BTreeMap<Names, Client>>,
}

/// Listeners are told apart by what they serve, and where.
fn listener(side: &str, request: &CaseRequest) -> String {
    let destination = &request.destination;
    format!(
        "{side}-{}-{}-{}",
        request.protocol, destination.ip, destination.port
    )
}

impl<'a> Stage<'a> {
    fn start(executable: &Path, set: &'a Set) -> Self {
        let folder = run_folder(&format!("rbac-{}", set.id));
        let identities = Identities::new();
        let signer = Signer::new().unwrap();
        let [_, (_, ours)] = sides();
        let mut manifests: Vec<Value> = set
            .policies
            .iter()
            .map(|policy| moved(policy, ours))
            .collect();
        manifests.push(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "it", "namespace": set.workload["namespace"], "labels": set.workload["labels"] },
            "spec": {}, "status": { "phase": "Running" },
        }));
        let manifests =
            json!({ "apiVersion": "v1", "kind": "List", "items": manifests }).to_string();
        let mut mesh = set.mesh.clone();
        mesh["pathNormalization"] = json!({ "normalization": set.mesh["pathNormalization"] });
        let config =
            json!({ "mesh": mesh, "listener": { "debug_headers": true, "target": "sidecar" } });
        let server = Server::start(
            PORTCULLIS.as_ref(),
            &folder,
            &[("all.json", &manifests)],
            &config,
        )
        .unwrap_or_else(|cause| panic!("{}: {cause}", set.id));
        let listeners = Self::listeners(set, &identities, &signer);
        let front = Front::start(executable, &folder, Service::Tcp(server.address), listeners);
        Self {
            set,
            identities,
            signer,
            front,
            _server: server,
            clients: Default::default(),
        }
    }

    fn listeners(set: &Set, identities: &Identities, signer: &Signer) -> Vec<Listener> {
        let workload = format!("{}/it", set.workload["namespace"].as_str().unwrap());
        let settings = ExtAuthz {
            metadata: vec![("x-portcullis-workload".into(), workload)],
            ..ExtAuthz::default()
        };
        let mut made: BTreeMap<String, Listener> = BTreeMap::new();
        for request in set.requests.iter().filter(|request| sendable(request)) {
            for (side, octet) in sides() {
                let name = listener(side, request);
                let ip = moved_address(&request.destination.ip, octet);
                let at = SocketAddr::new(ip, request.destination.port);
                let http = request.protocol == "http";
                let mut made_of = if http {
                    Listener::http(&name)
                } else {
                    Listener::tcp(&name)
                }
                .on(at);
                if http {
                    let mode = set.mesh["pathNormalization"].as_str().unwrap();
                    made_of = made_of
                        .normalisation(mode)
                        .manager("use_remote_address", json!(true))
                        .manager("xff_num_trusted_hops", json!(1))
                        .filter(jwt_authn(&signer.jwks()));
                }
                let rules = match (side, http) {
                    ("ours", true) => vec![settings.http()],
                    ("ours", false) => vec![settings.network()],
                    (_, true) => filters(&set.rbac_http, octet),
                    (_, false) => filters(&set.rbac_tcp, octet),
                };
                made_of = rules.into_iter().fold(made_of, Listener::filter);
                let made_of = made_of
                    .tls(&identities.authority, &identities.server)
                    .also_plain();
                made.insert(name, made_of);
            }
        }
        made.into_values().collect()
    }

    /// What one side answers: a status for HTTP, 0 or 1 for a TCP connection that was closed or served.
    fn answer(&self, side: &str, request: &CaseRequest) -> std::io::Result<(u16, String)> {
        let address = self.front.address(&listener(side, request));
        let mut client = if !request.source.tls {
            Client::plain(address)
        } else if names(request) == Names::default() {
            self.identities.anonymous(address)
        } else {
            let mut clients = self.clients.borrow_mut();
            let known = clients.entry(names(request));
            known
                .or_insert_with_key(|names| self.identities.client(address, names))
                .clone()
        };
        client.address = address;
        client.sni = request.sni.clone();
        client.source = Some(moved_address(&request.source.ip, 0));
        let Some(http) = &request.request else {
            let echoed = client.echo(LINE)?;
            return Ok((u16::from(echoed == LINE), String::new()));
        };
        let mut exchange = Exchange::get(&http.path)
            .method(&http.method)
            .host(&http.host);
        for (name, value) in &http.headers {
            exchange = exchange.header(name, value);
        }
        if request.remote_ip != request.source.ip {
            exchange = exchange.header("x-forwarded-for", &request.remote_ip);
        }
        if let Some(payload) = &request.jwt {
            let token = self.signer.sign(payload)?;
            exchange = exchange.header("authorization", &format!("Bearer {token}"));
        }
        let answer = client.send(&exchange)?;
        Ok((
            answer.status,
            answer
                .header("x-portcullis-reason")
                .unwrap_or("")
                .to_owned(),
        ))
    }

    /// How many requests were compared and allowed, and the differences.
    fn compare(&self) -> (usize, usize, String) {
        let (mut compared, mut allowed, mut differences) = (0, 0, String::new());
        for request in self.set.requests.iter().filter(|request| sendable(request)) {
            let (theirs, ours) = (self.answer("rbac", request), self.answer("ours", request));
            match (theirs, ours) {
                (Ok((theirs, _)), Ok((ours, reason))) => {
                    compared += 1;
                    allowed += usize::from(theirs == 200 || theirs == 1);
                    if theirs != ours && !(ours == 403 && twice_normalised(request)) {
                        let set = &self.set.id;
                        writeln!(
                            differences,
                            "{set}: rbac {theirs}, ours {ours} {reason}: {request:?}"
                        )
                        .unwrap();
                    }
                }
                other => writeln!(differences, "{}: {other:?}: {request:?}", self.set.id).unwrap(),
            }
        }
        (compared, allowed, differences)
    }
}

#[test]
fn envoys_own_rbac_and_ours_give_the_same_verdicts_on_the_same_traffic() {
    let Some(executable) = envoy() else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora/real-envoy/cases.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let sets = text
        .lines()
        .map(|line| serde_json::from_str::<Set>(line).unwrap());
    let sets: Vec<Set> = sets.filter(Set::usable).collect();
    let asked = std::env::var("PORTCULLIS_RBAC_SETS")
        .ok()
        .and_then(|text| text.parse().ok());
    let step = (sets.len() / asked.unwrap_or(SETS).clamp(1, sets.len())).max(1);
    let (mut compared, mut allowed, mut differences) = (0, 0, String::new());
    for set in sets.iter().step_by(step) {
        let found = Stage::start(&executable, set).compare();
        compared += found.0;
        allowed += found.1;
        differences += &found.2;
    }
    assert!(differences.is_empty(), "of {compared}:\n{differences}");
    assert!(
        compared > 200 && allowed > 20 && allowed < compared,
        "{allowed} of {compared} allowed"
    );
}
