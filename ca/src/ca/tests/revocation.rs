//! Revocation lists, seen by verifiers that did not make them.

use std::process::Command;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use super::*;
use crate::ca::RevocationError;
use crate::key::pem;
use crate::x509::crl::Reason;

fn revoking(data: &Path) -> Options {
    let mut options = options(data);
    options.revocation = Some(crate::ca::LIST_LIFE);
    options
}

fn serial(svid: &X509Svid) -> String {
    let (_, leaf) = X509Certificate::from_der(&svid.chain[0]).unwrap();
    leaf.raw_serial_as_string()
}

/// What webpki says of an SVID, with every list that there is.
fn webpki(ca: &Ca, svid: &X509Svid) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    for root in &ca.bundle().x509_authorities {
        roots.add(CertificateDer::from(root.der.to_vec())).unwrap();
    }
    let lists = ca.revocation_lists().into_iter();
    let lists = lists.map(|list| CertificateRevocationListDer::from(list.to_vec()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(lists)
        .only_check_end_entity_revocation()
        .enforce_revocation_expiration()
        .build()
        .unwrap();
    let leaf = CertificateDer::from(svid.chain[0].to_vec());
    let verified = verifier.verify_client_cert(&leaf, &[], UnixTime::now());
    verified.map(|_| ())
}

/// What `openssl verify` says, where there is one.
fn openssl(folder: &Path, ca: &Ca, svid: &X509Svid) -> Option<String> {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let lists = ca.revocation_lists();
    let lists: String = lists.iter().map(|list| pem::crl_text(list)).collect();
    let bundle = ca.bundle();
    let roots = bundle.x509_authorities.iter();
    let roots: String = roots.map(|root| pem::certificate_text(&root.der)).collect();
    let mut verify = Command::new("openssl");
    verify
        .args(["verify", "-x509_strict", "-crl_check", "-CAfile"])
        .arg(write("roots.pem", roots))
        .arg("-CRLfile")
        .arg(write("lists.pem", lists))
        .arg(write("leaf.pem", pem::certificate_text(&svid.chain[0])));
    match verify.output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            Some(String::from_utf8_lossy(&said).into_owned())
        }
        Err(_) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "`openssl` is needed in CI"
            );
            eprintln!("skipped: there is no `openssl`");
            None
        }
    }
}

#[tokio::test]
async fn webpki_and_openssl_refuse_what_is_listed_and_nothing_else() {
    for algorithm in [
        KeyAlgorithm::P256,
        KeyAlgorithm::P384,
        KeyAlgorithm::Ed25519,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::new();
        let mut options = revoking(folder.path());
        options.x509_key = algorithm;
        let ca = open(options, &clock).await;
        create(&ca, entry("/a", &["unix:uid:1"])).await;
        create(&ca, entry("/b", &["unix:uid:2"])).await;
        let stolen = svid(&ca, &["unix:uid:1"]).await;
        let other = svid(&ca, &["unix:uid:2"]).await;
        webpki(&ca, &stolen).unwrap();
        // As OpenSSL prints it, and as others do.
        let printed = format!("serial={}", serial(&stolen).to_uppercase());
        let row = ca
            .revoke_svid(&printed, Reason::KeyCompromise, "test")
            .await;
        assert_eq!(row.unwrap().serial, serial(&stolen).replace(':', ""));
        let refused = webpki(&ca, &stolen).unwrap_err();
        assert_eq!(
            refused,
            rustls::Error::InvalidCertificate(CertificateError::Revoked)
        );
        webpki(&ca, &other).unwrap();
        if let Some(said) = openssl(folder.path(), &ca, &stolen) {
            assert!(said.contains("certificate revoked"), "{said}");
        }
        if let Some(said) = openssl(folder.path(), &ca, &other) {
            assert!(said.contains("leaf.pem: OK"), "{said}");
        }
        // Whoever had it has another one.
        let next = svid(&ca, &["unix:uid:1"]).await;
        assert_ne!(serial(&next), serial(&stolen));
        webpki(&ca, &next).unwrap();
        assert!(Arc::ptr_eq(&svid(&ca, &["unix:uid:2"]).await, &other));
        let context = ca.x509_context(&caller(&["unix:uid:1"])).await.unwrap();
        assert_eq!(context.crls, ca.revocation_lists());
        let bundles = ca.bundles(&caller(&["unix:uid:1"])).await.unwrap();
        assert_eq!(bundles.crls, ca.revocation_lists());
        let events = events(&ca);
        assert_eq!(count(&events, "x509_revoked"), 1);
        assert_eq!(count(&events, "crl_issued"), 2);
    }
}

/// Number, time left, and entries of each list.
fn read(ca: &Ca) -> Vec<(u64, i64, usize)> {
    let now = crate::clock::unix_seconds(ca.clock().now());
    let lists = ca.revocation_lists().into_iter();
    let read = lists.map(|der| {
        let (rest, list) = CertificateRevocationList::from_der(&der).unwrap();
        assert!(rest.is_empty());
        let number = list.crl_number().unwrap().to_string().parse().unwrap();
        let left = list.next_update().unwrap().timestamp() - now;
        (number, left, list.iter_revoked_certificates().count())
    });
    read.collect()
}

#[tokio::test]
async fn lists_are_renewed_in_time_and_their_numbers_never_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(revoking(folder.path()), &clock).await;
    assert_eq!(read(&ca), [(1, 3600, 0)], "an empty one from the start");
    clock.advance(Duration::from_secs(1799));
    ca.tick().await.unwrap();
    assert_eq!(read(&ca), [(1, 1801, 0)]);
    clock.advance(Duration::from_secs(1));
    ca.tick().await.unwrap();
    assert_eq!(read(&ca), [(2, 3600, 0)], "half its time is over");
    let changed = ca.subscribe();
    ca.tick().await.unwrap();
    assert!(!changed.has_changed().unwrap(), "nobody is told of nothing");
    // A restart goes on where it was, one long after its end, too.
    drop(ca);
    let ca = open(revoking(folder.path()), &clock).await;
    assert_eq!(read(&ca), [(2, 3600, 0)]);
    drop(ca);
    clock.advance(Duration::from_secs(7200));
    let ca = open(revoking(folder.path()), &clock).await;
    assert_eq!(read(&ca), [(3, 3600, 0)]);
    clock.set_back(Duration::from_secs(600));
    ca.tick().await.unwrap();
    assert_eq!(read(&ca), [(4, 3600, 0)], "no list from the future");
}

#[tokio::test]
async fn an_authority_that_signs_no_more_still_tells_what_it_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(revoking(folder.path()), &clock).await;
    create(&ca, entry("/a", &["unix:uid:1"])).await;
    let old = svid(&ca, &["unix:uid:1"]).await;
    let next = ca.prepare(AuthorityKind::X509, "test").await.unwrap();
    assert_eq!(read(&ca).len(), 2, "before it signs, it has a list");
    ca.activate(AuthorityKind::X509, &next.row.id, "test")
        .await
        .unwrap();
    drop(ca);
    // Its key is read again for this.
    let ca = open(revoking(folder.path()), &clock).await;
    ca.revoke_svid(&serial(&old), Reason::Superseded, "test")
        .await
        .unwrap();
    assert!(webpki(&ca, &old).is_err());
    let set = ca.authorities();
    let first = set
        .newest(AuthorityKind::X509, AuthorityState::Old)
        .unwrap();
    assert!(!first.can_sign(clock.now()));
    ca.taint(AuthorityKind::X509, &first.row.id, false, "test")
        .await
        .unwrap();
    // The key is gone: its last list is good until nothing that it signed is.
    let last: Vec<_> = read(&ca).into_iter().filter(|(_, _, n)| *n == 1).collect();
    assert_eq!(last.len(), 1);
    assert!(last[0].1 > 23 * 3600, "{last:?}");
    assert!(webpki(&ca, &old).is_err());
    let fresh = svid(&ca, &["unix:uid:1"]).await;
    webpki(&ca, &fresh).unwrap();
    ca.revoke(AuthorityKind::X509, &first.row.id, "test")
        .await
        .unwrap();
    assert_eq!(read(&ca).len(), 1, "only of authorities that are published");
    // After its end nobody needs to know.
    assert_eq!(ca.revoked().len(), 1);
    clock.advance(Duration::from_secs(3 * 3600));
    ca.tick().await.unwrap();
    assert_eq!(ca.revoked().len(), 0);
}

#[tokio::test]
async fn what_cannot_be_revoked_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    create(&ca, entry("/a", &["unix:uid:1"])).await;
    let before = svid(&ca, &["unix:uid:1"]).await;
    assert!(ca.revocation_lists().is_empty());
    let off = ca
        .revoke_svid(&serial(&before), Reason::Unspecified, "test")
        .await;
    assert!(matches!(off, Err(RevocationError::Off)), "{off:?}");
    drop(ca);
    let ca = open(revoking(folder.path()), &clock).await;
    for text in ["", "0", "0x", "xyz", "-1", &"1".repeat(33), "1 2"] {
        let refused = ca.revoke_svid(text, Reason::Unspecified, "test").await;
        assert!(matches!(refused, Err(RevocationError::Serial(_))), "{text}");
    }
    let unknown = ca.revoke_svid("1234", Reason::Unspecified, "test").await;
    assert!(
        matches!(unknown, Err(RevocationError::Unknown(_))),
        "{unknown:?}"
    );
    // Issued while revocation was off: the journal knows it.
    let number = serial(&before);
    ca.revoke_svid(&number, Reason::Unspecified, "test")
        .await
        .unwrap();
    let again = ca.revoke_svid(&number, Reason::Unspecified, "test").await;
    assert!(
        matches!(again, Err(RevocationError::Already(_))),
        "{again:?}"
    );
    let later = svid(&ca, &["unix:uid:1"]).await;
    clock.advance(Duration::from_secs(2 * 3600));
    let expired = ca
        .revoke_svid(&serial(&later), Reason::Unspecified, "test")
        .await;
    assert!(
        matches!(expired, Err(RevocationError::Expired(_))),
        "{expired:?}"
    );
    let journal = events(&ca);
    assert_eq!(
        count(&journal, "x509_revoked"),
        1,
        "refusals change nothing"
    );
}
