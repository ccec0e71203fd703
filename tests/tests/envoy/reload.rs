//! Policies change under load: no request is lost, none is decided by a snapshot that was not live.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::component::run_folder;
use portcullis_tests::envoy::config::{ExtAuthz, Listener, Service};
use portcullis_tests::portcullis::Server;
use portcullis_tests::process::poll;
use serde_json::json;

use crate::setting::{Front, PORTCULLIS, envoy, pod};

const FLIPS: usize = 300;
const CLIENTS: usize = 4;

/// Version `n` of the policies: even ones allow `/even`, odd ones `/odd`; each names itself.
fn version(n: usize) -> String {
    let (open, closed) = if n.is_multiple_of(2) {
        ("/even", "/odd")
    } else {
        ("/odd", "/even")
    };
    let policy = |action: &str, path: &str| {
        let name = action.to_lowercase();
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{ name: {name}-{n}, namespace: shop }}\n\
             spec: {{ action: {action}, rules: [ {{ to: [ {{ operation: {{ paths: [ {path} ] }} }} ] }} ] }}\n"
        )
    };
    format!("{}---\n{}", policy("ALLOW", open), policy("DENY", closed))
}

/// One answer and what it says of itself.
#[derive(Clone, Copy, Debug)]
struct Seen {
    sent: Instant,
    received: Instant,
    version: usize,
}

/// Sends one request and reads from the answer which version decided it.
///
/// # Errors
/// What is wrong with the answer.
fn ask(client: &Client, path: &str) -> Result<Seen, String> {
    let sent = Instant::now();
    let answer = client
        .send(&Exchange::get(path))
        .map_err(|cause| format!("lost: {cause}"))?;
    let received = Instant::now();
    let policy = answer.header("x-portcullis-policy").unwrap_or("");
    let version = policy
        .strip_suffix("#rule[0]")
        .and_then(|name| name.rsplit_once('-'))
        .and_then(|(_, number)| number.parse::<usize>().ok())
        .ok_or_else(|| format!("{path}: no policy decided: {answer:?}"))?;
    let open = if version.is_multiple_of(2) {
        "/even"
    } else {
        "/odd"
    };
    let expected = if path == open {
        (200, "allow")
    } else {
        (403, "deny")
    };
    let named = format!("shop/{}-{version}#rule[0]", expected.1);
    if (answer.status, policy) == (expected.0, named.as_str()) {
        return Ok(Seen {
            sent,
            received,
            version,
        });
    }
    Err(format!(
        "{path}: version {version} does not say so: {answer:?}"
    ))
}

#[test]
fn flipping_policies_under_load_gives_no_wrong_and_no_lost_answer() {
    let Some(executable) = envoy() else { return };
    let folder = run_folder("reload-under-load");
    let pods = pod("shop", "web");
    let manifests = [("flip.yaml", version(0)), ("pods.yaml", pods)];
    let manifests = manifests
        .each_ref()
        .map(|(name, text)| (*name, text.as_str()));
    let config = json!({ "listener": { "debug_headers": true } });
    let server = Server::start(PORTCULLIS.as_ref(), &folder, &manifests, &config)
        .unwrap_or_else(|cause| panic!("{cause}"));
    let listener = Listener::http("web")
        .extension("portcullis.workload", "shop/web")
        .filter(ExtAuthz::default().http());
    let front = Front::start(
        &executable,
        &folder,
        Service::Tcp(server.address),
        vec![listener],
    );
    let client = Client::plain(front.address("web"));

    let over = AtomicBool::new(false);
    let newest = AtomicUsize::new(0);
    let (written, seen, wrong) = thread::scope(|scope| {
        let asking: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let (mut seen, mut wrong) = (Vec::new(), Vec::new());
                    while !over.load(Ordering::SeqCst) {
                        for path in ["/even", "/odd"] {
                            match ask(&client, path) {
                                Ok(answer) => {
                                    newest.fetch_max(answer.version, Ordering::SeqCst);
                                    seen.push(answer);
                                }
                                Err(what) => wrong.push(what),
                            }
                        }
                    }
                    (seen, wrong)
                })
            })
            .collect();
        // When each version began to exist as a file: an answer before that cannot know it.
        let mut written = vec![Instant::now()];
        for n in 1..=FLIPS {
            // Uneven, so that changes come before, within and after the time that reload waits for quiet.
            thread::sleep(Duration::from_millis([5, 20, 50, 180][n % 4]));
            written.push(Instant::now());
            server.replace("flip.yaml", &version(n)).unwrap();
        }
        let last = poll(Duration::from_secs(30), || {
            (newest.load(Ordering::SeqCst) == FLIPS).then_some(())
        });
        over.store(true, Ordering::SeqCst);
        let (mut seen, mut wrong) = (Vec::new(), Vec::new());
        for one in asking {
            let found = one.join().unwrap();
            seen.extend(found.0);
            wrong.extend(found.1);
        }
        assert!(
            last.is_some(),
            "the last version never became live\n{}",
            server.log_end()
        );
        (written, seen, wrong)
    });

    assert!(
        wrong.is_empty(),
        "{} of {}: {:#?}",
        wrong.len(),
        seen.len(),
        &wrong[..wrong.len().min(5)]
    );
    assert_eq!(front.envoy.counter("ext_authz.error").unwrap(), 0);
    assert_eq!(front.envoy.counter("ext_authz.timeout").unwrap_or(0), 0);
    live_when_they_answered(seen.clone(), &written);
    let mut versions: Vec<usize> = seen.iter().map(|answer| answer.version).collect();
    versions.sort_unstable();
    versions.dedup();
    assert!(
        seen.len() > 2 * FLIPS,
        "the load was real: {} answers",
        seen.len()
    );
    assert!(
        versions.len() > 20,
        "reload kept up with its load: versions {versions:?}"
    );
}

/// Each answer's version existed when it was received, and none newer had answered before it was sent.
fn live_when_they_answered(mut seen: Vec<Seen>, written: &[Instant]) {
    for answer in &seen {
        assert!(
            answer.received >= written[answer.version],
            "decided by a file not yet written: {answer:?}"
        );
    }
    let mut by_receipt = seen.clone();
    by_receipt.sort_by_key(|answer| answer.received);
    seen.sort_by_key(|answer| answer.sent);
    let mut before = by_receipt.iter().peekable();
    let mut newest = 0;
    for answer in &seen {
        while let Some(earlier) = before.next_if(|earlier| earlier.received < answer.sent) {
            newest = newest.max(earlier.version);
        }
        assert!(
            answer.version >= newest,
            "version {newest} was live already: {answer:?}"
        );
    }
}

#[test]
fn the_liveness_rule_sees_stale_and_premature_answers() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let seen = |sent, received, version| Seen {
        sent: at(sent),
        received: at(received),
        version,
    };
    let written = [at(0), at(10), at(20)];
    live_when_they_answered(
        vec![
            seen(1, 2, 0),
            seen(11, 15, 1),
            seen(12, 16, 0),
            seen(17, 25, 2),
        ],
        &written,
    );
    let refused = |answers: Vec<Seen>| {
        std::panic::catch_unwind(|| live_when_they_answered(answers, &written)).is_err()
    };
    assert!(refused(vec![seen(11, 15, 1), seen(16, 17, 0)]), "stale");
    assert!(refused(vec![seen(1, 5, 1)]), "premature");
}
