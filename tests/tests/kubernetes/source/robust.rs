//! What goes wrong with API servers: outages, crashes, gaps, kinds that are not there yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis_source::KindState;
use serde_json::json;

use super::cut::Cut;
use super::followed::{Followed, allow, options, paths, policy};
use crate::cluster::{apply, define, delete, istio, make_namespace, pod, start, until};

const POLICIES: &str = "authorizationpolicies.security.istio.io";

fn lists(followed: &Followed, resource: &str) -> u64 {
    let place = portcullis_source::KINDS
        .iter()
        .position(|k| k.resource() == resource);
    followed.source.counters().lists[place.unwrap()].load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_appear_and_no_crash_outage_or_gap_loses_or_revives_a_policy() {
    // Nobody reads the long history of events that a server keeps unless told otherwise.
    let Some(mut cluster) = start("kubernetes-robust", &["--etcd-compaction-interval=2s"]) else {
        return;
    };
    let Some(mut definitions) = istio() else {
        return;
    };
    definitions.retain(|definition| definition["spec"]["group"] == "security.istio.io");
    let client = cluster.client().await;
    let way = Cut::to(&cluster).await;
    make_namespace(&client, "shop").await;
    pod(&client, "shop", "web", "10.30.0.1").await;

    // A kind that is not installed is off, and picked up when it appears.
    let followed = Followed::synced(way.client(&cluster, None).await, &options()).await;
    assert_eq!(followed.state(POLICIES), KindState::NotInstalled);
    assert_eq!(followed.state("pods"), KindState::Following);
    assert_eq!(followed.verdict("shop/web", "/a"), "allow no_allow_policy");
    define(&client, &definitions).await;
    until("the kind is followed", async || {
        followed.state(POLICIES) == KindState::Following
    })
    .await;
    apply(&client, &allow("shop", "old", "web", &["/old"]))
        .await
        .unwrap();
    followed
        .decides("shop/web", "/old", "allow allowed_by")
        .await;

    // Whatever is decided from here on is one of these; a half-read list would be another.
    let over = Arc::new(AtomicBool::new(false));
    let sampling = {
        let (snapshots, over) = (followed.source.snapshots(), Arc::clone(&over));
        tokio::task::spawn_blocking(move || {
            let mut seen = BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                let snapshot = snapshots.borrow().clone().unwrap();
                let word = |path| {
                    let by = super::followed::decide_by(&snapshot, "shop/web", "", path);
                    by.reason.as_str().to_owned()
                };
                seen.insert((word("/old"), word("/new"), word("/admin")));
                std::thread::sleep(Duration::from_millis(1));
            }
            seen
        })
    };

    // An outage: the last snapshot decides, and its age shows.
    way.cut();
    until("the outage is seen", async || {
        matches!(followed.state(POLICIES), KindState::Retrying(_))
    })
    .await;
    let (before, contact) = (followed.snapshot(), followed.source.counters().contact());
    // What happens meanwhile: the only policy goes, others come, and enough else that its history is forgotten.
    delete(&client, &allow("shop", "old", "web", &["/old"])).await;
    apply(&client, &allow("shop", "new", "web", &["/new"]))
        .await
        .unwrap();
    let deny = policy(
        "shop",
        "admin",
        json!({ "action": "DENY", "rules": paths(&["/admin"]) }),
    );
    apply(&client, &deny).await.unwrap();
    // A server that begins anew knows nothing of events before: whoever asks for them gets 410.
    cluster
        .server
        .restart()
        .unwrap_or_else(|cause| panic!("{cause}"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(followed.source.counters().contact(), contact);
    assert!(Arc::ptr_eq(&before, &followed.snapshot()));
    assert_eq!(followed.verdict("shop/web", "/old"), "allow allowed_by");
    assert!(followed.status().synced, "what is in force stays so");

    let listed = lists(&followed, POLICIES);
    way.mend();
    followed
        .decides("shop/web", "/new", "allow allowed_by")
        .await;
    followed
        .decides("shop/web", "/admin", "deny denied_by")
        .await;
    assert_eq!(
        followed.verdict("shop/web", "/old"),
        "deny no_allow_matched"
    );
    assert!(
        lists(&followed, POLICIES) > listed,
        "the gap was closed by a list"
    );
    until("everything is followed again", async || {
        let status = followed.status();
        status
            .kinds
            .iter()
            .all(|kind| [KindState::Following, KindState::NotInstalled].contains(&kind.state))
    })
    .await;

    // A crash in the middle of changes.
    let client = cluster.client().await;
    for round in 0..2 {
        let path = format!("/round-{round}");
        apply(&client, &allow("shop", "more", "web", &[&path]))
            .await
            .unwrap();
        cluster
            .server
            .restart()
            .unwrap_or_else(|cause| panic!("{cause}"));
        followed
            .decides("shop/web", &path, "allow allowed_by")
            .await;
    }
    over.store(true, Ordering::Relaxed);
    let seen = sampling.await.unwrap();
    let allowed = [
        ("allowed_by", "no_allow_matched", "no_allow_matched"),
        ("no_allow_matched", "allowed_by", "denied_by"),
    ];
    let allowed: BTreeSet<_> = allowed
        .map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
        .into();
    assert_eq!(seen, allowed);
}
