//! JWT-SVIDs.

use portcullis_policy::request::{Identity, IdentityKind, Request};
use portcullis_policy::resource::HeaderLocation;

use super::super::svid::{BundleSource, Options as SvidOptions, Svid, Svids};
use super::signer::Signer;
use super::*;
use crate::check::HeaderChange;

const ID: &str = "spiffe://example.org/ns/foo/sa/a";

fn options() -> SvidOptions {
    SvidOptions {
        audiences: vec!["us".to_owned()],
        header: HeaderLocation {
            name: "authorization".to_owned(),
            prefix: "Bearer ".to_owned(),
        },
        forward: false,
        bundles: vec![BundleSource::File {
            trust_domain: "example.org".to_owned(),
            path: "/nonexistent/bundle.json".into(),
        }],
    }
}

fn svids(bundle: &str) -> Svids {
    let svids = Svids::new(options(), Options::default(), clock);
    if !bundle.is_empty() {
        svids.publish("example.org", bundle.as_bytes()).unwrap();
    }
    svids
}

fn bundle(signer: &Signer) -> String {
    let mut key = signer.jwk();
    key["use"] = json!("jwt-svid");
    let mut tls = Signer::p256("x").jwk();
    tls["use"] = json!("x509-svid");
    json!({"keys": [tls, key], "spiffe_sequence": 1, "spiffe_refresh_hint": 60}).to_string()
}

fn check(svids: &Svids, http: Http, identities: &[&str]) -> (Svid, Request, Vec<HeaderChange>) {
    let mut request = Request {
        http: Some(http),
        ..Request::empty()
    };
    for value in identities {
        request.source.certificate_presented = true;
        request.source.identities.push(Identity {
            kind: IdentityKind::Uri,
            value: (*value).to_owned(),
        });
    }
    let mut changes = Vec::new();
    let svid = svids.check(&mut request, &mut changes);
    (svid, request, changes)
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({"sub": ID, "aud": ["us"], "exp": NOW + 300});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

#[test]
fn its_spiffe_id_is_the_peers() {
    let signer = Signer::p256("k");
    let svids = svids(&bundle(&signer));
    let (svid, request, changes) = check(&svids, bearer(&signer.sign(&claims(json!({})))), &[]);
    assert_eq!(svid, Svid::Valid);
    assert_eq!(
        request.source.identities,
        [Identity {
            kind: IdentityKind::JwtSvid,
            value: ID.to_owned()
        }]
    );
    // It is no certificate, and nobody else gets to see it.
    assert!(!request.source.certificate_presented);
    assert!(request.http.unwrap().headers.entries.is_empty());
    assert_eq!(changes.len(), 1);
}

#[test]
fn a_certificate_that_says_somebody_else_makes_two_identities() {
    let signer = Signer::p256("k");
    let svids = svids(&bundle(&signer));
    let token = || bearer(&signer.sign(&claims(json!({}))));
    let other = "spiffe://example.org/ns/foo/sa/b";
    assert_eq!(check(&svids, token(), &[other]).0, Svid::TwoIdentities);
    let (svid, request, _) = check(&svids, token(), &[ID]);
    assert_eq!((svid, request.source.identities.len()), (Svid::Valid, 1));
}

#[test]
fn what_the_standard_refuses_is_invalid() {
    let (signer, thief) = (Signer::p256("k"), Signer::p256("k"));
    let good = svids(&bundle(&signer));
    let mut no_exp = claims(json!({}));
    no_exp.as_object_mut().unwrap().remove("exp");
    let claims_text = claims(json!({})).to_string();
    let typ = json!({"alg": "ES256", "kid": "k", "typ": "at+jwt"}).to_string();
    for (name, token, expected) in [
        (
            "other key",
            thief.sign(&claims(json!({}))),
            TokenError::Signature,
        ),
        (
            "expired",
            signer.sign(&claims(json!({"exp": NOW - 61}))),
            TokenError::Expired,
        ),
        (
            "no exp",
            signer.sign(&no_exp),
            TokenError::Svid("it has no `exp`"),
        ),
        (
            "other audience",
            signer.sign(&claims(json!({"aud": "https://us"}))),
            TokenError::Audience,
        ),
        (
            "other type",
            signer.sign_as(&typ, &claims_text),
            TokenError::Svid("its `typ` is neither `JWT` nor `JOSE`"),
        ),
    ] {
        let (svid, request, _) = check(&good, bearer(&token), &[]);
        assert_eq!(svid, Svid::Invalid(expected), "{name}");
        assert!(request.source.identities.is_empty(), "{name}");
    }
    // Without a bundle nothing of the trust domain is believed.
    let (svid, ..) = check(&svids(""), bearer(&signer.sign(&claims(json!({})))), &[]);
    assert_eq!(svid, Svid::Invalid(TokenError::NoKeys));
    let twice = http(
        "/",
        &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
    );
    assert_eq!(
        check(&good, twice, &[]).0,
        Svid::Invalid(TokenError::Several)
    );
}

#[test]
fn another_token_is_left_to_the_rules() {
    let signer = Signer::p256("k");
    let svids = svids(&bundle(&signer));
    for subject in [
        "alice",
        "spiffe://other.org/ns/foo/sa/a",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/a//b",
        "spiffe://example.org/../a",
        "spiffe://EXAMPLE.org/a",
        "spiffe://example.org:1/a",
        "spiffe://user@example.org/a",
        "spiffe://example.org/a?b",
    ] {
        let http = bearer(&signer.sign(&claims(json!({"sub": subject}))));
        let (svid, request, changes) = check(&svids, http.clone(), &[]);
        assert_eq!((svid, changes.len()), (Svid::None, 0), "{subject}");
        assert_eq!(request.http, Some(http));
    }
    assert_eq!(check(&svids, http("/", &[]), &[]).0, Svid::None);
}

#[test]
fn a_bundle_file_without_jwt_authorities_is_refused() {
    let svids = svids("");
    for document in ["", "{}", "[]", r#"{"keys":{}}"#] {
        assert!(
            svids.publish("example.org", document.as_bytes()).is_err(),
            "{document}"
        );
    }
}

#[test]
fn an_empty_bundle_revokes_every_key() {
    let signer = Signer::p256("k");
    let svids = svids(&bundle(&signer));
    let token = || bearer(&signer.sign(&claims(json!({}))));
    assert_eq!(check(&svids, token(), &[]).0, Svid::Valid);
    for document in [r#"{"keys":[]}"#, &Signer::p256("k").jwks()] {
        svids.publish("example.org", document.as_bytes()).unwrap();
        let (svid, ..) = check(&svids, token(), &[]);
        assert_eq!(svid, Svid::Invalid(TokenError::UnknownKey), "{document}");
    }
}

#[test]
fn what_claims_to_be_one_and_is_broken_is_invalid() {
    let signer = Signer::p256("k");
    let svids = svids(&bundle(&signer));
    let text = claims(json!({})).to_string();
    let none = signer.sign_as(r#"{"alg":"none"}"#, &text);
    let secret = signer.sign_as(r#"{"alg":"HS256"}"#, &text);
    let critical = signer.sign_as(r#"{"alg":"ES256","crit":["x"],"x":1}"#, &text);
    for token in [none, secret, critical] {
        let (svid, request, _) = check(&svids, bearer(&token), &[]);
        assert!(matches!(svid, Svid::Invalid(_)), "{token}: {svid:?}");
        assert!(request.source.identities.is_empty());
    }
    // In a header that others use it may be anything; in one of its own it is a JWT-SVID or nothing.
    assert_eq!(check(&svids, bearer("garbage"), &[]).0, Svid::None);
    let own = Svids::new(
        SvidOptions {
            header: HeaderLocation {
                name: "x-svid".to_owned(),
                prefix: String::new(),
            },
            ..options()
        },
        Options::default(),
        clock,
    );
    let (svid, ..) = check(&own, http("/", &[("x-svid", "garbage")]), &[]);
    assert!(matches!(svid, Svid::Invalid(_)), "{svid:?}");
}
