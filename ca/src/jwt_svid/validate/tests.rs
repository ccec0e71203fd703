use std::time::Duration;

use serde_json::json;

use super::*;
use crate::bundle::JwtAuthority;
use crate::clock::from_unix_seconds;
use crate::key::{KeyAlgorithm, MemoryKey, SigningKey as _, ecdsa_fixed};

const NOW: i64 = 2_000_000_000;

struct Signer {
    key: MemoryKey,
    bundle: Bundle,
}

impl Signer {
    fn new() -> Self {
        let key = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
        let mut bundle = Bundle::empty(TrustDomain::new("example.org").unwrap());
        bundle.jwt_authorities.push(JwtAuthority {
            key_id: "k".to_owned(),
            key: JwtKey::from_spki(key.public_key()).unwrap(),
            expires_at: None,
            tainted: false,
        });
        Self { key, bundle }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(header), part(claims));
        let signature = ecdsa_fixed(&self.key.sign_now(input.as_bytes()).unwrap(), 32).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn validate(&self, text: &str) -> Result<ValidatedJwtSvid, TokenError> {
        token(text, "me", from_unix_seconds(NOW), |trust_domain| {
            (trust_domain == &self.bundle.trust_domain).then_some(&self.bundle)
        })
    }
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k", "typ": "JWT"})
}

fn claims() -> Value {
    json!({"sub": "spiffe://example.org/x", "aud": ["me"], "exp": NOW + 60})
}

fn with(mut base: Value, name: &str, value: Value) -> Value {
    let object = base.as_object_mut().unwrap();
    if value.is_null() {
        object.remove(name);
    } else {
        object.insert(name.to_owned(), value);
    }
    base
}

#[test]
fn a_valid_token_says_who_and_for_whom() {
    let signer = Signer::new();
    let valid = signer
        .validate(&signer.token(&header(), &claims()))
        .unwrap();
    assert_eq!(valid.spiffe_id.as_str(), "spiffe://example.org/x");
    let one = with(claims(), "aud", "me".into());
    let valid = signer.validate(&signer.token(&header(), &one)).unwrap();
    assert_eq!(valid.claims["aud"], json!(["me"]), "always a list");
    for header in [
        with(header(), "kid", Value::Null),
        with(header(), "typ", Value::Null),
        with(header(), "typ", "JOSE".into()),
    ] {
        assert!(
            signer.validate(&signer.token(&header, &claims())).is_ok(),
            "{header}"
        );
    }
}

#[test]
fn a_header_that_breaks_a_clause_is_refused_by_its_name() {
    let signer = Signer::new();
    let refused = |name: &str, value: Value| {
        let header = with(header(), name, value);
        signer
            .validate(&signer.token(&header, &claims()))
            .unwrap_err()
    };
    for name in ["jku", "jwk", "x5c", "crit", "cty", "b64"] {
        assert_eq!(
            refused(name, "x".into()),
            TokenError::Header(name.to_owned())
        );
    }
    for alg in ["none", "HS256", "EdDSA", "es256", ""] {
        assert!(
            matches!(refused("alg", alg.into()), TokenError::Algorithm(_)),
            "{alg}"
        );
    }
    assert_eq!(refused("alg", "ES512".into()), TokenError::Es512);
    assert!(matches!(
        refused("alg", Value::Null),
        TokenError::Algorithm(_)
    ));
    assert!(matches!(
        refused("typ", "wit+jwt".into()),
        TokenError::Type(_)
    ));
    assert!(matches!(
        refused("kid", "other".into()),
        TokenError::NoKey { .. }
    ));
    // The key is on P-256: an algorithm for another kind does not make it one.
    for alg in ["ES384", "RS256", "PS512"] {
        assert_eq!(refused("alg", alg.into()), TokenError::Signature, "{alg}");
    }
}

#[test]
fn claims_that_break_a_clause_are_refused_by_their_name() {
    let signer = Signer::new();
    let refused = |name: &str, value: Value| {
        let claims = with(claims(), name, value);
        signer
            .validate(&signer.token(&header(), &claims))
            .unwrap_err()
    };
    assert_eq!(refused("sub", Value::Null), TokenError::NoSubject);
    for sub in ["x", "spiffe://EXAMPLE.org/x", "spiffe://example.org/x/"] {
        assert!(
            matches!(refused("sub", sub.into()), TokenError::Subject(_)),
            "{sub}"
        );
    }
    assert!(matches!(
        refused("sub", "spiffe://other.org/x".into()),
        TokenError::NoBundle(_)
    ));
    for aud in [
        Value::Null,
        json!([]),
        json!(["you"]),
        json!("ME"),
        json!([1]),
    ] {
        assert!(
            matches!(refused("aud", aud.clone()), TokenError::Audience(_)),
            "{aud}"
        );
    }
    assert_eq!(refused("exp", Value::Null), TokenError::NoExpiry);
    assert_eq!(refused("exp", "soon".into()), TokenError::NoExpiry);
    assert_eq!(refused("exp", NOW.into()), TokenError::Expired);
    assert_eq!(refused("nbf", (NOW + 1).into()), TokenError::NotYet);
}

#[test]
fn what_was_changed_or_is_no_token_is_refused() {
    let signer = Signer::new();
    let good = signer.token(&header(), &claims());
    let (input, _) = good.rsplit_once('.').unwrap();
    let other = Signer::new().token(&header(), &claims());
    assert_eq!(signer.validate(&other), Err(TokenError::Signature));
    let swapped = format!("{input}.{}", other.rsplit_once('.').unwrap().1);
    assert_eq!(signer.validate(&swapped), Err(TokenError::Signature));
    let unsigned = format!("{input}.");
    assert_eq!(signer.validate(&unsigned), Err(TokenError::Signature));
    for text in [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        &format!("{good}.x"),
        &format!("{good}="),
    ] {
        assert_eq!(signer.validate(text), Err(TokenError::NotCompact), "{text}");
    }
    let long = "a".repeat(MAX_TOKEN + 1);
    assert!(matches!(
        signer.validate(&long),
        Err(TokenError::TooLong(_))
    ));
    let empty = Bundle::empty(TrustDomain::new("example.org").unwrap());
    let now = from_unix_seconds(NOW) + Duration::from_millis(500);
    let revoked = token(&good, "me", now, |_| Some(&empty));
    assert!(
        matches!(revoked, Err(TokenError::NoKey { .. })),
        "an empty bundle trusts nothing"
    );
}
