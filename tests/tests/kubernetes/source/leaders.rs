//! One leader at a time, whatever the clocks of the candidates say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use portcullis_source::Options;
use serde_json::json;

use super::followed::Followed;
use super::statuses::replica;
use crate::cluster::{namespace, shared, until};

const HOUR: Duration = Duration::from_secs(3600);

fn right() -> SystemTime {
    SystemTime::now()
}

fn fast() -> SystemTime {
    SystemTime::now() + HOUR
}

fn slow() -> SystemTime {
    SystemTime::now() - HOUR
}

type Clock = fn() -> SystemTime;

fn candidate(namespace: &str, name: &str, clock: Clock) -> Options {
    let mut options = replica(namespace, name);
    let status = options.status.as_mut().unwrap();
    status.clock = clock;
    options
}

async fn lease(client: &Client, namespace: &str) -> Lease {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    leases.get("portcullis-status").await.unwrap()
}

/// Seconds by which the time in the lease is ahead of ours.
async fn ahead(client: &Client, namespace: &str) -> i64 {
    let spec = lease(client, namespace).await.spec.unwrap();
    let now = Timestamp::now();
    spec.renew_time.unwrap().0.as_second() - now.as_second()
}

/// The holder has one clock, whoever waits another; then the holder is gone.
async fn handed_over(client: Client, holder: Clock, waiting: Clock) {
    let shop = namespace(&client, "leaders").await;
    let one = Followed::synced(client.clone(), &candidate(&shop, "one", holder)).await;
    until("the first leads", async || one.source.leads() == Some(true)).await;
    let two = Followed::synced(client.clone(), &candidate(&shop, "two", waiting)).await;
    let skew = |clock: Clock| {
        let (there, here) = (clock(), SystemTime::now());
        match there.duration_since(here) {
            Ok(ahead) => i64::try_from(ahead.as_secs()).unwrap(),
            Err(behind) => -i64::try_from(behind.duration().as_secs()).unwrap(),
        }
    };
    let shows = ahead(&client, &shop).await;
    assert!(
        (shows - skew(holder)).abs() < 60,
        "the holder's clock is written: {shows}"
    );

    // Longer than the lease lasts (6 s): it is renewed, and nobody takes it, though its time says that it is long over,
    // or has not begun.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(8) {
        let (first, second) = (one.source.leads(), two.source.leads());
        assert_eq!(
            second,
            Some(false),
            "two leaders, or a stolen lease: {first:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let spec = lease(&client, &shop).await.spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("one"));
    assert_eq!(spec.lease_transitions, Some(1), "it was never another's");

    // It is gone without a word. The other takes over, once the lease has ended by its own watch and no sooner.
    drop(one);
    let gone = Instant::now();
    until("the second leads", async || {
        two.source.leads() == Some(true)
    })
    .await;
    let waited = gone.elapsed();
    assert!(waited > Duration::from_secs(3), "{waited:?}");
    assert!(waited < Duration::from_secs(30), "{waited:?}");
    let spec = lease(&client, &shop).await.spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("two"));
    assert_eq!(spec.lease_transitions, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_by_an_hour_make_no_second_leader_and_no_orphan() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    tokio::join!(
        handed_over(client.clone(), fast, right),
        handed_over(client.clone(), slow, right),
        handed_over(client.clone(), right, fast),
        handed_over(client.clone(), right, slow),
    );
}

/// Both try from the beginning, and the one that leads is cut off again and again.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_candidates_with_other_clocks_never_do_both_lead() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let shop = namespace(&client, "rivals").await;
    let way = super::cut::Cut::to(cluster).await;
    let (first, second) = tokio::join!(
        async {
            Followed::synced(
                way.client(cluster, None).await,
                &candidate(&shop, "one", fast),
            )
            .await
        },
        async { Followed::synced(client.clone(), &candidate(&shop, "two", slow)).await },
    );
    let (over, both) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let first = Arc::new(first);
    let second = Arc::new(second);
    let watching = {
        let (over, both) = (Arc::clone(&over), Arc::clone(&both));
        let (first, second) = (Arc::clone(&first), Arc::clone(&second));
        tokio::task::spawn_blocking(move || {
            while !over.load(Ordering::Relaxed) {
                if first.source.leads() == Some(true) && second.source.leads() == Some(true) {
                    both.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_micros(500));
            }
        })
    };
    let leads = |of: &Followed| of.source.leads() == Some(true);
    until("one leads", async || leads(&first) || leads(&second)).await;
    // The first has it while it can be reached, the second once it cannot.
    if leads(&second) {
        let leases: Api<Lease> = Api::namespaced(client.clone(), &shop);
        let nobody = json!({ "spec": { "holderIdentity": "nobody" } });
        leases
            .patch(
                "portcullis-status",
                &PatchParams::default(),
                &Patch::Merge(&nobody),
            )
            .await
            .unwrap();
        until("it does not hold what another has taken", async || {
            !leads(&second)
        })
        .await;
    }
    way.cut();
    until("who can be reached leads", async || leads(&second)).await;
    assert!(!leads(&first), "it steps down before another may lead");
    way.mend();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(leads(&second) && !leads(&first));
    over.store(true, Ordering::Relaxed);
    watching.await.unwrap();
    assert_eq!(both.load(Ordering::Relaxed), 0, "both led at once");
}

/// Whoever elects leaders as client-go does may hold it too: with a clock an hour behind, and renewing.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_renews_keeps_it_whatever_time_it_writes() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let shop = namespace(&client, "foreign").await;
    let leases: Api<Lease> = Api::namespaced(client.clone(), &shop);
    let time = |at: SystemTime| json!(MicroTime(Timestamp::try_from(at).unwrap()));
    let held = |at: SystemTime| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": "portcullis-status", "namespace": shop },
            "spec": { "holderIdentity": "foreign", "leaseDurationSeconds": 2, "renewTime": time(at),
                "acquireTime": time(at), "leaseTransitions": 4 },
        })
    };
    let made = serde_json::from_value(held(slow())).unwrap();
    leases.create(&PostParams::default(), &made).await.unwrap();
    let one = Followed::synced(client.clone(), &candidate(&shop, "one", right)).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(8) {
        let renewed = Patch::Merge(held(slow()));
        leases
            .patch("portcullis-status", &PatchParams::default(), &renewed)
            .await
            .unwrap();
        assert_eq!(one.source.leads(), Some(false));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // It does not renew any more; its last word was of a time to come.
    let last = Patch::Merge(held(fast()));
    leases
        .patch("portcullis-status", &PatchParams::default(), &last)
        .await
        .unwrap();
    until("it is taken over", async || {
        one.source.leads() == Some(true)
    })
    .await;
    let spec = lease(&client, &shop).await.spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("one"));
    assert_eq!(spec.lease_transitions, Some(5));
}
