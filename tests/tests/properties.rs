//! Random policies and requests: the engine against the naive evaluator.
//!
//! `PROPTEST_CASES` counts requests, 10,000 when it is not set; every policy set gets 20 of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is a failed test"
)]

#[path = "properties/judged.rs"]
mod judged;

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_policy::compile::compile;
use portcullis_policy::decision::{Decision, Reason, Verdict};
use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, ObjectKey, Outcome, Store};
use portcullis_policy::reference::Reference;
use portcullis_policy::request::{Missing, RemoteAddress, Request};
use portcullis_policy::snapshot::Snapshot;
use portcullis_tests::naive::{self, Answer, Facts, Ruling, World};
use portcullis_tests::{convert, generate};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

/// Requests for each policy set.
const REQUESTS: usize = 20;

#[test]
fn generator_reaches_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let scenarios = generate::scenario(REQUESTS);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..500 {
        let scenario = scenarios.new_tree(&mut runner).unwrap().current();
        for facts in &scenario.requests {
            let answer = naive::evaluate(&scenario.world, facts);
            let mut count = |what: String| *seen.entry(what).or_default() += 1;
            let protocol = if facts.http.is_some() { "http" } else { "tcp" };
            count(format!("{protocol} {}", answer.enforced.reason));
            let verdict = if answer.enforced.allow {
                "allow"
            } else {
                "deny"
            };
            count(format!("{:?} {verdict}", scenario.world.target));
            if !answer.enforced.audit.is_empty() {
                count("audit".to_owned());
            }
            if answer.enforced.provider.is_some() {
                count("provider".to_owned());
            }
            if answer
                .trial
                .as_ref()
                .is_some_and(|trial| trial.allow != answer.enforced.allow)
            {
                count("trial flips".to_owned());
            }
        }
    }
    let outcomes = [
        "http allowed_by",
        "http custom_provider_unavailable",
        "http denied_by",
        "http invalid_request",
        "http mtls_required",
        "http no_allow_matched",
        "http no_allow_policy",
        "http token_unverified",
        "tcp allowed_by",
        "tcp custom_provider_unavailable",
        "tcp denied_by",
        "tcp mtls_required",
        "tcp no_allow_matched",
        "tcp no_allow_policy",
        "Sidecar allow",
        "Sidecar deny",
        "Gateway allow",
        "Gateway deny",
        "Waypoint allow",
        "Waypoint deny",
        "Ztunnel allow",
        "Ztunnel deny",
        "audit",
        "provider",
        "trial flips",
    ];
    for outcome in outcomes {
        let times = seen.get(outcome).copied().unwrap_or(0);
        assert!(times >= 10, "`{outcome}` {times} times: {seen:#?}");
    }
}

/// The number of policy sets that gives every run its requests.
fn config() -> Config {
    let requests = std::env::var("PROPTEST_CASES").map_or(10_000, |cases| {
        cases.parse::<u32>().expect("PROPTEST_CASES is a number")
    });
    Config {
        cases: requests.div_ceil(REQUESTS as u32),
        failure_persistence: None,
        ..Config::default()
    }
}

/// Puts every request of random worlds to `check`, after `prepare` has seen the snapshot; a failure
/// is shrunk and told with its manifests, its request and what both sides said.
fn on_random_worlds<P>(
    prepare: impl Fn(&Arc<Snapshot>, &World) -> Result<P, String>,
    check: impl Fn(&P, &World, &Facts) -> Result<(), String>,
) {
    let outcome = TestRunner::new(config()).run(&generate::scenario(REQUESTS), |scenario| {
        let world = &scenario.world;
        let manifests = convert::manifests(world);
        let mut text: String = manifests
            .iter()
            .map(|manifest| format!("---\n{manifest}\n"))
            .collect();
        let compiled = compile(
            &convert::documents(&manifests),
            &convert::settings(&world.mesh),
        );
        let prepared = compiled
            .map_err(|diagnostics| format!("does not compile: {diagnostics:#?}"))
            .and_then(|snapshot| prepare(&Arc::new(snapshot), world))
            .map_err(|why| TestCaseError::fail(format!("\n{text}{why}")))?;
        text += &format!(
            "\nmesh {:?}\nworkload {:?}\ntarget {:?}, service {:?}\n",
            world.mesh, world.workload, world.target, world.service
        );
        for facts in &scenario.requests {
            check(&prepared, world, facts).map_err(|difference| {
                TestCaseError::fail(format!("\n{text}request {facts:#?}\n{difference}"))
            })?;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, _)) => panic!("{why}"),
        Err(why) => panic!("{why}"),
    }
}

/// A ruling in the words of the contract.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    allow: bool,
    reason: String,
    policies: Vec<String>,
}

impl Told {
    fn by_naive(ruling: &Ruling) -> Self {
        let ids = ruling.policies.iter();
        Self {
            allow: ruling.allow,
            reason: ruling.reason.to_owned(),
            policies: ids.filter_map(|id| convert::rule_id(id)).collect(),
        }
    }
}

/// Everything that both sides know of one request. PeerAuthentication and RequestAuthentication
/// have no rules, so who refused is compared for AuthorizationPolicy alone.
#[derive(Debug, PartialEq, Eq)]
struct Whole {
    enforced: Told,
    audit: Vec<String>,
    provider: Option<String>,
    trial: Option<Told>,
    shadow_deny: Option<String>,
    shadow_allow: Option<String>,
}

impl Whole {
    fn by_naive(answer: &Answer) -> Self {
        let shadow =
            |shadow: &Option<naive::Shadow>| convert::rule_id(shadow.as_ref()?.policy.as_deref()?);
        let enforced = &answer.enforced;
        Self {
            enforced: Told::by_naive(enforced),
            audit: enforced
                .audit
                .iter()
                .filter_map(|id| convert::rule_id(id))
                .collect(),
            provider: enforced.provider.clone(),
            trial: answer.trial.as_ref().map(Told::by_naive),
            shadow_deny: shadow(&answer.shadow_deny),
            shadow_allow: shadow(&answer.shadow_allow),
        }
    }

    fn by_engine(decision: &Decision) -> Self {
        let told = |reason: Reason, policies: &[String]| Told {
            allow: reason.verdict() == Verdict::Allow,
            reason: reason.as_str().to_owned(),
            policies: match reason {
                Reason::MtlsRequired | Reason::TokenUnverified => Vec::new(),
                _ => policies.to_vec(),
            },
        };
        let trial = decision.dry_run.as_ref();
        Self {
            enforced: told(decision.reason, &decision.policies),
            audit: decision.audit.clone(),
            provider: decision.provider.clone(),
            trial: trial.map(|trial| told(trial.reason, &trial.policies)),
            shadow_deny: trial.and_then(|trial| trial.shadow.deny.clone()),
            shadow_allow: trial.and_then(|trial| trial.shadow.allow.clone()),
        }
    }
}

#[test]
fn engine_agrees_with_the_naive_evaluator() {
    on_random_worlds(
        |snapshot, _| Ok(Arc::clone(snapshot)),
        |snapshot, world, facts| {
            let naive = Whole::by_naive(&naive::evaluate(world, facts));
            let engine = Whole::by_engine(&snapshot.decide(&convert::request(world, facts)));
            if naive == engine {
                return Ok(());
            }
            Err(format!("naive  {naive:?}\nengine {engine:?}"))
        },
    );
}

/// The engine prunes by destination and index and hands Cedar a lean context; the reference hands
/// Cedar's own authorizer every policy of the snapshot and the full context.
#[test]
fn engine_agrees_with_the_full_cedar_set() {
    on_random_worlds(
        |snapshot, _| Ok((Arc::clone(snapshot), Reference::new(snapshot)?)),
        |(snapshot, reference), world, facts| {
            let request = convert::request(world, facts);
            let engine = snapshot.decide(&request);
            let Some(full) = reference.decide(&request) else {
                return match engine.reason {
                    Reason::InvalidRequest => Ok(()),
                    _ => Err(format!(
                        "the full set gives no answer, the engine {engine:?}"
                    )),
                };
            };
            let ids = |role: &str| full.satisfied.get(role).cloned().unwrap_or_default();
            let sorted = |ids: &[String]| {
                let mut ids = ids.to_vec();
                ids.sort();
                ids
            };
            let trial = engine.dry_run.as_ref();
            let mut same = !full.error
                && full.verdict == engine.decision
                && full.on_trial == trial.map_or(engine.decision, |trial| trial.decision);
            same &= match engine.reason {
                Reason::AllowedBy => sorted(&engine.policies) == ids("ALLOW"),
                Reason::DeniedBy => sorted(&engine.policies) == ids("DENY"),
                Reason::NoAllowMatched => ids("ALLOW").is_empty() && ids("DENY").is_empty(),
                _ => true,
            };
            same &= match engine.reason {
                Reason::AllowedBy
                | Reason::DeniedBy
                | Reason::NoAllowPolicy
                | Reason::NoAllowMatched => sorted(&engine.audit) == ids("AUDIT"),
                _ => true,
            };
            if same {
                return Ok(());
            }
            Err(format!("full   {full:?}\nengine {engine:?}"))
        },
    );
}

/// The world as objects that came one by one, half of them more than once.
fn followed(world: &World) -> Store {
    let mut store = Store::new(convert::settings(&world.mesh));
    let objects: Vec<(ObjectKey, Change)> = convert::manifests(world)
        .iter()
        .map(|manifest| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let api = text(&manifest["apiVersion"]);
            let group = api.split_once('/').map_or("", |(group, _)| group);
            let metadata = &manifest["metadata"];
            let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
            let key = ObjectKey::new(group, &text(&manifest["kind"]), &namespace, &name);
            let source = SourceText {
                file: key.file(),
                bytes: manifest.to_string().into_bytes().into(),
            };
            let change = Change::Apply {
                key: key.clone(),
                text: source,
            };
            (key, change)
        })
        .collect();
    store.change(objects.iter().rev().map(|(_, change)| change.clone()));
    for (key, change) in objects.iter().step_by(2) {
        store.change([Change::Delete(key.clone())]);
        store.snapshot();
        store.change([change.clone()]);
    }
    store
}

/// Followed object by object, a world comes to the decisions that it comes to as files.
#[test]
fn objects_one_by_one_agree_with_files() {
    on_random_worlds(
        |snapshot, world| {
            let mut store = followed(world);
            let refused = store.outcomes().find(|(_, o)| **o != Outcome::Accepted);
            if let Some((key, outcome)) = refused {
                return Err(format!("{key:?} {outcome:?}"));
            }
            Ok((Arc::clone(snapshot), store.snapshot()))
        },
        |(files, objects), world, facts| {
            let request = convert::request(world, facts);
            let (of_files, mut of_objects) = (files.decide(&request), objects.decide(&request));
            of_objects.snapshot.clone_from(&of_files.snapshot);
            if of_files == of_objects {
                return Ok(());
            }
            Err(format!("files   {of_files:?}\nobjects {of_objects:?}"))
        },
    );
}

/// The same request with one fact, or all of them, not carried.
fn with_gaps(request: &Request) -> impl Iterator<Item = (&'static str, Request)> {
    type Gap = (&'static str, fn(&mut Request));
    const GAPS: [Gap; 6] = [
        ("source address", |r| {
            r.source.address = None;
            r.missing.source_address = true;
        }),
        ("destination address", |r| {
            r.destination.address = None;
            r.missing.destination_address = true;
        }),
        ("destination port", |r| {
            r.destination.port = None;
            r.missing.destination_port = true;
        }),
        ("client", |r| r.remote = RemoteAddress::Unknown),
        ("method", |r| {
            if let Some(http) = &mut r.http {
                http.method.clear();
            }
        }),
        ("host", |r| {
            if let Some(http) = &mut r.http {
                http.host.clear();
            }
        }),
    ];
    let one = GAPS.into_iter().map(|(name, gap)| {
        let mut request = request.clone();
        gap(&mut request);
        (name, request)
    });
    let mut all = request.clone();
    GAPS.iter().for_each(|(_, gap)| gap(&mut all));
    all.missing = Missing {
        source_address: true,
        destination_address: true,
        destination_port: true,
    };
    one.chain([("everything", all)])
}

/// A fact that is missing could have any value: what is allowed without it is allowed with the one
/// that it has. Index and full Cedar set agree on it as well.
#[test]
fn a_missing_fact_never_opens() {
    on_random_worlds(
        |snapshot, _| Ok((Arc::clone(snapshot), Reference::new(snapshot)?)),
        |(snapshot, reference), world, facts| {
            let request = convert::request(world, facts);
            let whole = snapshot.decide(&request);
            for (gap, request) in with_gaps(&request) {
                let lacking = snapshot.decide(&request);
                if lacking.is_allow() && !whole.is_allow() {
                    return Err(format!("without {gap} {lacking:?}\nwith it {whole:?}"));
                }
                if gap != "everything" {
                    continue;
                }
                let full = reference.decide(&request).map(|full| full.verdict);
                if full.unwrap_or(Verdict::Deny) != lacking.decision {
                    return Err(format!("without {gap} {lacking:?}\nfull set {full:?}"));
                }
            }
            Ok(())
        },
    );
}
