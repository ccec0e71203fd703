use std::time::{Duration, SystemTime};

use super::*;
use crate::key::{KeyAlgorithm, MemoryKey, SigningKey as _};
use crate::trust_domain::TrustDomain;
use crate::x509::certificate::{Attribute, KeyUsage, LeafKey, Serial, Template, assemble, name};
use crate::x509::csr::ProvenKey;

fn rcgen_params(uris: &[&str]) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap()))
        .collect();
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params
}

fn der(params: &rcgen::CertificateParams) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

#[test]
fn a_leaf_that_breaks_a_clause_is_refused_by_its_name() {
    const ID: &str = "spiffe://example.org/x";
    let good = rcgen_params(&[ID]);
    assert_eq!(any_leaf(&der(&good)).unwrap().as_str(), ID);
    let refused = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = good.clone();
        change(&mut params);
        any_leaf(&der(&params)).unwrap_err()
    };
    let uris = |uris: &[&str]| rcgen_params(uris).subject_alt_names;
    assert_eq!(
        refused(&|p| p.subject_alt_names.clear()),
        Refusal::UriCount(0)
    );
    let two = refused(&|p| p.subject_alt_names = uris(&[ID, "spiffe://example.org/y"]));
    assert_eq!(two, Refusal::UriCount(2));
    let other = refused(&|p| p.subject_alt_names = uris(&["https://example.org/x"]));
    assert!(matches!(other, Refusal::SpiffeId(_)));
    let upper = refused(&|p| p.subject_alt_names = uris(&["spiffe://EXAMPLE.org/x"]));
    assert!(
        matches!(upper, Refusal::SpiffeId(_)),
        "credentials are compared byte by byte"
    );
    let root = refused(&|p| p.subject_alt_names = uris(&["spiffe://example.org"]));
    assert!(matches!(root, Refusal::LeafWithoutPath(_)));
    let ca = refused(&|p| p.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    assert_eq!(ca, Refusal::LeafIsCa);
    assert_eq!(refused(&|p| p.key_usages.clear()), Refusal::NoKeyUsage);
    for usage in [
        rcgen::KeyUsagePurpose::KeyCertSign,
        rcgen::KeyUsagePurpose::CrlSign,
    ] {
        let refusal = refused(&|p| p.key_usages.push(usage));
        assert_eq!(refusal, Refusal::LeafSignsCertificates);
    }
    let weak = refused(&|p| p.key_usages = vec![rcgen::KeyUsagePurpose::KeyAgreement]);
    assert_eq!(weak, Refusal::LeafCannotSign);
    for usage in [
        rcgen::ExtendedKeyUsagePurpose::ServerAuth,
        rcgen::ExtendedKeyUsagePurpose::ClientAuth,
    ] {
        let half = refused(&|p| p.extended_key_usages = vec![usage.clone()]);
        assert_eq!(half, Refusal::HalfExtendedKeyUsage);
    }
    for garbage in [&b""[..], b"\x30\x00", &[&der(&good)[..], &[0]].concat()] {
        assert_eq!(any_leaf(garbage), Err(Refusal::Malformed));
    }
}

#[test]
fn an_authority_that_breaks_a_clause_is_refused_by_its_name() {
    let trust_domain = TrustDomain::new("example.org").unwrap();
    let mut good = rcgen_params(&["spiffe://example.org"]);
    good.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    good.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    authority(&der(&good), &trust_domain).unwrap();
    let refused = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = good.clone();
        change(&mut params);
        authority(&der(&params), &trust_domain).unwrap_err()
    };
    let uris = |uris: &[&str]| rcgen_params(uris).subject_alt_names;
    let path = refused(&|p| p.subject_alt_names = uris(&["spiffe://example.org/x"]));
    assert!(matches!(path, Refusal::AuthorityWithPath(_)));
    let other = refused(&|p| p.subject_alt_names = uris(&["spiffe://other.org"]));
    assert!(matches!(other, Refusal::OtherTrustDomain(_)));
    let two =
        refused(&|p| p.subject_alt_names = uris(&["spiffe://example.org", "spiffe://other.org"]));
    assert_eq!(two, Refusal::UriCount(2));
    assert_eq!(
        refused(&|p| p.is_ca = rcgen::IsCa::ExplicitNoCa),
        Refusal::AuthorityIsNotCa
    );
    assert_eq!(refused(&|p| p.key_usages.clear()), Refusal::NoKeyUsage);
    let cannot = refused(&|p| p.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature]);
    assert_eq!(cannot, Refusal::AuthorityCannotSign);
    // A root that was not made for SPIFFE has no SPIFFE ID, and may serve.
    let mut plain = good.clone();
    plain.subject_alt_names.clear();
    authority(&der(&plain), &trust_domain).unwrap();
}

#[test]
fn our_own_certificate_has_a_critical_san_when_its_subject_is_empty() {
    use x509_parser::prelude::FromDer as _;
    let key = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
    let public = ProvenKey::made_here(key.public_key()).unwrap();
    let id: SpiffeId = "spiffe://example.org/x".parse().unwrap();
    let issuer = name(&[(Attribute::CommonName, "x")]);
    for (subject, critical) in [(name(&[]), true), (issuer.clone(), false)] {
        let template = Template {
            serial: Serial::random().unwrap(),
            issuer: &issuer,
            subject: &subject,
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(60),
            public_key: key.public_key(),
            spiffe_id: &id,
            dns_names: &[],
            is_ca: false,
            key_usage: KeyUsage::leaf(LeafKey::Ec),
            issuer_key_id: b"id",
        };
        let to_be_signed = template.to_be_signed(key.algorithm(), public.bits());
        let signature = key.sign_now(&to_be_signed).unwrap();
        let certificate = assemble(&to_be_signed, key.algorithm(), &signature);
        assert_eq!(any_leaf(&certificate), Ok(id.clone()));
        let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
        let san = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(san.critical, critical);
    }
}
