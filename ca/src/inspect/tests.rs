use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

use super::*;

fn params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn authority(uri: &str) -> CertificateParams {
    let mut params = params(uri);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn der(params: &CertificateParams) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

#[track_caller]
fn only(input: &[u8]) -> Found {
    let mut all = inspect(input, SystemTime::now()).unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[track_caller]
fn breaks(input: impl AsRef<[u8]>, clauses: &[&str]) {
    let found = only(input.as_ref());
    assert_eq!(found.problems.len(), clauses.len(), "{found:?}");
    for (problem, clause) in found.problems.iter().zip(clauses) {
        assert!(problem.contains(clause), "{problem}: {clause}");
    }
}

#[test]
fn every_clause_that_a_certificate_breaks_is_told() {
    let mut bad = params("spiffe://example.org");
    bad.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    bad.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    breaks(
        der(&bad),
        &["§3.1", "§4.3", "lacks digitalSignature", "§4.4"],
    );
    breaks(der(&params("spiffe://example.org/x")), &[]);
    breaks(der(&params("https://example.org/x")), &["X509-SVID §2"]);
    let mut wrong = authority("spiffe://example.org/ca");
    wrong.key_usages.clear();
    breaks(der(&wrong), &["§3.2", "§4.3"]);
    let later = SystemTime::now() + Duration::from_secs(86_400 * 366 * 3000);
    let found = inspect(&der(&params("spiffe://example.org/x")), later).unwrap();
    assert!(found[0].problems[0].contains("expired"), "{found:?}");
}

#[test]
fn a_chain_is_told_link_by_link() {
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut root = authority("spiffe://example.org");
    root.distinguished_name
        .push(rcgen::DnType::CommonName, "root");
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(root, root_key);
    let leaf = params("spiffe://example.org/x")
        .signed_by(&key, &issuer)
        .unwrap()
        .pem();
    let read = |text: &str| inspect(text.as_bytes(), SystemTime::now()).unwrap();
    let good = read(&(leaf.clone() + &root_pem));
    assert_eq!(
        (good[0].kind, good[1].kind),
        ("X.509-SVID", "X.509 authority")
    );
    assert!(
        good.iter().all(|found| found.problems.is_empty()),
        "{good:?}"
    );
    assert!(good[1].notes[0].contains("self-signed"), "{good:?}");
    let turned = read(&(root_pem + &leaf));
    assert!(
        turned[1].problems[0].contains("begins with the leaf"),
        "{turned:?}"
    );
    let other = KeyPair::generate().unwrap();
    let mut other_root = authority("spiffe://example.org");
    other_root
        .distinguished_name
        .push(rcgen::DnType::CommonName, "root");
    let stranger = read(&(leaf + &other_root.self_signed(&other).unwrap().pem()));
    assert!(
        stranger[1].problems[0].contains("did not sign"),
        "{stranger:?}"
    );
}

#[test]
fn every_clause_that_a_bundle_breaks_is_told() {
    let good = STANDARD.encode(der(&authority("spiffe://example.org")));
    let other = STANDARD.encode(der(&authority("spiffe://example.org")));
    let x509 = |more: &str| {
        let jwk = crate::bundle::key_parameters(
            &certificate::spki(&STANDARD.decode(&good).unwrap().into()).unwrap(),
        );
        let jwk = serde_json::Value::from(jwk.unwrap()).to_string();
        let jwk = jwk.trim_matches(['{', '}']);
        format!(r#"{{{jwk},"use":"x509-svid"{more}}}"#)
    };
    let x5c = format!(r#","x5c":["{good}"]"#);
    let bundle =
        |keys: &str| format!(r#"{{"spiffe_sequence":1,"spiffe_refresh_hint":5,"keys":[{keys}]}}"#);
    breaks(bundle(&x509(&x5c)), &[]);
    breaks(
        bundle(&x509(&(x5c.clone() + r#","kid":"a""#))),
        &["X509-SVID §6.1"],
    );
    breaks(bundle(&x509("")), &["x5c"]);
    let two = format!(r#","x5c":["{good}","{good}"]"#);
    breaks(bundle(&x509(&two)), &["has 2 certificates"]);
    let of_another = format!(r#","x5c":["{other}"]"#);
    breaks(bundle(&x509(&of_another)), &["another key"]);
    breaks(bundle(&x509(&(x5c + r#","d":"AAAA""#))), &["private key"]);
    let jwt = |more: &str| {
        let jwk = x509(more);
        jwk.replace("x509-svid", "jwt-svid")
    };
    breaks(bundle(&jwt(r#","kid":"a""#)), &[]);
    breaks(bundle(&jwt("")), &["JWT-SVID §6.1"]);
    let twice = format!("{},{}", jwt(r#","kid":"a""#), jwt(r#","kid":"a""#));
    breaks(bundle(&twice), &["that of another key"]);
    breaks(r#"{"spiffe_sequence":-1,"keys":[]}"#, &["§4.1.1"]);
    breaks("{}", &["§4.1.3"]);
    let map = format!(r#"{{"trust_domains":{{"Example.org":{}}}}}"#, bundle(""));
    let map = inspect(map.as_bytes(), SystemTime::now()).unwrap();
    assert_eq!(map[0].kind, "SPIFFE bundle map");
    assert!(map[1].problems[0].contains("SPIFFE-ID §2.1"), "{map:?}");
    for twice in [
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[{"use":"a","use":"b"}]}"#,
    ] {
        assert!(inspect(twice.as_bytes(), SystemTime::now()).is_err());
    }
}

fn token(header: &str, claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(header), part(claims), part("signature"))
}

#[test]
fn every_clause_that_a_token_breaks_is_told() {
    let good = r#"{"sub":"spiffe://example.org/x","aud":["a"],"exp":99999999999}"#;
    breaks(token(r#"{"alg":"ES256","kid":"k"}"#, good), &[]);
    breaks(
        token(r#"{"alg":"none","typ":"at+jwt","jku":"x"}"#, "{}"),
        &["§2)", "§2.3", "§2.1", "§3.1", "§3.2", "§3.3"],
    );
    let expired = r#"{"sub":"spiffe://example.org/x","aud":"a","exp":1000}"#;
    breaks(token(r#"{"alg":"ES256"}"#, expired), &["expired"]);
    let huge = r#"{"sub":"spiffe://example.org/x","aud":"a","exp":9223372036854775807,"iat":-1}"#;
    breaks(token(r#"{"alg":"ES256"}"#, huge), &[]);
    let wit = r#"{"sub":"spiffe://example.org/x","aud":"a","exp":99999999999}"#;
    let found = only(token(r#"{"alg":"ES256","kid":"k","typ":"wit+jwt"}"#, wit).as_bytes());
    assert_eq!(found.kind, "WIT-SVID");
    assert_eq!(found.problems.len(), 2, "{found:?}");
    for garbage in ["a.b", "a.b.c", "..", "a.b.c.d"] {
        assert!(
            inspect(garbage.as_bytes(), SystemTime::now()).is_err(),
            "{garbage}"
        );
    }
}
