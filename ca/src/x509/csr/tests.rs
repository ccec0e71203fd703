use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};

use super::*;

fn csr(algorithm: &'static rcgen::SignatureAlgorithm, params: CertificateParams) -> Vec<u8> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

#[test]
fn the_key_is_taken_byte_by_byte() {
    for (algorithm, kind) in [
        (&PKCS_ECDSA_P256_SHA256, LeafKey::Ec),
        (&PKCS_ECDSA_P384_SHA384, LeafKey::Ec),
        (&PKCS_ED25519, LeafKey::Ed25519),
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let proven = ProvenKey::from_csr(csr.der()).unwrap();
        use rcgen::PublicKeyData as _;
        assert_eq!(proven.spki(), &key.subject_public_key_info());
        assert_eq!(proven.kind(), kind);
    }
}

#[test]
fn a_csr_may_ask_for_anything_and_only_its_key_is_taken() {
    let mut params = CertificateParams::new(vec!["web.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let csr = csr(&PKCS_ECDSA_P256_SHA256, params);
    assert!(ProvenKey::from_csr(&csr).is_ok());
    let names = RequestedNames::from_csr(&csr).unwrap();
    assert_eq!(names.dns_names, ["web.example"]);
    assert!(names.uris.is_empty());
}

#[test]
fn without_proof_of_possession_there_is_nothing() {
    let mut csr = csr(&PKCS_ECDSA_P256_SHA256, CertificateParams::default());
    // A byte of the signature's last number.
    *csr.last_mut().unwrap() ^= 1;
    assert_eq!(ProvenKey::from_csr(&csr), Err(CsrError::Signature));
}

#[test]
fn what_is_no_csr_is_refused_by_name() {
    let good = csr(&PKCS_ECDSA_P256_SHA256, CertificateParams::default());
    let trailing = [&good[..], &[0]].concat();
    assert_eq!(
        ProvenKey::from_csr(&trailing),
        Err(CsrError::Malformed("there is something after it"))
    );
    assert!(matches!(
        ProvenKey::from_csr(&[]),
        Err(CsrError::Malformed(_))
    ));
    assert!(matches!(
        ProvenKey::from_csr(&vec![0x30; MAX_CSR + 1]),
        Err(CsrError::TooLong(_))
    ));
    let pem = ProvenKey::from_csr(b"-----BEGIN CERTIFICATE REQUEST-----\n").unwrap_err();
    assert!(pem.to_string().contains("PEM"), "{pem}");
    // Whatever is cut off or flipped: an answer, no panic.
    for end in 0..good.len() {
        assert!(ProvenKey::from_csr(&good[..end]).is_err());
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        let _ = ProvenKey::from_csr(&bad);
        let _ = RequestedNames::from_csr(&bad);
    }
}

#[test]
fn a_p384_key_that_signs_with_sha256_keeps_its_curve() {
    let Some(csr) = openssl(&["ecparam", "-name", "secp384r1"], "-sha256") else {
        return;
    };
    let proven = ProvenKey::from_csr(&csr).unwrap();
    assert_eq!(proven.bits().len(), 97, "a point on P-384");
}

#[test]
fn a_p521_key_is_refused_by_name() {
    let Some(csr) = openssl(&["ecparam", "-name", "secp521r1"], "-sha256") else {
        return;
    };
    let error = ProvenKey::from_csr(&csr).unwrap_err();
    assert!(error.to_string().contains("P-521"), "{error}");
}

/// A CSR by the `openssl` program, where there is one.
fn openssl(parameters: &[&str], hash: &str) -> Option<Vec<u8>> {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    let made = Command::new("openssl")
        .args(parameters)
        .args(["-genkey", "-noout", "-out"])
        .arg(&key)
        .output();
    if made.is_err() {
        eprintln!("skipped: there is no `openssl`");
        assert!(
            std::env::var_os("CI").is_none(),
            "`openssl` is needed in CI"
        );
        return None;
    }
    let csr = Command::new("openssl")
        .args([
            "req", "-new", "-subj", "/CN=x", hash, "-outform", "DER", "-key",
        ])
        .arg(&key)
        .output()
        .unwrap();
    assert!(
        csr.status.success(),
        "{}",
        String::from_utf8_lossy(&csr.stderr)
    );
    Some(csr.stdout)
}
