//! Readers that are slow or stalled: what waits for them does not grow, and nobody waits for them.

use std::time::Duration;

use portcullis_ca::identities::Identities as _;
use portcullis_ca::proto::workload::X509svidRequest;

use super::fake::bundle_of;
use super::server::{Server, nothing, soon, until};

#[tokio::test]
async fn a_bundle_is_delivered_when_every_stream_has_it() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let mut client = server.client().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(
            client
                .fetch_x509svid(X509svidRequest {})
                .await
                .unwrap()
                .into_inner(),
        );
    }
    for stream in &mut streams {
        soon(stream.message()).await.unwrap().unwrap();
    }
    let deliveries = server.fake.deliveries();
    assert_eq!(deliveries.live(), 3);
    server.fake.rotate();
    soon(deliveries.reached(server.fake.sequence())).await;
    drop(streams);
    until(|| deliveries.live() == 0).await;
}

#[tokio::test]
async fn a_stalled_reader_is_cut_and_others_are_served_meanwhile() {
    let server = Server::with(|options| options.patience.stalled = Duration::from_secs(1)).await;
    server.fake.entry("spiffe://example.org/a");
    // More than a stream's window: two messages cannot wait in the transport.
    let mut big = bundle_of("big.org", 1);
    let root = big.x509_authorities[0].clone();
    big.x509_authorities = vec![root; 1000];
    server.fake.federate(big);
    let mut stalled = server.client().await;
    let mut stalled = stalled
        .fetch_x509svid(X509svidRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut healthy = server.client().await;
    let mut healthy = healthy
        .fetch_x509svid(X509svidRequest {})
        .await
        .unwrap()
        .into_inner();
    soon(healthy.message()).await.unwrap().unwrap();
    for _ in 0..20 {
        server.fake.rotate();
        let message = soon(healthy.message()).await.unwrap().unwrap();
        assert_eq!(message.svids.len(), 1);
    }
    let deliveries = server.fake.deliveries();
    assert!(
        nothing(deliveries.reached(server.fake.sequence())).await,
        "one reader is behind"
    );
    soon(deliveries.reached(server.fake.sequence())).await;
    assert_eq!(deliveries.live(), 1, "the stalled stream is over");
    // What it finds when it wakes is what fits into its own window (2 MiB), two messages more, and the end.
    let mut left = 0;
    while let Ok(Some(_)) = soon(stalled.message()).await {
        left += 1;
    }
    assert!(left <= 8, "{left} of 21 messages waited");
    server.fake.rotate();
    soon(healthy.message()).await.unwrap().unwrap();
}
