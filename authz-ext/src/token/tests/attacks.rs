//! What attackers try: every line must be invalid, or absent, for the reason that it says.

use super::signer::{Signer, base64};
use super::*;

fn claims() -> Value {
    json!({"iss": "https://issuer", "sub": "alice", "aud": ["us"], "exp": NOW + 600})
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn rule(jwks: &str) -> Value {
    json!([{"issuer": "https://issuer", "audiences": ["us", "them"], "jwks": jwks}])
}

#[tokio::test]
async fn a_good_token_of_every_algorithm_is_valid() {
    for (signer, algorithms) in [
        (Signer::p256("k"), vec!["ES256"]),
        (Signer::p384("k"), vec!["ES384"]),
        (Signer::ed25519("k"), vec!["EdDSA", "Ed25519"]),
        (
            Signer::rsa("k"),
            vec!["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        ),
    ] {
        for algorithm in algorithms {
            let header = json!({"alg": algorithm, "kid": "k"}).to_string();
            let token = signer.sign_as(&header, &claims().to_string());
            let outcome = verify(&rule(&signer.jwks()), &bearer(&token)).await;
            assert_eq!(payloads(&outcome), [&claims()], "{algorithm}");
        }
    }
}

#[tokio::test]
async fn claims_decide_as_the_rule_says() {
    let signer = Signer::p256("k");
    let rule = rule(&signer.jwks());
    for (changes, expected) in [
        (json!({}), None),
        (json!({"aud": "us"}), None),
        (json!({"aud": ["x", "them"]}), None),
        (json!({"aud": "https://us/"}), None),
        (json!({"exp": NOW - 59}), None),
        (
            json!({"exp": NOW + 1, "nbf": NOW + 59, "iat": NOW + 1000}),
            None,
        ),
        (json!({"exp": 4_000_000_000.5}), None),
        (json!({"sub": ""}), None),
        (json!({"exp": NOW - 61}), Some(TokenError::Expired)),
        (json!({"exp": 0}), Some(TokenError::Expired)),
        (json!({"exp": "4000000000"}), Some(TokenError::Claim("exp"))),
        (json!({"exp": -1}), Some(TokenError::Claim("exp"))),
        (json!({"exp": null}), Some(TokenError::Claim("exp"))),
        (json!({"nbf": NOW + 61}), Some(TokenError::NotYetValid)),
        (json!({"nbf": [1]}), Some(TokenError::Claim("nbf"))),
        (json!({"iat": "now"}), Some(TokenError::Claim("iat"))),
        (json!({"aud": "other"}), Some(TokenError::Audience)),
        (json!({"aud": []}), Some(TokenError::Audience)),
        (json!({"aud": "US"}), Some(TokenError::Audience)),
        (json!({"aud": ["us", 1]}), Some(TokenError::Claim("aud"))),
        (json!({"aud": {"us": 1}}), Some(TokenError::Claim("aud"))),
        (json!({"iss": "https://issuer/"}), Some(TokenError::Issuer)),
        (json!({"iss": "https://ISSUER"}), Some(TokenError::Issuer)),
        (
            json!({"iss": ["https://issuer"]}),
            Some(TokenError::Claim("iss")),
        ),
        (json!({"iss": ""}), Some(TokenError::Issuer)),
        (json!({"sub": 1}), Some(TokenError::Claim("sub"))),
        (json!({"jti": 1}), Some(TokenError::Claim("jti"))),
    ] {
        let token = signer.sign(&with(changes.clone()));
        let outcome = verify(&rule, &bearer(&token)).await;
        match expected {
            None => assert_eq!(payloads(&outcome).len(), 1, "{changes}"),
            Some(expected) => assert_eq!(error(outcome), expected, "{changes}"),
        }
    }
}

#[tokio::test]
async fn no_header_talks_us_into_another_key_or_algorithm() {
    let (signer, thief) = (Signer::p256("k"), Signer::p256("k"));
    let rsa = Signer::rsa("r");
    let both = json!({"keys": [signer.jwk(), rsa.jwk()]}).to_string();
    let claims = claims().to_string();
    let hmac = {
        // The public key as the secret of an HMAC.
        let public = json!({"keys": [rsa.jwk()]}).to_string();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes());
        let signed = format!(
            "{}.{}",
            base64(r#"{"alg":"HS256","kid":"r"}"#),
            base64(&claims)
        );
        let tag = ring::hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", base64(tag.as_ref()))
    };
    let unsigned = |alg: &str| {
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        format!("{}.{}.", base64(header), base64(&claims))
    };
    let with_header = |signer: &Signer, header: Value| signer.sign_as(&header.to_string(), &claims);
    let algorithm = |name: &str| TokenError::Algorithm(name.to_owned());
    let es256 = |extra: Value| {
        let mut header = json!({"alg": "ES256", "kid": "k"});
        for (name, value) in extra.as_object().unwrap() {
            header[name] = value.clone();
        }
        header
    };
    for (name, token, expected) in [
        ("hmac with the public key", hmac, TokenError::Symmetric),
        ("none", unsigned("none"), TokenError::Unsigned),
        ("None", unsigned("None"), algorithm("None")),
        ("NONE", unsigned("NONE"), algorithm("NONE")),
        ("empty algorithm", unsigned(""), algorithm("")),
        ("es256 in lower case", unsigned("es256"), algorithm("es256")),
        (
            "signature left out",
            unsigned("ES256"),
            TokenError::UnknownKey,
        ),
        (
            "another key",
            thief.sign_as(&es256(json!({})).to_string(), &claims),
            TokenError::Signature,
        ),
        (
            "embedded jwk",
            with_header(&thief, es256(json!({"jwk": thief.jwk()}))),
            TokenError::Signature,
        ),
        (
            "jku",
            with_header(&thief, es256(json!({"jku": "https://thief/keys"}))),
            TokenError::Signature,
        ),
        (
            "x5u",
            with_header(&thief, es256(json!({"x5u": "https://thief/cert"}))),
            TokenError::Signature,
        ),
        (
            "x5c",
            with_header(&thief, es256(json!({"x5c": ["AAAA"]}))),
            TokenError::Signature,
        ),
        (
            "crit",
            with_header(&signer, es256(json!({"crit": ["exp"]}))),
            TokenError::Critical("crit"),
        ),
        (
            "empty crit",
            with_header(&signer, es256(json!({"crit": []}))),
            TokenError::Critical("crit"),
        ),
        (
            "b64",
            with_header(&signer, es256(json!({"b64": false}))),
            TokenError::Critical("b64"),
        ),
        (
            "key of another kind",
            with_header(&signer, json!({"alg": "RS256", "kid": "k"})),
            TokenError::UnknownKey,
        ),
        (
            "curve of another size",
            with_header(&signer, json!({"alg": "ES384", "kid": "k"})),
            TokenError::UnknownKey,
        ),
        (
            "kid with a path",
            with_header(&thief, json!({"alg": "ES256", "kid": "../../../dev/null"})),
            TokenError::UnknownKey,
        ),
        (
            "kid with sql",
            with_header(&thief, json!({"alg": "ES256", "kid": "k' OR '1'='1"})),
            TokenError::UnknownKey,
        ),
        (
            "kid with a nul",
            with_header(&thief, json!({"alg": "ES256", "kid": "k\0"})),
            TokenError::UnknownKey,
        ),
        (
            "kid that is no text",
            with_header(&thief, json!({"alg": "ES256", "kid": ["k"]})),
            TokenError::Malformed,
        ),
        (
            "alg twice",
            signer.sign_as(r#"{"alg":"none","alg":"ES256","kid":"k"}"#, &claims),
            TokenError::Malformed,
        ),
        (
            "alg that is no text",
            signer.sign_as(r#"{"alg":["ES256"]}"#, &claims),
            TokenError::Malformed,
        ),
        (
            "no alg",
            signer.sign_as(r#"{"kid":"k"}"#, &claims),
            TokenError::Malformed,
        ),
    ] {
        let outcome = verify(&rule(&both), &bearer(&token)).await;
        assert_eq!(error(outcome), expected, "{name}");
    }
    // Without a `kid` every key that fits is tried, and none else.
    let token = signer.sign_as(r#"{"alg":"ES256"}"#, &claims);
    assert!(matches!(
        verify(&rule(&both), &bearer(&token)).await,
        Outcome::Valid(_)
    ));
    let token = thief.sign_as(r#"{"alg":"ES256"}"#, &claims);
    assert_eq!(
        error(verify(&rule(&both), &bearer(&token)).await),
        TokenError::UnknownKey
    );
}

#[tokio::test]
async fn a_key_is_used_for_what_its_owner_says_alone() {
    let rsa = Signer::rsa("r");
    let key = |changes: Value| {
        let mut key = rsa.jwk();
        for (name, value) in changes.as_object().unwrap() {
            key[name] = value.clone();
        }
        json!({"keys": [key]}).to_string()
    };
    let token = rsa.sign(&claims());
    for (changes, valid) in [
        (json!({"use": "sig"}), true),
        (json!({"alg": "RS256"}), true),
        (json!({"use": "enc"}), false),
        (json!({"use": 1}), false),
        (json!({"alg": "RS384"}), false),
        (json!({"alg": "PS256"}), false),
        (json!({"alg": "HS256"}), false),
        (json!({"kid": "other"}), false),
    ] {
        let outcome = verify(&rule(&key(changes.clone())), &bearer(&token)).await;
        assert_eq!(
            matches!(outcome, Outcome::Valid(_)),
            valid,
            "{changes} {outcome:?}"
        );
    }
    // A secret in a key set is no key; what is left must still work.
    let mixed = json!({"keys": [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "r"}, {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"},
        {"kty": "new"}, {}, 7, rsa.jwk(),
    ]});
    let outcome = verify(&rule(&mixed.to_string()), &bearer(&token)).await;
    assert!(matches!(outcome, Outcome::Valid(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_text_that_two_readers_could_read_differently_is_no_token() {
    let signer = Signer::p256("k");
    let rule = rule(&signer.jwks());
    let good = signer.sign(&claims());
    let header = json!({"alg": "ES256", "kid": "k"}).to_string();
    let twice = r#"{"iss":"https://issuer","sub":"mallory","sub":"alice","aud":"us"}"#;
    let escaped = r#"{"iss":"https://issuer","sub":"alice","s\u0075b":"mallory","aud":"us"}"#;
    let nested = r#"{"iss":"https://issuer","sub":"a","aud":"us","realm":{"r":1,"r":2}}"#;
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let deep = format!(
        "{{\"iss\":\"https://issuer\",\"aud\":\"us\",\"a\":{}1{}}}",
        "[".repeat(500),
        "]".repeat(500)
    );
    for (name, token) in [
        ("duplicated claim", signer.sign_as(&header, twice)),
        ("duplicated by escape", signer.sign_as(&header, escaped)),
        ("duplicated deep inside", signer.sign_as(&header, nested)),
        ("nested too deep", signer.sign_as(&header, &deep)),
        ("payload is no object", signer.sign_as(&header, "[]")),
        ("payload is a token", signer.sign_as(&header, &good)),
        ("payload is empty", signer.sign_as(&header, "")),
        ("two parts", signed.to_owned()),
        ("one part", "abc".to_owned()),
        ("four parts", format!("{good}.x")),
        ("padding", format!("{signed}=.{signature}")),
        (
            "plain base64",
            format!(
                "{}.{signature}",
                signed.replace('-', "+").replace('_', "/") + "+"
            ),
        ),
        ("dots", "..".to_owned()),
    ] {
        let outcome = verify(
            &rule,
            &http("/", &[("authorization", &format!("Bearer {token}"))]),
        )
        .await;
        assert_eq!(error(outcome), TokenError::Malformed, "{name}");
    }
    // A signature written differently is another text, and refused: the last character has spare bits.
    let mut chars: Vec<char> = signature.chars().collect();
    let last = chars.last_mut().unwrap();
    *last = if *last == 'B' { 'C' } else { 'B' };
    let other: String = chars.into_iter().collect();
    let outcome = verify(&rule, &bearer(&format!("{signed}.{other}"))).await;
    assert!(matches!(outcome, Outcome::Invalid(_)), "{outcome:?}");
}

#[tokio::test]
async fn huge_and_many_tokens_are_refused_quickly() {
    let signer = Signer::p256("k");
    let started = std::time::Instant::now();
    let filler = "x".repeat(40 << 10);
    let token = signer.sign(&with(json!({"filler": filler})));
    assert_eq!(
        error(verify(&rule(&signer.jwks()), &bearer(&token)).await),
        TokenError::Huge
    );
    let dots = ".".repeat(10 << 20);
    assert_eq!(
        error(verify(&rule(&signer.jwks()), &bearer(&format!("a{dots}"))).await),
        TokenError::Huge
    );
    let places: Vec<Value> = (0..100)
        .map(|n| json!({"name": format!("x-{n}")}))
        .collect();
    let rule = json!([{"issuer": "https://issuer", "jwks": signer.jwks(), "fromHeaders": places}]);
    let names: Vec<String> = (0..100).map(|n| format!("x-{n}")).collect();
    let token = signer.sign(&claims());
    let headers: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), token.as_str())).collect();
    assert_eq!(
        error(verify(&rule, &http("/", &headers)).await),
        TokenError::TooMany
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn two_tokens_at_one_place_are_refused_even_when_both_are_good() {
    let signer = Signer::p256("k");
    let rule = rule(&signer.jwks());
    let one = signer.sign(&claims());
    let bearer = format!("Bearer {one}");
    let joined = format!("{bearer},{bearer}");
    let path = format!("/?access_token={one}&access_token={one}");
    for http in [
        http(
            "/",
            &[("authorization", &bearer), ("authorization", &bearer)],
        ),
        http("/", &[("authorization", &joined)]),
        http(&path, &[]),
    ] {
        assert_eq!(error(verify(&rule, &http).await), TokenError::Several);
    }
}

#[tokio::test]
async fn each_of_several_tokens_must_be_valid() {
    let (one, two) = (Signer::p256("k"), Signer::p256("k"));
    let rules = json!([
        {"issuer": "https://b", "jwks": two.jwks(), "fromHeaders": [{"name": "x-b"}]},
        {"issuer": "https://a", "jwks": one.jwks()},
    ]);
    let of = |signer: &Signer, issuer: &str| signer.sign(&with(json!({"iss": issuer})));
    let (a, b) = (of(&one, "https://a"), of(&two, "https://b"));
    let bearer = |token: &str| format!("Bearer {token}");
    let both = [("authorization", bearer(&a)), ("x-b", b.clone())];
    let outcome = {
        let headers: Vec<(&str, &str)> = both.iter().map(|(n, v)| (*n, v.as_str())).collect();
        verify(&rules, &http("/", &headers)).await
    };
    // The first by issuer is Envoy's.
    let issuers: Vec<&Value> = payloads(&outcome).iter().map(|p| &p["iss"]).collect();
    assert_eq!(issuers, ["https://a", "https://b"]);
    for (authorization, other, expected) in [
        // Each at the other's place.
        (&b, &a, TokenError::Issuer),
        (&a, &a, TokenError::Issuer),
        (&a, &of(&one, "https://b"), TokenError::Signature),
        (&of(&two, "https://a"), &b, TokenError::Signature),
    ] {
        let http = http(
            "/",
            &[("authorization", &bearer(authorization)), ("x-b", other)],
        );
        assert_eq!(error(verify(&rules, &http).await), expected);
    }
    // At one place, a token needs one rule.
    let shared = json!([
        {"issuer": "https://a", "jwks": one.jwks()},
        {"issuer": "https://b", "jwks": two.jwks()},
    ]);
    for token in [&a, &b] {
        let outcome = verify(&shared, &super::bearer(token)).await;
        assert_eq!(payloads(&outcome).len(), 1);
    }
}

#[tokio::test]
async fn no_token_is_no_fault_and_a_preflight_has_none() {
    let signer = Signer::p256("k");
    let rule = rule(&signer.jwks());
    for http in [
        http("/", &[]),
        http("/?token=x", &[("authorization", "Basic abc")]),
        http("/", &[("x-token", "abc")]),
    ] {
        assert_eq!(verify(&rule, &http).await, Outcome::Absent);
    }
    let preflight = Http {
        method: "OPTIONS".to_owned(),
        ..http(
            "/?access_token=garbage",
            &[
                ("origin", "https://a"),
                ("access-control-request-method", "GET"),
            ],
        )
    };
    assert_eq!(verify(&rule, &preflight).await, Outcome::Absent);
    let plain = Http {
        method: "GET".to_owned(),
        ..preflight
    };
    assert_eq!(error(verify(&rule, &plain).await), TokenError::Malformed);
}

#[tokio::test]
async fn only_allowed_algorithms_are_verified() {
    let signer = Signer::p256("k");
    let keys = Keys::new(
        Fetcher::new(Vec::new(), None).unwrap(),
        Lifetimes::default(),
    );
    let options = Options {
        algorithms: vec![jsonwebtoken::Algorithm::RS256],
        ..Options::default()
    };
    let verifier = Verifier::new(keys, options, clock);
    let outcome = verifier
        .verify(
            &rules(&rule(&signer.jwks())),
            &bearer(&signer.sign(&claims())),
        )
        .await;
    assert_eq!(error(outcome), TokenError::AlgorithmNotAllowed);
}
