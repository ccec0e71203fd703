//! Key sets that are weak, wrong or ambiguous: no key in them opens more than its owner meant.

use ring::digest::{SHA256, digest};

use super::signer::{RSA_N, Signer, base64, unbase64};
use super::*;

fn claims() -> Value {
    json!({"iss": "https://issuer", "sub": "alice", "aud": ["us"], "exp": NOW + 600})
}

fn set(keys: &[Value]) -> Value {
    let jwks = json!({ "keys": keys }).to_string();
    json!([{"issuer": "https://issuer", "audiences": ["us"], "jwks": jwks}])
}

async fn is_valid(keys: &[Value], token: &str) -> bool {
    matches!(verify(&set(keys), &bearer(token)).await, Outcome::Valid(_))
}

// Made by OpenSSL: the claims above, signed with RS256 by keys of 512 and 1024 bits.
const SIGNED: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwczovL2lzc3VlciIsInN1YiI6ImFsaWNlIiwiYXVkIjpbInVzIl0sImV4cCI6MTc2NzIyNjIwMH0";
const WEAK: [(&str, &str); 2] = [
    (
        "tuHgmnXx5_8vqUfWzbEiC1yx29UjiGyE1rioDtwFLUKPT1_32tnLnh0AOugPfPhB8mcvZEN5b5F9UufMEReOPw",
        "ZJWhj6Ulfr46xQ1AZ4ULRdwoR_YlpW2x4DnKLedoGsv5G2FFLxp2AXbGrGMTGns7UP3--WkFSz9HWN9eqp288g",
    ),
    (
        "zAPf-U2Vzh6UMlKQahMXkgHlYloR0wlYcPT622fVHglibfZwqC2LPoZ3L_OMde9LTDPqT07QprHSQgVURK3c-HPmzuFvLYEz-j-nrVJTkSYMDd5ZgEdoPEIJgx90-lsvBSM3g1lTIL9Un6pgkkN2Mwi9Mvxch6MdpmuMz7Xd0EM",
        "P1adP8ggO2my7dZYU3B-P3BKn8G7w1wiKfeNzqo2UKK-ckFinLpLX-PKyMp_9gZ4OtNBit7GsaMqS-7r_h4KZEpQxtPzKkoReGW8wkneeiPly_lIu81VtK7x4DVvAcpY2jE1gwotSvjBqfNbTqp4UxcHA54J3-xuyo1Lpaz49qU",
    ),
];

#[tokio::test]
async fn an_rsa_key_that_can_be_broken_verifies_nothing() {
    for (n, signature) in WEAK {
        let key = json!({"kty": "RSA", "kid": "k", "n": n, "e": "AQAB"});
        let token = format!("{SIGNED}.{signature}");
        let outcome = verify(&set(&[key]), &bearer(&token)).await;
        assert_eq!(error(outcome), TokenError::Signature);
    }
    // With an exponent of one, everybody can sign: the signature is the padded digest itself.
    let mut forged = vec![0, 1];
    forged.resize(256 - 52, 0xff);
    forged.extend(
        b"\x00\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
    );
    forged.extend(digest(&SHA256, SIGNED.as_bytes()).as_ref());
    assert_eq!(forged.len(), unbase64(RSA_N).len());
    let token = format!("{SIGNED}.{}", base64(&forged));
    for e in ["AQ", "AAAB", "AA", "Ag", "", "_____________w"] {
        let key = json!({"kty": "RSA", "kid": "k", "n": RSA_N, "e": e});
        assert!(!is_valid(&[key], &token).await, "e = {e}");
    }
}

#[tokio::test]
async fn a_point_that_is_not_on_its_curve_verifies_nothing() {
    for signer in [Signer::p256("k"), Signer::p384("k"), Signer::ed25519("k")] {
        let token = signer.sign(&claims());
        let good = signer.jwk();
        assert!(is_valid(std::slice::from_ref(&good), &token).await);
        let x = unbase64(good["x"].as_str().unwrap());
        let mut moved = x.clone();
        moved[5] ^= 1;
        let zero = vec![0; x.len()];
        let short = &x[1..];
        let long = [&[0], x.as_slice()].concat();
        for bad in [&moved, &zero, short, &long] {
            let mut key = good.clone();
            key["x"] = json!(base64(bad));
            assert!(!is_valid(&[key], &token).await, "{good}");
        }
        let mut key = good.clone();
        key["x"] = json!("not base64!");
        assert!(!is_valid(&[key], &token).await);
    }
}

#[tokio::test]
async fn keys_that_say_little_or_share_a_name_are_tried_and_no_other() {
    let (one, two) = (Signer::p256("k"), Signer::p256("k"));
    let stranger = Signer::p256("k");
    // The same `kid` twice, as in the middle of a rotation.
    let both = [one.jwk(), two.jwk()];
    assert!(is_valid(&both, &one.sign(&claims())).await);
    assert!(is_valid(&both, &two.sign(&claims())).await);
    assert!(!is_valid(&both, &stranger.sign(&claims())).await);
    // Without `kid`, `alg` and `use`.
    let mut bare = one.jwk();
    bare.as_object_mut().unwrap().remove("kid");
    let token = one.sign(&claims());
    assert!(is_valid(std::slice::from_ref(&bare), &token).await);
    assert!(!is_valid(&[bare], &two.sign(&claims())).await);
    // One that is for something else is not tried, whatever its name.
    for (name, value) in [
        ("use", json!("enc")),
        ("use", json!("jwt-svid")),
        ("use", json!(null)),
        ("alg", json!("ES384")),
        ("alg", json!("none")),
        ("crv", json!("P-384")),
        ("crv", json!("secp256k1")),
        ("kty", json!("RSA")),
        ("kty", json!("oct")),
    ] {
        let mut key = one.jwk();
        key[name] = value.clone();
        assert!(!is_valid(&[key], &token).await, "{name}: {value}");
    }
    // More than any issuer has.
    let many: Vec<Value> = (0..65).map(|_| one.jwk()).collect();
    assert!(!is_valid(&many, &token).await);
    assert!(is_valid(&many[..64], &token).await);
}

#[tokio::test]
async fn times_count_to_the_second_and_odd_ones_are_none() {
    let signer = Signer::p256("k");
    let keys = [signer.jwk()];
    let header = r#"{"alg":"ES256","kid":"k"}"#;
    // The skew is a minute.
    for (times, expected) in [
        (format!(r#""exp":{}"#, NOW - 60), true),
        (format!(r#""exp":{}.5"#, NOW - 61), false),
        (format!(r#""nbf":{}"#, NOW + 60), true),
        (format!(r#""nbf":{}.5"#, NOW + 60), false),
        (r#""exp":1e300"#.to_owned(), true),
        (r#""exp":18446744073709551616"#.to_owned(), true),
        (r#""exp":1e400"#.to_owned(), false),
        (r#""exp":-1e10"#.to_owned(), false),
        (r#""exp":-0.5"#.to_owned(), false),
        (r#""exp":true"#.to_owned(), false),
        (r#""exp":[4000000000]"#.to_owned(), false),
        (r#""nbf":1e300"#.to_owned(), false),
        (r#""nbf":-1"#.to_owned(), false),
        (r#""nbf":null"#.to_owned(), false),
    ] {
        let payload = format!(r#"{{"iss":"https://issuer","aud":"us",{times}}}"#);
        let token = signer.sign_as(header, &payload);
        assert_eq!(is_valid(&keys, &token).await, expected, "{times}");
    }
}

#[tokio::test]
async fn one_token_has_one_way_to_be_written() {
    let signer = Signer::p256("k");
    let keys = [signer.jwk()];
    let good = signer.sign(&claims());
    // At a place of its own: behind `Bearer`, Envoy and we look for the token among what is there.
    let mut whole = set(&keys);
    whole[0]["fromHeaders"] = json!([{"name": "x-token"}]);
    let outcome = verify(&whole, &http("/", &[("x-token", &good)])).await;
    assert!(matches!(outcome, Outcome::Valid(_)), "{outcome:?}");
    let (header, rest) = good.split_once('.').unwrap();
    // The last character of a part may have bits that say nothing: any other character there is another text.
    let spare = |part: &str| {
        let (last, before) = part.as_bytes().split_last().unwrap();
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let place = alphabet.iter().position(|c| c == last).unwrap();
        assert!(!part.len().is_multiple_of(4));
        let before = std::str::from_utf8(before).unwrap();
        format!("{before}{}", char::from(alphabet[place + 1]))
    };
    let padded = signer.sign_as(r#"{"alg":"ES256","kid":"k" }"#, &claims().to_string());
    let (short, after) = padded.split_once('.').unwrap();
    for token in [
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.."),
        format!("{header}..{rest}"),
        format!("{}.{after}", spare(short)),
        format!("{header}=.{rest}"),
        format!("{header} .{rest}"),
        format!("{header}\t.{rest}"),
        format!("{header}\u{a0}.{rest}"),
        format!("{good}%20"),
        format!("{good}="),
        good.to_uppercase(),
        good.replace('.', "%2e"),
        format!("\"{good}\""),
    ] {
        let outcome = verify(&whole, &http("/", &[("x-token", &token)])).await;
        assert!(
            matches!(outcome, Outcome::Invalid(_)),
            "{token} {outcome:?}"
        );
    }
}
