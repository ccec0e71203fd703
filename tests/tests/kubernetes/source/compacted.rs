//! A watch that cannot go on: the history since is compacted away, and the server says 410.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use portcullis_policy::live::Outcome;
use portcullis_source::{KINDS, KindState};
use serde_json::Value;
use tokio_stream::StreamExt as _;

use super::cut::Cut;
use super::followed::{Followed, allow, decide_by, options};
use crate::cluster::{api, apply, define, delete, istio, make_namespace, pod, start, until};

const POLICIES: &str = "authorizationpolicies.security.istio.io";

fn count(counters: &[AtomicU64]) -> u64 {
    let place = KINDS.iter().position(|kind| kind.resource() == POLICIES);
    counters[place.unwrap()].load(Ordering::Relaxed)
}

/// Whether a watch of the policies from `version` on is refused because its history is gone.
async fn is_gone(policies: &Api<DynamicObject>, version: &str) -> bool {
    let watched = policies
        .watch(&WatchParams::default().timeout(2), version)
        .await;
    let first = match watched {
        Ok(events) => std::pin::pin!(events).next().await,
        Err(error) => Some(Err(error)),
    };
    match first {
        Some(Ok(WatchEvent::Error(status))) => status.code == 410,
        Some(Err(kube::Error::Api(status))) => status.code == 410,
        _ => false,
    }
}

fn of(name: usize, path: &str) -> Value {
    allow("shop", &format!("p-{name:03}"), "web", &[path])
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_compaction_the_set_is_what_the_server_has_and_was_never_less() {
    // Watches of etcd itself: what the server keeps in memory for watches would outlive the compaction.
    let flags = ["--watch-cache=false", "--etcd-compaction-interval=2s"];
    let Some(cluster) = start("kubernetes-compacted", &flags) else {
        return;
    };
    let Some(mut definitions) = istio() else {
        return;
    };
    definitions.retain(|definition| definition["spec"]["group"] == "security.istio.io");
    let client = cluster.client().await;
    define(&client, &definitions).await;
    make_namespace(&client, "shop").await;
    pod(&client, "shop", "web", "10.30.1.1").await;
    for name in 0..30 {
        apply(&client, &of(name, &format!("/{name}")))
            .await
            .unwrap();
    }
    let way = Cut::to(&cluster).await;
    let followed = Followed::synced(way.client(&cluster, None).await, &options()).await;
    followed
        .decides("shop/web", "/29", "allow allowed_by")
        .await;
    // It follows by watch, not by lists.
    apply(&client, &of(30, "/30")).await.unwrap();
    followed
        .decides("shop/web", "/30", "allow allowed_by")
        .await;
    let policies = api(&client, &of(0, "/"));
    let listed = policies.list(&ListParams::default()).await.unwrap();
    let version = listed.metadata.resource_version.unwrap();
    assert!(
        !is_gone(&policies, &version).await,
        "it can be gone on from"
    );
    let counters = followed.source.counters();
    assert_eq!((count(&counters.lists), count(&counters.expired)), (1, 0));

    // Whatever is decided from here on: those that are there before and after are always in force.
    let over = Arc::new(AtomicBool::new(false));
    let sampling = {
        let (snapshots, over) = (followed.source.snapshots(), Arc::clone(&over));
        tokio::task::spawn_blocking(move || {
            let mut seen = BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                let snapshot = snapshots.borrow().clone().unwrap();
                let allowed = |path| {
                    let decision = decide_by(&snapshot, "shop/web", "", path);
                    decision.reason.as_str() == "allowed_by"
                };
                let moved = (allowed("/0"), allowed("/moved"), allowed("/100"));
                seen.insert((allowed("/15"), allowed("/30"), moved));
                std::thread::sleep(Duration::from_millis(1));
            }
            seen
        })
    };
    way.cut();
    until("the outage is seen", async || {
        matches!(followed.state(POLICIES), KindState::Retrying(_))
    })
    .await;
    // Some go, one moves, many come.
    for name in 1..10 {
        delete(&client, &of(name, "/")).await;
    }
    apply(&client, &of(0, "/moved")).await.unwrap();
    for name in 100..200 {
        apply(&client, &of(name, &format!("/{name}")))
            .await
            .unwrap();
    }
    until("the server has compacted its history", async || {
        is_gone(&policies, &version).await
    })
    .await;
    assert_eq!(followed.verdict("shop/web", "/0"), "allow allowed_by");
    assert_eq!(followed.snapshot().policy_count(), 31);
    assert_eq!((count(&counters.lists), count(&counters.expired)), (1, 0));

    way.mend();
    followed
        .decides("shop/web", "/199", "allow allowed_by")
        .await;
    assert_eq!(count(&counters.expired), 1, "it was told 410");
    assert_eq!(count(&counters.lists), 2, "and has listed anew, once");
    until("it is followed again", async || {
        followed.state(POLICIES) == KindState::Following
    })
    .await;
    let known: BTreeSet<String> = {
        let store = followed.source.store();
        let store = store.lock();
        let outcomes = store.outcomes();
        let outcomes = outcomes.map(|(key, outcome)| {
            assert_eq!(*outcome, Outcome::Accepted);
            key.name.to_string()
        });
        outcomes.collect()
    };
    let there = policies.list(&ListParams::default()).await.unwrap();
    let there: BTreeSet<String> = there.into_iter().filter_map(|o| o.metadata.name).collect();
    assert_eq!(known, there);
    assert_eq!(there.len(), 122);
    assert_eq!(followed.snapshot().policy_count(), there.len());
    for (path, verdict) in [
        ("/0", "deny no_allow_matched"),
        ("/5", "deny no_allow_matched"),
        ("/moved", "allow allowed_by"),
        ("/15", "allow allowed_by"),
        ("/100", "allow allowed_by"),
    ] {
        assert_eq!(followed.verdict("shop/web", path), verdict, "{path}");
    }
    // And it goes on by watch.
    apply(&client, &of(300, "/300")).await.unwrap();
    followed
        .decides("shop/web", "/300", "allow allowed_by")
        .await;
    assert_eq!(count(&counters.lists), 2);
    over.store(true, Ordering::Relaxed);
    let seen = sampling.await.unwrap();
    let before = (true, true, (true, false, false));
    let after = (true, true, (false, true, true));
    assert_eq!(seen, [before, after].into());
}
