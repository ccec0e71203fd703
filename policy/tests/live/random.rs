//! Random histories: whatever came before, a store is what a new one would be, and what files would be.
//!
//! `PROPTEST_CASES` counts histories of 40 changes, 8 when it is not set.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::decision::{Decision, Reason};
use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, ObjectKey, Store};
use portcullis_policy::request::{Headers, Http, Identity, IdentityKind, Request, Target};
use portcullis_policy::settings::{DeclaredWorkload, Settings};
use portcullis_policy::snapshot::Snapshot;
use proptest::collection::vec;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::objects::{ADDRESSES, NAMES, NAMESPACES, Version, pods, version};

fn settings() -> Settings {
    Settings {
        workloads: vec![DeclaredWorkload {
            namespace: "shop".into(),
            name: "declared".into(),
            addresses: vec!["10.0.0.4".parse().unwrap()],
            ..DeclaredWorkload::default()
        }],
        ..Settings::default()
    }
}

/// What is in force: the last good version, else the bad one that was never seen good.
#[derive(Default)]
struct Effective(BTreeMap<ObjectKey, Version>);

impl Effective {
    fn take(&mut self, version: &Version) {
        if version.text.is_none() {
            self.0.remove(&version.key);
        } else if version.good || self.0.get(&version.key).is_none_or(|before| !before.good) {
            self.0.insert(version.key.clone(), version.clone());
        }
    }

    fn changes(&self) -> Vec<Change> {
        self.0.values().map(Version::change).collect()
    }

    /// The good ones as files, in the order of their names.
    fn documents(&self) -> Documents {
        let good = self.0.values().filter(|version| version.good);
        let mut base: Vec<SourceText> = good
            .map(|version| SourceText {
                file: version.key.file(),
                bytes: version.text.as_ref().unwrap().as_bytes().into(),
            })
            .collect();
        base.sort_by(|a, b| a.file.cmp(&b.file));
        Documents {
            base,
            candidate: None,
        }
    }
}

/// Requests to every destination, in every way to name one.
fn requests() -> Vec<Request> {
    let mut requests = Vec::new();
    let mut add = |destination: &dyn Fn(&mut Request), tcp: bool| {
        for identity in ["spiffe://cluster.local/ns/shop/sa/a", ""] {
            let mut request = Request::empty();
            request.destination.port = Some(8080);
            if !identity.is_empty() {
                request.source.identities = vec![Identity {
                    kind: IdentityKind::Uri,
                    value: identity.into(),
                }];
            }
            request.http = (!tcp).then(|| Http {
                method: "GET".into(),
                path: "/b".into(),
                host: "a.shop.svc.cluster.local".into(),
                scheme: "https".into(),
                headers: Headers::default(),
            });
            destination(&mut request);
            requests.push(request);
        }
    };
    for namespace in NAMESPACES {
        for name in NAMES {
            for target in [None, Some(Target::Ztunnel), Some(Target::Waypoint)] {
                let named = |request: &mut Request| {
                    request.destination.workload = Some(format!("{namespace}/{name}"));
                    request.target = target;
                };
                add(&named, target == Some(Target::Ztunnel));
            }
            let account = format!("spiffe://cluster.local/ns/{namespace}/sa/{name}");
            add(
                &|request| request.destination.principal = Some(account.clone()),
                true,
            );
        }
    }
    for address in ADDRESSES.iter().chain(&["172.16.0.1", "172.16.0.9"]) {
        let address = address.parse().unwrap();
        add(
            &|request| request.destination.address = Some(address),
            false,
        );
        let through_waypoint = |request: &mut Request| {
            request.destination.workload = Some("shop/b".into());
            request.destination.address = Some(address);
            request.target = Some(Target::Waypoint);
        };
        add(&through_waypoint, false);
    }
    requests
}

fn decide(snapshot: &Arc<Snapshot>, requests: &[Request]) -> Vec<Decision> {
    requests.iter().map(|r| snapshot.decide(r)).collect()
}

/// What a proposal has to say, worked out from both sets, [in order](in_order).
fn brought(base: &[Diagnostic], proposed: &[Diagnostic], file: &str) -> Vec<Diagnostic> {
    let mut base = base.to_vec();
    let mut brought: Vec<Diagnostic> = Vec::new();
    for diagnostic in proposed {
        let known = base.iter().position(|d| d == diagnostic);
        if let Some(known) = known {
            base.remove(known);
        }
        let concerns = diagnostic.location.file.as_ref() == file;
        if (known.is_none() || concerns) && !brought.contains(diagnostic) {
            brought.push(diagnostic.clone());
        }
    }
    in_order(brought)
}

/// By place: a proposal tells what the change itself says first, a whole set goes check by check.
fn in_order(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.sort_by_cached_key(|d| format!("{d:?}"));
    diagnostics
}

fn differ<T: PartialEq + std::fmt::Debug>(
    what: &str,
    got: &T,
    wanted: &T,
) -> Result<(), TestCaseError> {
    if got == wanted {
        return Ok(());
    }
    Err(TestCaseError::fail(format!(
        "{what}\n   got {got:#?}\nwanted {wanted:#?}"
    )))
}

fn follow(
    history: &[Version],
    requests: &[Request],
    closed: &mut usize,
) -> Result<(), TestCaseError> {
    let mut store = Store::new(settings());
    let mut effective = Effective::default();
    for version in pods() {
        store.change([version.change()]);
        effective.take(&version);
    }
    for version in history {
        let before = store.snapshot();
        let proposed = store.propose(&[version.change()]);
        differ(
            "a proposal changes the revision",
            &store.snapshot().revision(),
            &before.revision(),
        )?;
        store.change([version.change()]);
        effective.take(version);
        let snapshot = store.snapshot();
        let decisions = decide(&snapshot, requests);
        match proposed {
            Err(diagnostics) => {
                differ("a good version is refused", &version.good, &false)?;
                differ(
                    "refused without an error",
                    &diagnostics.iter().any(Diagnostic::is_error),
                    &true,
                )?;
            }
            Ok(proposal) => {
                differ("a bad version is proposed", &version.good, &true)?;
                differ(
                    "decisions of the proposal",
                    &decide(&proposal.snapshot, requests),
                    &decisions,
                )?;
                let wanted = brought(
                    before.diagnostics(),
                    snapshot.diagnostics(),
                    &version.key.file(),
                );
                // Which of several DENY rules covers a rule of another policy is no news where one did.
                let is_news = |d: &Diagnostic| {
                    d.code != "PC0513"
                        || d.location.file == version.key.file()
                        || !before
                            .diagnostics()
                            .iter()
                            .any(|b| (b.code, &b.location) == (d.code, &d.location))
                };
                let of_proposal: Vec<Diagnostic> = proposal
                    .diagnostics
                    .iter()
                    .filter(|d| !portcullis_policy::live::is_effect(d) && is_news(d))
                    .cloned()
                    .collect();
                let wanted: Vec<Diagnostic> = wanted.into_iter().filter(is_news).collect();
                let of_proposal = in_order(of_proposal);
                differ("diagnostics of the proposal", &of_proposal, &wanted)?;
            }
        }
        // A new store, filled in another order.
        let mut fresh = Store::new(settings());
        fresh.change(effective.changes().into_iter().rev());
        let fresh = fresh.snapshot();
        differ("revision", &snapshot.revision(), &fresh.revision())?;
        differ("diagnostics", &snapshot.diagnostics(), &fresh.diagnostics())?;
        differ("decisions", &decisions, &decide(&fresh, requests))?;
        // The same as files.
        let files = compile(&effective.documents(), &settings());
        let files = files.map_err(|d| TestCaseError::fail(format!("does not compile: {d:#?}")))?;
        differ(
            "diagnostics of files",
            &snapshot.diagnostics(),
            &files.diagnostics(),
        )?;
        let files = Arc::new(files);
        for (request, mut decision) in requests.iter().zip(decisions) {
            if matches!(decision.reason, Reason::InvalidResource) {
                *closed += 1;
                continue;
            }
            let mut of_files = files.decide(request);
            // Where one of several is closed, they are not the same any more.
            if decision.reason == Reason::DestinationAmbiguous {
                continue;
            }
            decision.snapshot.clear();
            of_files.snapshot.clear();
            differ(
                &format!("decision of files on {request:?}"),
                &decision,
                &of_files,
            )?;
        }
    }
    Ok(())
}

#[test]
fn a_store_is_what_a_new_one_would_be() {
    let cases = std::env::var("PROPTEST_CASES").map_or(8, |cases| cases.parse().unwrap());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let requests = requests();
    let closed = std::cell::Cell::new(0);
    let outcome = TestRunner::new(config).run(&vec(version(), 40), |history| {
        let mut count = closed.get();
        let outcome = follow(&history, &requests, &mut count);
        closed.set(count);
        outcome
    });
    outcome.unwrap_or_else(|why| panic!("{why}"));
    assert!(
        closed.get() > 20 * cases as usize,
        "closed {} times",
        closed.get()
    );
}
