use std::collections::BTreeSet;

use super::*;
use crate::bundle::JwtAuthority;
use crate::clock::from_unix_seconds;

/// WIT-SVID, Appendix A.
const EXAMPLE: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImxRU2kzaFpGbmRhMkQtWEprajF6bDdmb0pvdWl3STRuckF5aHk0alppSmciLCJ0eXAiOiJ3aXQrand0In0.eyJjbmYiOnsiandrIjp7ImFsZyI6IkVTMjU2IiwiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIsIngiOiJyelA3bUxDS0FIV21zTTZYMEV3VklTQ19oSTN1amN1OTVmZlVreWVER0dvIiwieSI6InVPcmZEbGp0WDltM2pZLWhzeWhMSllheHRHa3pEdjVlNWttQ2U1OFo5N2cifX0sImV4cCI6MTc2NTQ1NjUwMywiaWF0IjoxNzY1NDUyOTAzLCJqdGkiOiIxeWoxOVY0TWNPQXpNY0ZpN3F2c2dfQWdDeGxyWTVFX3g1MDl3bEtLUXRjIiwic3ViIjoic3BpZmZlOi8vZXhhbXBsZS5jb20vbXktd29ya2xvYWQifQ.sfhEvZNdY_kWrICF08lX0u__rn39YnTavnW-VPBS20zgowDh6-X43v5eOUKZbjZf06yLBQM-Mry5w1g1QFsCkg";
/// A moment within its life.
const THEN: i64 = 1_765_453_000;

fn profile() -> WitProfile {
    let hour = Duration::from_secs(3600);
    let trust_domain = TrustDomain::new("example.com").unwrap();
    WitProfile::new(trust_domain, hour, 24 * hour, Duration::from_secs(60))
}

fn now() -> SystemTime {
    from_unix_seconds(THEN)
}

/// A bundle with the key of `authority`, as the key `k`.
fn bundle(authority: &MemoryKey) -> Bundle {
    let mut bundle = Bundle::empty(TrustDomain::new("example.com").unwrap());
    bundle.wit_authorities.push(JwtAuthority {
        key_id: "k".to_owned(),
        key: JwtKey::from_spki(authority.public_key()).unwrap(),
        expires_at: None,
        tainted: false,
    });
    bundle
}

/// A token with this header and these claims, signed by `authority`.
fn signed(authority: &MemoryKey, header: &Value, claims: &Value) -> String {
    let id = SpiffeId::parse("spiffe://example.com/x").unwrap();
    let token = PreparedJwt::new(header, claims, authority.algorithm(), &id, (now(), now()));
    let signature = authority.sign_now(token.signing_input()).unwrap();
    token.with_signature(&signature).unwrap()
}

#[test]
fn the_example_of_the_standard_is_read_and_only_its_key_is_missing() {
    let authority = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
    let own = bundle(&authority);
    let error = validate(EXAMPLE, now(), |_| Some(&own)).unwrap_err();
    let key_id = "lQSi3hZFnda2D-XJkj1zl7foJouiwI4nrAyhy4jZiJg";
    assert_eq!(error, WitError::NoKey(key_id.to_owned()));
    // Another key under its name does not verify it.
    let mut wrong = own.clone();
    wrong.wit_authorities[0].key_id = key_id.to_owned();
    let error = validate(EXAMPLE, now(), |_| Some(&wrong)).unwrap_err();
    assert_eq!(error, TokenError::Signature.into());
    // A JWT authority is none of WIT-SVIDs (section 6.2).
    wrong.jwt_authorities = std::mem::take(&mut wrong.wit_authorities);
    let error = validate(EXAMPLE, now(), |_| Some(&wrong)).unwrap_err();
    assert_eq!(error, WitError::NoKey(key_id.to_owned()));
    let expired = validate(EXAMPLE, from_unix_seconds(THEN + 7200), |_| Some(&own));
    assert_eq!(expired.unwrap_err(), TokenError::Expired.into());
}

#[test]
fn what_is_made_has_what_the_example_has() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384] {
        let authority = MemoryKey::generate(algorithm).unwrap();
        let workload = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
        let id = SpiffeId::parse("spiffe://example.com/my-workload").unwrap();
        let end = from_unix_seconds(THEN + 600);
        let prepared = profile()
            .prepare(
                &id,
                workload.public_key(),
                None,
                ("k", algorithm, end),
                now(),
            )
            .unwrap();
        let signature = authority.sign_now(prepared.token.signing_input()).unwrap();
        let token = prepared.token.with_signature(&signature).unwrap();
        let own = bundle(&authority);
        let valid = validate(&token, now(), |_| Some(&own)).unwrap();
        assert_eq!(valid.spiffe_id, id);
        assert_eq!(valid.key.spki(), workload.public_key());
        assert_eq!(valid.key_algorithm, "ES256");
        assert_eq!(valid.expires_at, THEN + 600, "never past the authority");
        let made = validate::Read::new(&token).unwrap();
        let example = validate::Read::new(EXAMPLE).unwrap();
        let names = |object: &Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&made.header), names(&example.header));
        let mut claims = made.claims.clone();
        assert_eq!(claims.remove("nbf"), Some((THEN - 60).into()));
        assert_eq!(names(&claims), names(&example.claims));
        assert_eq!(made.claims["jti"], prepared.id);
        let jwk = |claims: &Map<String, Value>| names(claims["cnf"]["jwk"].as_object().unwrap());
        assert_eq!(jwk(&made.claims), jwk(&example.claims));
    }
}

#[test]
fn each_clause_that_is_broken_is_named() {
    let authority = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
    let workload = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
    let own = bundle(&authority);
    let header = json!({"alg": "ES256", "kid": "k", "typ": "wit+jwt"});
    let jwk = Value::from(confirmation(
        &JwtKey::from_spki(workload.public_key()).unwrap(),
    ));
    let claims = json!({
        "sub": "spiffe://example.com/x", "exp": THEN + 60, "cnf": {"jwk": jwk},
    });
    let changed = |value: &Value, name: &str, to: Option<Value>| {
        let mut value = value.clone();
        let object = value.as_object_mut().unwrap();
        match to {
            Some(to) => object.insert(name.to_owned(), to),
            None => object.remove(name),
        };
        value
    };
    let check = |header: &Value, claims: &Value| {
        validate(&signed(&authority, header, claims), now(), |_| Some(&own))
    };
    check(&header, &claims).unwrap();
    // Unknown claims and headers are passed over.
    check(
        &changed(&header, "x", Some(1.into())),
        &changed(&claims, "x", Some(1.into())),
    )
    .unwrap();
    let with_jwk = |name: &str, to: Option<Value>| {
        let jwk = changed(&claims["cnf"]["jwk"], name, to);
        changed(&claims, "cnf", Some(json!({"jwk": jwk})))
    };
    for (header, claims, expected) in [
        (changed(&header, "kid", None), claims.clone(), "no `kid`"),
        (changed(&header, "typ", None), claims.clone(), "`wit+jwt`"),
        (
            changed(&header, "typ", Some("JWT".into())),
            claims.clone(),
            "`wit+jwt`",
        ),
        (
            changed(&header, "alg", Some("none".into())),
            claims.clone(),
            "`alg` is `none`",
        ),
        (
            changed(&header, "alg", Some("HS256".into())),
            claims.clone(),
            "`alg` is `HS256`",
        ),
        (
            changed(&header, "crit", Some(json!(["x"]))),
            claims.clone(),
            "critical",
        ),
        (header.clone(), changed(&claims, "sub", None), "no `sub`"),
        (
            header.clone(),
            changed(&claims, "sub", Some("x".into())),
            "no SPIFFE ID",
        ),
        (header.clone(), changed(&claims, "exp", None), "no `exp`"),
        (
            header.clone(),
            changed(&claims, "exp", Some(THEN.into())),
            "expired",
        ),
        (
            header.clone(),
            changed(&claims, "nbf", Some((THEN + 1).into())),
            "not valid yet",
        ),
        (
            header.clone(),
            changed(&claims, "aud", Some("a".into())),
            "`aud`",
        ),
        (
            header.clone(),
            changed(&claims, "aud", Some(json!([]))),
            "`aud`",
        ),
        (
            header.clone(),
            changed(&claims, "cnf", None),
            "no `cnf.jwk`",
        ),
        (
            header.clone(),
            changed(&claims, "cnf", Some(json!({}))),
            "no `cnf.jwk`",
        ),
        (
            header.clone(),
            with_jwk("alg", None),
            "none of those allowed",
        ),
        (
            header.clone(),
            with_jwk("alg", Some("EdDSA".into())),
            "none of those allowed",
        ),
        (header.clone(), with_jwk("x", None), "no usable key"),
        (
            header.clone(),
            with_jwk("d", Some("AA".into())),
            "a private key",
        ),
    ] {
        let error = check(&header, &claims).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    for garbage in ["", "a.b", "a.b.c", "..", EXAMPLE.trim_end_matches('g')] {
        assert!(
            validate(garbage, now(), |_| Some(&own)).is_err(),
            "{garbage}"
        );
    }
}

#[test]
fn the_private_key_belongs_to_the_public_one() {
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    let key = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
    let jwk: Value = serde_json::from_str(&private_jwk(&key).unwrap()).unwrap();
    let part = |name: &str| {
        let text = jwk[name].as_str().unwrap();
        URL_SAFE_NO_PAD.decode(text).unwrap()
    };
    let public = [&[4], &part("x")[..], &part("y")[..]].concat();
    // ring checks that they fit.
    let pair = EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &part("d"),
        &public,
        &SystemRandom::new(),
    );
    assert_eq!(pair.unwrap().public_key().as_ref(), public);
    let other = MemoryKey::generate(KeyAlgorithm::P384).unwrap();
    assert_eq!(private_jwk(&other), None);
}
