use serde_json::json;

use super::*;
use crate::key::{KeyAlgorithm, MemoryKey, SigningKey as _};

fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn root(id: &str) -> Bytes {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(id.try_into().unwrap())];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec().into()
}

fn full() -> Bundle {
    let mut bundle = Bundle::from_certificates(
        trust_domain(),
        vec![root("spiffe://example.org"), root("spiffe://example.org")],
    )
    .unwrap();
    for (kid, algorithm) in [("a", KeyAlgorithm::P256), ("b", KeyAlgorithm::P384)] {
        let key = MemoryKey::generate(algorithm).unwrap();
        bundle.jwt_authorities.push(JwtAuthority {
            key_id: kid.to_owned(),
            key: JwtKey::from_spki(key.public_key()).unwrap(),
            expires_at: None,
            tainted: false,
        });
    }
    bundle.sequence = u64::MAX;
    bundle.refresh_hint = Some(Duration::from_secs(300));
    bundle
}

#[test]
fn what_is_written_is_read_again() {
    let bundle = full();
    let read = Bundle::from_document(trust_domain(), bundle.to_document().as_bytes()).unwrap();
    assert_eq!(read, bundle);
}

#[test]
fn every_key_is_written_as_its_clause_says() {
    let document: Value = serde_json::from_str(&full().to_document()).unwrap();
    assert_eq!(document["spiffe_sequence"], u64::MAX);
    assert_eq!(document["spiffe_refresh_hint"], 300);
    for key in document["keys"].as_array().unwrap() {
        assert!(key["kty"].is_string());
        match key["use"].as_str().unwrap() {
            "x509-svid" => {
                assert!(key.get("kid").is_none());
                assert_eq!(key["x5c"].as_array().unwrap().len(), 1);
                assert!(key["x"].is_string(), "the key's own parameters, too");
            }
            "jwt-svid" => assert!(key["kid"].is_string() && key.get("x5c").is_none()),
            other => panic!("{other}"),
        }
    }
    let plain: Value = serde_json::from_str(&full().jwks()).unwrap();
    let keys = plain["keys"].as_array().unwrap();
    assert!(keys.len() == 2 && keys.iter().all(|key| key.get("use").is_none()));
}

#[test]
fn what_is_not_known_is_passed_over() {
    let first = STANDARD.encode(root("spiffe://example.org"));
    let document = json!({
        "something": 1,
        "keys": [
            {"kty": "EC", "use": "x509-svid"},
            {"kty": "EC", "use": "x509-svid", "x5c": []},
            {"kty": "EC", "use": "x509-svid", "x5c": [first, "no base64"]},
            {"kty": "EC", "use": "X509-SVID", "x5c": [first]},
            {"kty": "AKP", "use": "jwt-svid", "kid": "x"},
            {"kty": "EC", "use": "wit-svid", "kid": "y"},
            {"kty": "EC", "kid": "z"},
        ],
    });
    let bundle = Bundle::from_document(trust_domain(), document.to_string().as_bytes()).unwrap();
    assert_eq!(
        (bundle.x509_authorities.len(), bundle.jwt_authorities.len()),
        (1, 0)
    );
    assert!(bundle.wit_authorities.is_empty());
    let empty = Bundle::from_document(trust_domain(), br#"{"keys":[]}"#).unwrap();
    assert!(empty.x509_authorities.is_empty(), "every key is revoked");
}

#[test]
fn what_cannot_be_a_bundle_is_refused_by_name() {
    let read = |text: &str| Bundle::from_document(trust_domain(), text.as_bytes()).unwrap_err();
    assert!(matches!(read("[]"), DocumentError::NoObject(_)));
    assert!(matches!(read("{}"), DocumentError::NoKeys));
    assert!(matches!(read(r#"{"keys":{}}"#), DocumentError::NoKeys));
    assert!(matches!(
        read(r#"{"keys":[1]}"#),
        DocumentError::Key { index: 0, .. }
    ));
    for text in [
        r#"{"keys":[],"spiffe_sequence":-1}"#,
        r#"{"keys":[],"spiffe_refresh_hint":"5"}"#,
    ] {
        assert!(matches!(read(text), DocumentError::Number(_)), "{text}");
    }
    let foreign = STANDARD.encode(root("spiffe://other.org"));
    let text = json!({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [foreign]}]}).to_string();
    assert!(read(&text).to_string().contains("X509-SVID §3.2"));
    let key = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
    let mut jwk = JwtKey::from_spki(key.public_key()).unwrap().to_jwk("k");
    jwk.insert("use".to_owned(), "jwt-svid".into());
    let twice = json!({"keys": [jwk, jwk]}).to_string();
    assert!(matches!(read(&twice), DocumentError::KeyId { index: 1 }));
    let many = json!({"keys": vec![json!({}); 4097]}).to_string();
    assert!(matches!(read(&many), DocumentError::TooManyKeys(4097)));
    let long = " ".repeat(MAX_DOCUMENT + 1);
    assert!(matches!(read(&long), DocumentError::TooLong(_)));
}

#[test]
fn a_thousand_roots_are_one_bundle() {
    let mut bundle = Bundle::empty(trust_domain());
    let der = root("spiffe://example.org");
    let keys: Vec<Value> = (0..1000)
        .map(|_| json!({"kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(&der)]}))
        .collect();
    let document = json!({ "keys": keys }).to_string();
    let read = Bundle::from_document(trust_domain(), document.as_bytes()).unwrap();
    assert_eq!(
        read.x509_authorities.len(),
        1,
        "the same one a thousand times"
    );
    bundle.x509_authorities = (0..1000)
        .map(|_| X509Authority {
            der: root("spiffe://example.org"),
            tainted: false,
        })
        .collect();
    let read = Bundle::from_document(trust_domain(), bundle.to_document().as_bytes()).unwrap();
    assert_eq!(read.x509_authorities.len(), 1000);
}
