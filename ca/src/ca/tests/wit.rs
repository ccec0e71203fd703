//! WIT-SVIDs, switched on and off.

use super::*;
use crate::bundle::Bundle;
use crate::observe::health;
use crate::wit_svid;

fn with_wit(data: &Path) -> Options {
    let mut options = options(data);
    options.wit_svid = true;
    options
}

#[tokio::test]
async fn a_wit_svid_is_issued_recorded_verified_and_served_again() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(with_wit(folder.path()), &clock).await;
    let mut first = entry("/a", &["unix:uid:1"]);
    first.hint = "x".to_owned();
    let mut second = entry("/b", &["unix:gid:1"]);
    second.hint = "x".to_owned();
    create(&ca, first).await;
    clock.advance(Duration::from_secs(1));
    create(&ca, second).await;
    let known = caller(&["unix:uid:1", "unix:gid:1"]);
    let context = ca.wit_context(&known, None).await.unwrap();
    let ids: Vec<&str> = context
        .svids
        .iter()
        .map(|svid| svid.spiffe_id.as_str())
        .collect();
    assert_eq!(ids, ["spiffe://example.org/a", "spiffe://example.org/b"]);
    let hints: Vec<&str> = context.svids.iter().map(|svid| &*svid.hint).collect();
    assert_eq!(hints, ["x", ""], "unique in a message");
    let bundle = ca.bundle();
    for svid in &context.svids {
        let valid = wit_svid::validate(&svid.token, clock.now(), |_| Some(&bundle)).unwrap();
        assert_eq!(valid.spiffe_id, svid.spiffe_id);
        let jwk: serde_json::Value = serde_json::from_str(&svid.key).unwrap();
        let public = crate::bundle::JwtKey::from_jwk(jwk.as_object().unwrap()).unwrap();
        assert_eq!(public, valid.key);
    }
    let again = ca.wit_context(&known, None).await.unwrap();
    assert_eq!(again.svids[0].token, context.svids[0].token);
    clock.advance(Duration::from_secs(1800));
    let renewed = ca.wit_context(&known, None).await.unwrap();
    assert_ne!(
        renewed.svids[0].token, context.svids[0].token,
        "half its life is over"
    );
    let one = ca
        .wit_context(&known, Some(&context.svids[1].spiffe_id))
        .await
        .unwrap();
    assert_eq!(one.svids.len(), 1);
    let other = entry("/c", &["unix:uid:9"]).spiffe_id;
    let refused = ca.wit_context(&known, Some(&other)).await.unwrap_err();
    assert!(matches!(refused, IssueError::NotEntitled(_)), "{refused}");
    let refused = ca
        .wit_context(&caller(&["unix:uid:2"]), None)
        .await
        .unwrap_err();
    assert_eq!(refused, IssueError::NoIdentity);
    let events = events(&ca);
    assert_eq!(count(&events, "wit_prepared"), 4);
    assert_eq!(count(&events, "wit_issued"), 4);
    assert_eq!(count(&events, "denied"), 2);
    let issued = events
        .iter()
        .find(|event| event["event"] == "wit_issued")
        .unwrap();
    for field in [
        "spiffe_id",
        "jti",
        "spki_sha256",
        "not_after",
        "authority",
        "entry",
        "caller",
    ] {
        assert!(!issued[field].is_null(), "{field}: {issued}");
    }
}

#[tokio::test]
async fn its_authorities_stand_in_the_bundle_apart_from_those_of_jwt_svids() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(with_wit(folder.path()), &clock).await;
    create(&ca, entry("/a", &["unix:uid:1"])).await;
    let bundle = ca.bundle();
    assert_eq!(
        (bundle.jwt_authorities.len(), bundle.wit_authorities.len()),
        (1, 1)
    );
    let kid = &bundle.wit_authorities[0].key_id;
    assert!(
        !bundle.jwks().contains(kid.as_str()),
        "JWT bundles have no other keys"
    );
    assert!(bundle.wit_jwks().contains(kid.as_str()));
    let document = bundle.to_document();
    assert!(document.contains("\"use\":\"wit-svid\""), "{document}");
    let read = Bundle::from_document(bundle.trust_domain.clone(), document.as_bytes()).unwrap();
    assert_eq!(read.wit_authorities[0].key, bundle.wit_authorities[0].key);
    // A kid is unique among both.
    let doubled = document.replace(kid.as_str(), &bundle.jwt_authorities[0].key_id);
    let read = Bundle::from_document(bundle.trust_domain.clone(), doubled.as_bytes()).unwrap();
    assert_eq!(
        (read.jwt_authorities.len(), read.wit_authorities.len()),
        (1, 0)
    );
    // A token of one kind is none of the other.
    let known = caller(&["unix:uid:1"]);
    let wit = ca.wit_context(&known, None).await.unwrap().svids[0]
        .token
        .clone();
    assert!(ca.validate_jwt_svid(&known, "a", &wit).await.is_err());
    // It rotates and is tainted like the others.
    let next = ca.prepare(AuthorityKind::Wit, "test").await.unwrap();
    ca.activate(AuthorityKind::Wit, &next.row.id, "test")
        .await
        .unwrap();
    ca.taint(AuthorityKind::Wit, kid, false, "test")
        .await
        .unwrap();
    let fresh = ca.wit_context(&known, None).await.unwrap().svids[0]
        .token
        .clone();
    assert_ne!(fresh, wit, "issued anew at once");
    let bundle = ca.bundle();
    wit_svid::validate(&fresh, clock.now(), |_| Some(&bundle)).unwrap();
    ca.revoke(AuthorityKind::Wit, kid, "test").await.unwrap();
    let bundle = ca.bundle();
    assert!(wit_svid::validate(&wit, clock.now(), |_| Some(&bundle)).is_err());
}

#[tokio::test]
async fn switched_off_there_is_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    create(&ca, entry("/a", &["unix:uid:1"])).await;
    assert!(!ca.serves_wit());
    assert!(ca.bundle().wit_authorities.is_empty());
    assert!(ca.prepare(AuthorityKind::Wit, "test").await.is_err());
    assert!(!crate::observe::metrics::text(&ca).contains("kind=\"wit\""));
    drop(ca);
    // Switched on, and off again: what is left goes with its time.
    let ca = open(with_wit(folder.path()), &clock).await;
    assert!(crate::observe::metrics::text(&ca).contains("kind=\"wit\""));
    drop(ca);
    let ca = open(options(folder.path()), &clock).await;
    assert_eq!(
        ca.bundle().wit_authorities.len(),
        1,
        "its tokens may still be in use"
    );
    clock.advance(Duration::from_secs(25 * 3600));
    ca.tick().await.unwrap();
    assert!(ca.bundle().wit_authorities.is_empty());
    assert_eq!(health::reasons(&ca), [""; 0]);
}
