//! Everything that is issued, seen by verifiers that did not make it.

use std::process::Command;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

use super::*;
use crate::authority::upstream::Upstream;
use crate::ca::issue::JwtRequest;
use crate::key::pem;
use crate::x509::conform;
use crate::x509::csr::ProvenKey;
use crate::x509::profile::LeafRequest;

/// Verifies the chain with webpki, both as a client's and as a server's.
fn webpki(
    chain: &[bytes::Bytes],
    roots: &[bytes::Bytes],
    dns: Option<&str>,
) -> Result<(), rustls::Error> {
    let mut store = rustls::RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(root.to_vec())).unwrap();
    }
    let store = Arc::new(store);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain: Vec<CertificateDer<'_>> = chain
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    let client =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(&provider));
    client
        .build()
        .unwrap()
        .verify_client_cert(&chain[0], &chain[1..], UnixTime::now())?;
    if let Some(dns) = dns {
        let server = rustls::client::WebPkiServerVerifier::builder_with_provider(store, provider);
        let name = dns.to_owned().try_into().unwrap();
        use rustls::client::danger::ServerCertVerifier as _;
        server.build().unwrap().verify_server_cert(
            &chain[0],
            &chain[1..],
            &name,
            &[],
            UnixTime::now(),
        )?;
    }
    Ok(())
}

/// Verifies the chain with the `openssl` program, where there is one.
fn openssl(folder: &Path, chain: &[bytes::Bytes], root: &bytes::Bytes) {
    let write = |name: &str, certificates: &[bytes::Bytes]| {
        let text: String = certificates
            .iter()
            .map(|der| pem::certificate_text(der))
            .collect();
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (root, leaf) = (
        write("root.pem", std::slice::from_ref(root)),
        write("leaf.pem", &chain[..1]),
    );
    for purpose in ["sslclient", "sslserver"] {
        let mut verify = Command::new("openssl");
        verify
            .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
            .arg(&root);
        if chain.len() > 1 {
            verify
                .arg("-untrusted")
                .arg(write("chain.pem", &chain[1..]));
        }
        match verify.arg(&leaf).output() {
            Ok(output) => assert!(
                output.status.success(),
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(_) => {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "`openssl` is needed in CI"
                );
                eprintln!("skipped: there is no `openssl`");
            }
        }
    }
}

#[tokio::test]
async fn every_kind_of_authority_issues_what_webpki_and_openssl_accept() {
    let clock = TestClock::new();
    for algorithm in [
        KeyAlgorithm::P256,
        KeyAlgorithm::P384,
        KeyAlgorithm::Ed25519,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(folder.path());
        options.x509_key = algorithm;
        let ca = open(options, &clock).await;
        let mut web = entry("/web", &["unix:uid:1"]);
        web.dns_names = vec!["web.example.org".to_owned(), "*.web.example.org".to_owned()];
        create(&ca, web).await;
        let svid = svid(&ca, &["unix:uid:1"]).await;
        let root = ca.bundle().x509_authorities[0].der.clone();
        webpki(
            &svid.chain,
            std::slice::from_ref(&root),
            Some("web.example.org"),
        )
        .unwrap();
        openssl(folder.path(), &svid.chain, &root);
        let stranger = tempfile::tempdir().unwrap();
        let stranger = open(super::options(stranger.path()), &clock).await;
        let foreign = stranger.bundle().x509_authorities[0].der.clone();
        assert!(webpki(&svid.chain, &[foreign], None).is_err());
    }
}

#[tokio::test]
async fn ids_and_names_of_every_length_are_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    let longest = 2048 - "spiffe://example.org/".len();
    // Lengths of DER change their form at 128 and 256.
    for length in [1, 90, 107, 108, 200, 235, 236, 1000, longest] {
        let mut long = entry(
            &format!("/{}", "a".repeat(length)),
            &[&format!("test:length:{length}")],
        );
        let label = "b".repeat(length.min(60));
        long.dns_names = vec![
            format!("{label}.example.org"),
            format!("{label}.{label}.example.org"),
        ];
        create(&ca, long).await;
        let svid = svid(&ca, &[&format!("test:length:{length}")]).await;
        let root = ca.bundle().x509_authorities[0].der.clone();
        webpki(&svid.chain, &[root], Some(&format!("{label}.example.org"))).unwrap();
        assert_eq!(conform::any_leaf(&svid.chain[0]).unwrap(), svid.spiffe_id);
    }
}

#[tokio::test]
async fn the_key_that_comes_in_is_the_key_that_is_certified() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        use rcgen::PublicKeyData as _;
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let csr = params.serialize_request(&key).unwrap();
        let request = X509Request {
            leaf: LeafRequest {
                spiffe_id: "spiffe://example.org/x".parse().unwrap(),
                dns_names: Vec::new(),
                ttl: Some(Duration::from_secs(1_000_000_000)),
                key: ProvenKey::from_csr(csr.der()).unwrap(),
            },
            entry: None,
        };
        let issued = ca
            .issue_x509(vec![request], &Requester::admin("uid:0"))
            .await
            .unwrap();
        let issued = issued[0].clone().unwrap();
        use x509_parser::prelude::FromDer as _;
        let (_, parsed) =
            x509_parser::certificate::X509Certificate::from_der(&issued.chain[0]).unwrap();
        assert_eq!(parsed.public_key().raw, key.subject_public_key_info());
        assert!(!parsed.is_ca(), "a CSR that asks for a CA gets a leaf");
        let end = ca
            .authorities()
            .active(AuthorityKind::X509)
            .unwrap()
            .row
            .not_after;
        assert!(
            issued.not_after <= end,
            "never past the authority's own end"
        );
    }
}

#[tokio::test]
async fn an_intermediate_stands_under_a_root_from_disk() {
    let clock = TestClock::new();
    // A root with two OUs and names that a printed form would not tell apart, of another tool's making.
    for key_type in [
        &["ecparam", "-name", "prime256v1", "-genkey", "-noout"][..],
        &["genrsa", "2048"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (key, certificate) = (
            folder.path().join("root.key"),
            folder.path().join("root.crt"),
        );
        let Ok(made) = Command::new("openssl").args(key_type).output() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "`openssl` is needed in CI"
            );
            return;
        };
        fs::write(&key, made.stdout).unwrap();
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-new",
                "-days",
                "2",
                "-subj",
                "/O=Acme/OU=one/OU=two/CN=Root",
            ])
            .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-key"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mut options = options(&folder.path().join("data"));
        options.upstream = Some((certificate.clone(), key.clone()));
        options.authority_ttl = Duration::from_secs(30 * 86_400);
        let ca = open(options.clone(), &clock).await;
        create(&ca, entry("/web", &["unix:uid:1"])).await;
        let svid = svid(&ca, &["unix:uid:1"]).await;
        assert_eq!(svid.chain.len(), 2, "leaf and intermediate, not the root");
        let root = ca.bundle().x509_authorities[0].der.clone();
        assert_eq!(
            root,
            pem::certificates(&fs::read_to_string(&certificate).unwrap()).unwrap()[0]
        );
        webpki(&svid.chain, std::slice::from_ref(&root), None).unwrap();
        openssl(folder.path(), &svid.chain, &root);
        let active = ca
            .authorities()
            .active(AuthorityKind::X509)
            .unwrap()
            .row
            .clone();
        let upstream = Upstream::read(&certificate, &key, ca.trust_domain()).unwrap();
        assert_eq!(
            active.not_after,
            upstream.not_after(),
            "an intermediate ends with its root"
        );
        // A restart goes on with the same one.
        drop(ca);
        let ca = open(options, &clock).await;
        assert_eq!(
            ca.authorities().active(AuthorityKind::X509).unwrap().row.id,
            active.id
        );
        let other = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
        let wrong = folder.path().join("wrong.key");
        fs::write(&wrong, pem::private_key_text(other.pkcs8()).as_bytes()).unwrap();
        let error = Upstream::read(&certificate, &wrong, ca.trust_domain())
            .err()
            .unwrap();
        assert!(
            error.to_string().contains("that of another certificate"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn jwt_svids_validate_and_each_kind_of_key_signs_its_own_algorithm() {
    let clock = TestClock::new();
    for (algorithm, alg) in [(KeyAlgorithm::P256, "ES256"), (KeyAlgorithm::P384, "ES384")] {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(folder.path());
        options.jwt_key = algorithm;
        let ca = open(options, &clock).await;
        create(&ca, entry("/web", &["unix:uid:1"])).await;
        let caller = caller(&["unix:uid:1"]);
        let audiences = ["db".to_owned(), "cache".to_owned()];
        let svids = ca.jwt_svids(&caller, &audiences, None).await.unwrap();
        use base64::Engine as _;
        let header = svids[0].token.split('.').next().unwrap();
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(header)
            .unwrap();
        let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header["alg"], alg);
        assert_eq!(header["kid"], ca.bundle().jwt_authorities[0].key_id);
        let valid = ca
            .validate_jwt_svid(&caller, "cache", &svids[0].token)
            .await
            .unwrap();
        assert_eq!(valid.spiffe_id.path(), "/web");
        assert_eq!(valid.claims["aud"], serde_json::json!(audiences));
        let wrong = ca
            .validate_jwt_svid(&caller, "other", &svids[0].token)
            .await;
        assert!(
            matches!(wrong, Err(IssueError::InvalidArgument(_))),
            "{wrong:?}"
        );
        clock.advance(Duration::from_secs(301));
        let late = ca
            .validate_jwt_svid(&caller, "cache", &svids[0].token)
            .await
            .unwrap_err();
        assert!(late.to_string().contains("expired"), "{late}");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.jwt_key = KeyAlgorithm::Ed25519;
    let error = Ca::open(options, clock).await.err().unwrap();
    assert!(error.to_string().contains("JWT-SVID §2.1"), "{error}");
}

#[tokio::test]
async fn a_jwt_svid_needs_an_audience_and_an_identity_of_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(options(folder.path()), &TestClock::new()).await;
    create(&ca, entry("/web", &["unix:uid:1"])).await;
    let caller = caller(&["unix:uid:1"]);
    for audiences in [vec![], vec![String::new()], vec!["a".to_owned(); 65]] {
        let error = ca.jwt_svids(&caller, &audiences, None).await.unwrap_err();
        assert!(matches!(error, IssueError::InvalidArgument(_)), "{error}");
    }
    let other: SpiffeId = "spiffe://example.org/other".parse().unwrap();
    let error = ca
        .jwt_svids(&caller, &["a".to_owned()], Some(&other))
        .await
        .unwrap_err();
    assert_eq!(error, IssueError::NotEntitled(other.clone()));
    let request = |id: &str| JwtRequest {
        spiffe_id: id.parse().unwrap(),
        audiences: vec!["a".to_owned()],
        ttl: None,
        entry: None,
    };
    let requests = vec![
        request("spiffe://other.org/x"),
        request("spiffe://example.org"),
    ];
    for refused in ca
        .issue_jwt(requests, &Requester::admin("uid:0"))
        .await
        .unwrap()
    {
        assert!(
            matches!(refused, Err(IssueError::InvalidArgument(_))),
            "{refused:?}"
        );
    }
}
