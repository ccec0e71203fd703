//! Streams of the Workload API: the full state at once, and on every change.

use std::time::{Duration, Instant};

use portcullis_ca::proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svidRequest,
};
use prost_types::value::Kind;
use tonic::Code;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::fake::bundle_of;
use super::server::{Server, nothing, soon};

#[tokio::test]
async fn the_first_message_has_everything() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    server.fake.entry("spiffe://example.org/b");
    server.fake.federate(bundle_of("other.org", 2));
    server.fake.crl(b"crl");
    let mut client = server.client().await;
    let mut stream = client
        .fetch_x509svid(X509svidRequest {})
        .await
        .unwrap()
        .into_inner();
    let message = soon(stream.message()).await.unwrap().unwrap();
    let ids: Vec<&str> = message.svids.iter().map(|svid| &*svid.spiffe_id).collect();
    assert_eq!(ids, ["spiffe://example.org/a", "spiffe://example.org/b"]);
    for svid in &message.svids {
        let (rest, leaf) = X509Certificate::from_der(&svid.x509_svid).unwrap();
        assert!(rest.is_empty());
        let (rest, root) = X509Certificate::from_der(&svid.bundle).unwrap();
        assert!(rest.is_empty());
        assert_eq!(leaf.issuer(), root.subject());
        rcgen::KeyPair::try_from(&svid.x509_svid_key[..]).unwrap();
    }
    assert_eq!(message.crl, [&b"crl"[..]]);
    let federated = &message.federated_bundles["spiffe://other.org"];
    let (rest, _) = X509Certificate::from_der(federated).unwrap();
    assert!(X509Certificate::from_der(rest).unwrap().0.is_empty());
}

#[tokio::test]
async fn every_change_brings_the_full_state() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let mut client = server.client().await;
    let mut stream = client
        .fetch_x509svid(X509svidRequest {})
        .await
        .unwrap()
        .into_inner();
    let first = soon(stream.message()).await.unwrap().unwrap();
    server.fake.entry("spiffe://example.org/b");
    let second = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(second.svids.len(), 2);
    assert_eq!(
        second.svids[0], first.svids[0],
        "what did not change is the same"
    );
    server.fake.rotate();
    let third = soon(stream.message()).await.unwrap().unwrap();
    assert_ne!(third.svids[0].x509_svid, first.svids[0].x509_svid);
    assert!(third.svids[0].bundle.len() > first.svids[0].bundle.len());
    server.fake.remove("spiffe://example.org/a");
    let fourth = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(fourth.svids.len(), 1, "redacted by leaving it out");
    server.fake.touch();
    assert!(nothing(stream.message()).await, "nothing new, no message");
}

#[tokio::test]
async fn losing_every_identity_ends_the_stream() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let mut client = server.client().await;
    let mut svids = client
        .fetch_x509svid(X509svidRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut bundles = client
        .fetch_jwt_bundles(JwtBundlesRequest {})
        .await
        .unwrap()
        .into_inner();
    soon(svids.message()).await.unwrap().unwrap();
    soon(bundles.message()).await.unwrap().unwrap();
    server.fake.remove("spiffe://example.org/a");
    for status in [
        soon(svids.message()).await.unwrap_err(),
        soon(bundles.message()).await.unwrap_err(),
    ] {
        assert_eq!(
            (status.code(), status.message()),
            (Code::PermissionDenied, "no identity issued")
        );
    }
}

#[tokio::test]
async fn bundles_are_told_again_only_when_they_change() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    server.fake.federate(bundle_of("other.org", 1));
    let mut client = server.client().await;
    let mut x509 = client
        .fetch_x509_bundles(X509BundlesRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut jwt = client
        .fetch_jwt_bundles(JwtBundlesRequest {})
        .await
        .unwrap()
        .into_inner();
    let first = soon(x509.message()).await.unwrap().unwrap();
    let mut names: Vec<&String> = first.bundles.keys().collect();
    names.sort();
    assert_eq!(names, ["spiffe://example.org", "spiffe://other.org"]);
    let keys = soon(jwt.message()).await.unwrap().unwrap();
    assert_eq!(keys.bundles.len(), 2);
    assert_eq!(&keys.bundles["spiffe://example.org"][..], b"{\"keys\":[]}");
    server.fake.entry("spiffe://example.org/b");
    assert!(nothing(x509.message()).await);
    server.fake.rotate();
    let second = soon(x509.message()).await.unwrap().unwrap();
    assert_ne!(
        second.bundles["spiffe://example.org"],
        first.bundles["spiffe://example.org"]
    );
    assert_eq!(
        second.bundles["spiffe://other.org"],
        first.bundles["spiffe://other.org"]
    );
    assert!(nothing(jwt.message()).await, "no JWT key changed");
}

#[tokio::test]
async fn a_waiting_caller_has_its_identity_at_once() {
    let server = Server::with(|options| options.patience.hold = Duration::from_secs(20)).await;
    let mut client = server.client().await;
    let fake = std::sync::Arc::clone(&server.fake);
    let created = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let at = Instant::now();
        fake.entry("spiffe://example.org/late");
        at
    });
    let mut stream = soon(client.fetch_x509svid(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    let message = soon(stream.message()).await.unwrap().unwrap();
    let took = created.await.unwrap().elapsed();
    assert_eq!(message.svids[0].spiffe_id, "spiffe://example.org/late");
    assert!(took < Duration::from_millis(500), "{took:?}");
    // A client with a deadline is told before it gives up.
    server.fake.remove("spiffe://example.org/late");
    let mut request = tonic::Request::new(X509svidRequest {});
    request.set_timeout(Duration::from_secs(2));
    let status = soon(client.fetch_x509svid(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
}

#[tokio::test]
async fn a_renewal_that_fails_takes_nothing_away() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let mut client = server.client().await;
    let mut stream = client
        .fetch_x509svid(X509svidRequest {})
        .await
        .unwrap()
        .into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    server.fake.unavailable(true);
    assert!(nothing(stream.message()).await);
    server.fake.unavailable(false);
    server.fake.rotate();
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.svids.len(), 1);
}

#[tokio::test]
async fn jwt_svids_are_for_all_identities_or_the_one_asked_for() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    server.fake.entry("spiffe://example.org/b");
    let mut client = server.client().await;
    for (wanted, expected) in [
        (
            "",
            &["spiffe://example.org/a", "spiffe://example.org/b"][..],
        ),
        ("spiffe://example.org/b", &["spiffe://example.org/b"]),
    ] {
        let request = JwtsvidRequest {
            audience: vec!["x".into(), "y".into()],
            spiffe_id: wanted.into(),
        };
        let answer = client.fetch_jwtsvid(request).await.unwrap().into_inner();
        let ids: Vec<&str> = answer.svids.iter().map(|svid| &*svid.spiffe_id).collect();
        assert_eq!(ids, expected);
        assert!(answer.svids[0].svid.ends_with(" for x,y"));
    }
    let valid = client
        .validate_jwtsvid(ValidateJwtsvidRequest {
            audience: "x".into(),
            svid: "spiffe://example.org/a for x,y".into(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(valid.spiffe_id, "spiffe://example.org/a");
    let claims = valid.claims.unwrap().fields;
    assert_eq!(claims["exp"].kind, Some(Kind::NumberValue(1_700_000_000.0)));
    assert!(matches!(&claims["aud"].kind, Some(Kind::ListValue(list)) if list.values.len() == 1));
    assert!(matches!(&claims["x"].kind, Some(Kind::StructValue(_))));
}

#[tokio::test]
async fn a_thousand_roots_fit_into_a_message() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let mut big = bundle_of("big.org", 1);
    let root = big.x509_authorities[0].clone();
    big.x509_authorities = vec![root; 1000];
    server.fake.federate(big);
    let mut client = server.client().await;
    let mut stream = client
        .fetch_x509svid(X509svidRequest {})
        .await
        .unwrap()
        .into_inner();
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert!(message.federated_bundles["spiffe://big.org"].len() > 300_000);
}

#[tokio::test]
async fn shutting_down_ends_streams_with_a_word_and_does_not_hang() {
    let server = Server::with(|options| options.drain = Duration::from_secs(30)).await;
    server.fake.entry("spiffe://example.org/a");
    let mut client = server.client().await;
    let mut stream = client
        .fetch_x509svid(X509svidRequest {})
        .await
        .unwrap()
        .into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    let stopping = tokio::spawn(server.stop());
    let status = soon(stream.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("shutting down"), "{status}");
    soon(stopping).await.unwrap();
}
