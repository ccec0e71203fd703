//! The power goes at every point between two writes; what was promised before holds after the restart.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use serde_json::{Value, json};

use super::*;
use crate::ca::issue::{JwtRequest, Requester};
use crate::x509::certificate::hex;

/// What is done, in this order, and the points that each comes by.
const STEPS: &[(&str, &[&str])] = &[
    (
        "start",
        &[
            "key made",
            "key stored",
            "written",
            "recorded",
            "committed",
            "read back",
            "published",
        ],
    ),
    ("entry", &["written", "recorded", "committed"]),
    ("x509", &["intended", "signed", "issued"]),
    ("jwt", &["intended", "signed", "issued"]),
    (
        "prepare",
        &[
            "key made",
            "key stored",
            "written",
            "recorded",
            "committed",
            "read back",
            "published",
        ],
    ),
    (
        "activate",
        &["written", "recorded", "committed", "read back", "published"],
    ),
    ("renew", &["intended", "signed", "issued"]),
    (
        "taint",
        &[
            "written",
            "recorded",
            "committed",
            "read back",
            "published",
            "over",
        ],
    ),
    (
        "revoke",
        &[
            "written",
            "recorded",
            "committed",
            "read back",
            "published",
            "over",
        ],
    ),
    (
        "emergency",
        &[
            "key made",
            "key stored",
            "written",
            "recorded",
            "committed",
            "read back",
            "published",
            "over",
        ],
    ),
    (
        "prune",
        &[
            "written",
            "recorded",
            "committed",
            "read back",
            "published",
            "over",
        ],
    ),
];

const FOLDER: &str = "CRASH_FOLDER";
const AT: &str = "CRASH_AT";

/// What the outside world was given: it stays when the process dies.
struct World(File);

impl World {
    fn tell(&mut self, what: Value) {
        writeln!(self.0, "{what}").unwrap();
    }

    /// A stream gets the bundle.
    fn serve(&mut self, ca: &Ca) {
        let bundle = ca.bundle();
        self.tell(json!({"sequence": bundle.sequence, "content": content(&bundle)}));
    }

    async fn svid(&mut self, ca: &Ca) {
        let svid = svid(ca, &["unix:uid:7"]).await;
        let (serial, root) = leaf(&svid);
        self.tell(json!({"svid": serial, "root": root}));
    }

    async fn token(&mut self, ca: &Ca) {
        let request = JwtRequest {
            spiffe_id: SpiffeId::parse("spiffe://example.org/x").unwrap(),
            audiences: vec!["a".to_owned()],
            ttl: None,
            entry: None,
        };
        let issued = ca.issue_jwt(vec![request], &Requester::admin("test")).await;
        let token = issued.unwrap().remove(0).unwrap().token;
        let hash = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        self.tell(json!({"token": hex(hash.as_ref())}));
    }
}

/// Key identifiers of the roots.
fn content(bundle: &Bundle) -> BTreeSet<String> {
    let roots = bundle.x509_authorities.iter().map(|root| {
        let hash = ring::digest::digest(&ring::digest::SHA256, &root.der);
        format!("{}{}", hex(hash.as_ref()), root.tainted)
    });
    let keys = bundle.jwt_authorities.iter();
    roots
        .chain(keys.map(|key| format!("{}{}", key.key_id, key.tainted)))
        .collect()
}

/// Serial number, and the key identifier of the authority.
fn leaf(svid: &X509Svid) -> (String, String) {
    use x509_parser::prelude::FromDer as _;
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&svid.chain[0]).unwrap();
    let key_id = parsed
        .extensions()
        .iter()
        .find_map(|one| match one.parsed_extension() {
            x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => {
                id.key_identifier.as_ref().map(|id| hex(id.0))
            }
            _ => None,
        });
    // DER drops the zeros in front.
    (
        format!("{:0>32}", hex(parsed.raw_serial())),
        key_id.unwrap(),
    )
}

/// Key identifiers of the roots of the bundle.
fn key_ids(bundle: &Bundle) -> BTreeSet<String> {
    use x509_parser::prelude::FromDer as _;
    let ids = bundle.x509_authorities.iter().map(|root| {
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&root.der).unwrap();
        let id = crate::x509::certificate::key_id(&parsed.public_key().subject_public_key.data);
        hex(&id)
    });
    ids.collect()
}

/// The life of a process that dies at `step` and `point`.
async fn life(folder: &Path, step: &str, point: &str) {
    let world = File::options()
        .create(true)
        .append(true)
        .open(folder.join("world"));
    let mut world = World(world.unwrap());
    let begin = |now: &str| {
        if now == step {
            crate::fail::arm(point);
        }
    };
    let clock = TestClock::new();
    begin("start");
    let mut options = options(&folder.join("data"));
    options.authority_ttl = Duration::from_secs(3600);
    let ca = open(options, &clock).await;
    world.serve(&ca);
    begin("entry");
    let entry = create(&ca, entry("/x", &["unix:uid:7"])).await;
    world.tell(json!({"entry": entry.id}));
    begin("x509");
    world.svid(&ca).await;
    begin("jwt");
    world.token(&ca).await;
    let kind = AuthorityKind::X509;
    let first = ca.authorities().active(kind).unwrap().row.id.clone();
    begin("prepare");
    let second = ca.prepare(kind, "test").await.unwrap().row.id.clone();
    world.serve(&ca);
    begin("activate");
    ca.activate(kind, &second, "test").await.unwrap();
    world.serve(&ca);
    begin("renew");
    clock.advance(Duration::from_secs(1801));
    world.svid(&ca).await;
    begin("taint");
    ca.taint(kind, &first, false, "test").await.unwrap();
    world.serve(&ca);
    begin("revoke");
    ca.revoke(kind, &first, "test").await.unwrap();
    world.serve(&ca);
    begin("emergency");
    ca.taint(kind, &second, true, "test").await.unwrap();
    world.serve(&ca);
    begin("prune");
    clock.advance(Duration::from_secs(7200));
    ca.tick().await.unwrap();
    clock.advance(Duration::from_secs(60));
    ca.tick().await.unwrap();
    world.serve(&ca);
}

/// Everything that was promised, against what is there after a restart.
async fn holds(folder: &Path, at: &str) {
    let told = std::fs::read_to_string(folder.join("world")).unwrap_or_default();
    let told: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let clock = TestClock::new();
    // As late as it was when the power went.
    clock.advance(match at.split(':').next().unwrap() {
        "renew" | "taint" | "revoke" | "emergency" => Duration::from_secs(1801),
        "prune" => Duration::from_secs(1801 + 7200 + 61),
        _ => Duration::ZERO,
    });
    let ca = open(options(&folder.join("data")), &clock).await;
    let now = json!({"sequence": ca.bundle().sequence, "content": content(&ca.bundle())});
    let mut by_sequence: BTreeMap<u64, Value> = BTreeMap::new();
    let mut last = 0;
    for bundle in told
        .iter()
        .filter(|one| one.get("sequence").is_some())
        .chain([&now])
    {
        let sequence = bundle["sequence"].as_u64().unwrap();
        assert!(
            sequence >= last,
            "{at}: the sequence went back from {last} to {sequence}"
        );
        last = sequence;
        let known = by_sequence
            .entry(sequence)
            .or_insert_with(|| bundle["content"].clone());
        assert_eq!(
            known, &bundle["content"],
            "{at}: one sequence, two contents"
        );
    }
    let records = events(&ca);
    let has = |event: &str, field: &str, value: &Value| {
        records
            .iter()
            .any(|record| record["event"] == event && record[field] == *value)
    };
    for one in &told {
        if let Some(serial) = one.get("svid") {
            assert!(
                has("x509_issued", "serial", serial),
                "{at}: an SVID without its record"
            );
        }
        if let Some(token) = one.get("token") {
            assert!(
                has("jwt_issued", "token_sha256", token),
                "{at}: a token without its record"
            );
        }
        if let Some(id) = one.get("entry") {
            let index = ca.registry().index();
            assert!(
                index.entry(id.as_str().unwrap()).is_some(),
                "{at}: an entry is gone"
            );
        }
    }
    // Whatever the state is, it signs, and under a root that everybody has been given.
    if ca.registry().index().is_empty() {
        create(&ca, entry("/x", &["unix:uid:7"])).await;
    }
    let fresh = svid(&ca, &["unix:uid:7"]).await;
    let (_, authority) = leaf(&fresh);
    assert!(
        key_ids(&ca.bundle()).contains(&authority),
        "{at}: the root is in no bundle"
    );
    let set = ca.authorities();
    let signer = set.active(AuthorityKind::X509).unwrap();
    let was_seen = told
        .iter()
        .rev()
        .find_map(|one| Some((one["sequence"].as_u64()?, one.get("content")?)));
    let waits_for_nobody = at.starts_with("emergency") || at.starts_with("prune");
    if let (Some((_, seen)), false) = (was_seen, waits_for_nobody) {
        let root = ring::digest::digest(&ring::digest::SHA256, signer.row.root.as_ref().unwrap());
        let root = hex(root.as_ref());
        let seen = seen.as_array().unwrap();
        assert!(
            seen.iter()
                .any(|one| one.as_str().unwrap().starts_with(&root)),
            "{at}: it signs under a root that streams had not been given"
        );
    }
    // And goes on: the next rotation finds nothing in its way.
    if let Some(prepared) = set.newest(AuthorityKind::X509, AuthorityState::Prepared) {
        let id = prepared.row.id.clone();
        ca.activate(AuthorityKind::X509, &id, "test").await.unwrap();
    }
    let next = ca.prepare(AuthorityKind::X509, "test").await.unwrap();
    assert!(
        ca.bundle().sequence > last,
        "{at}: the sequence does not grow"
    );
    ca.activate(AuthorityKind::X509, &next.row.id, "test")
        .await
        .unwrap();
}

#[test]
fn a_crash_at_any_point_breaks_no_promise() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    if let (Some(folder), Ok(at)) = (std::env::var_os(FOLDER), std::env::var(AT)) {
        let (step, point) = at.split_once(": ").unwrap();
        runtime().block_on(life(Path::new(&folder), step, point));
        return;
    }
    let all: Vec<String> = STEPS
        .iter()
        .flat_map(|(step, points)| points.iter().map(move |point| format!("{step}: {point}")))
        .collect();
    assert!(all.len() > 50);
    // A few at a time: each is a process of its own, mostly waiting for the disk.
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(at) =
                    all.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    let folder = tempfile::tempdir().unwrap();
                    let died = Command::new(std::env::current_exe().unwrap())
                        .args([
                            "--exact",
                            "ca::tests::crash::a_crash_at_any_point_breaks_no_promise",
                        ])
                        .env(FOLDER, folder.path())
                        .env(AT, at)
                        .output()
                        .unwrap();
                    assert_eq!(died.status.signal(), Some(6), "{at}: {died:?}");
                    runtime().block_on(holds(folder.path(), at));
                }
            });
        }
    });
}

#[tokio::test]
async fn a_life_without_a_crash_keeps_its_promises_too() {
    let folder = tempfile::tempdir().unwrap();
    life(folder.path(), "never", "never").await;
    holds(folder.path(), "prune: never").await;
}
