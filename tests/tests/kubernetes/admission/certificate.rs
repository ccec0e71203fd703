//! Two replicas whose certificates and authorities change while policies are applied: no call fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::steady::{Applying, asked, configured, is_of, roots};
use super::webhook::{Replica, Service};
use crate::cluster::until;

const NAME: &str = "127.0.0.1";

/// A replica is told to stop while its endpoint is still there.
async fn rolled(mut replica: Replica, endpoint: Arc<AtomicBool>) {
    let stopping = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let address = replica.management;
        let terminated =
            std::thread::spawn(move || replica.daemon.terminate(Duration::from_secs(20)));
        // Endpoints follow once it says that it is not ready any more.
        let gone = portcullis_tests::process::poll(Duration::from_secs(20), || {
            (!is_ready(address)).then_some(())
        });
        assert!(gone.is_some(), "it stays ready");
        endpoint.store(false, Ordering::SeqCst);
        let status = terminated.join().unwrap().unwrap();
        (status, started.elapsed())
    });
    let (status, took) = stopping.await.unwrap();
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
}

fn is_ready(management: SocketAddr) -> bool {
    use portcullis_tests::client::{Client, Exchange};
    let answer = Client::plain(management).send(&Exchange::get("/readyz"));
    answer.is_ok_and(|answer| answer.status == 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_authorities_and_replicas_change() {
    let Some((cluster, client, folder)) = super::webhook::cluster("kubernetes-certificate").await
    else {
        return;
    };
    let more = "  webhook_configuration: rolling\n  \
        certificate: {secret: {authority_ttl: 24s, certificate_ttl: 6s, lead: 3s}}\n";
    let service = Service::start();
    let namespace = configured(&client, "rolling", &service.url()).await;
    let (one, two) = (
        Replica::start(&cluster, &folder, "one", more),
        Replica::start(&cluster, &folder, "two", more),
    );
    one.ready().await;
    two.ready().await;
    let endpoints = [service.add(one.address), service.add(two.address)];
    asked(&client, &namespace).await;
    let first = roots(&client, "rolling").await;
    assert_eq!(first.len(), 1, "both replicas share one authority");
    for replica in [&one, &two] {
        assert!(is_of(replica.address, NAME, &first).await);
    }

    // From here on somebody applies policies without a pause.
    let applying = Applying::start(&client, &namespace, "rolling", service.address, NAME);
    // A successor is published, and then signs.
    for replica in [&one, &two] {
        until("a successor has signed what is shown", async || {
            let mut told = roots(&client, "rolling").await;
            told.retain(|root| !first.contains(root));
            !told.is_empty() && is_of(replica.address, NAME, &told).await
        })
        .await;
        assert!(!is_of(replica.address, NAME, &first).await);
    }
    // A rolling update: one after the other an endpoint goes, its process is told to stop, another comes.
    let [first_endpoint, second_endpoint] = endpoints;
    rolled(two, second_endpoint).await;
    let three = Replica::start(&cluster, &folder, "three", more);
    three.ready().await;
    service.add(three.address);
    rolled(one, first_endpoint).await;
    until("the new replica judges", async || three.judged() > 0).await;
    applying.stop().await;
}
