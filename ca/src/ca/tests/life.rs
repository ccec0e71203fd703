//! Entries that come and go, authorities that rotate, processes that end.

use super::*;

const UID: &[&str] = &["unix:uid:1"];

#[tokio::test]
async fn the_first_authorities_are_active_at_once_and_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    let bundle = ca.bundle();
    assert_eq!(
        (bundle.x509_authorities.len(), bundle.jwt_authorities.len()),
        (1, 1)
    );
    create(&ca, entry("/web", UID)).await;
    let before = svid(&ca, UID).await;
    let busy = Ca::open(options(folder.path()), clock.clone())
        .await
        .err()
        .unwrap();
    assert!(matches!(busy, OpenError::Locked(_)), "{busy}");
    drop(ca);
    let ca = open(options(folder.path()), &clock).await;
    assert_eq!(*ca.bundle(), *bundle);
    let after = svid(&ca, UID).await;
    assert_eq!(before.spiffe_id, after.spiffe_id);
    drop(ca);
    let mut other = options(folder.path());
    other.trust_domain = TrustDomain::new("other.org").unwrap();
    let error = Ca::open(other, clock).await.err().unwrap();
    assert!(
        matches!(error, OpenError::OtherTrustDomain { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn keys_in_memory_end_with_the_process_and_their_bundle_entries_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let mut options = options(folder.path());
    options.keys = KeyStorage::Memory;
    let ca = open(options.clone(), &clock).await;
    let first = ca.bundle();
    drop(ca);
    let ca = open(options, &clock).await;
    let second = ca.bundle();
    assert_eq!(
        second.x509_authorities[0], first.x509_authorities[0],
        "what it signed is still valid"
    );
    assert_eq!(
        (second.x509_authorities.len(), second.jwt_authorities.len()),
        (2, 2)
    );
    assert!(second.sequence > first.sequence);
    create(&ca, entry("/web", UID)).await;
    svid(&ca, UID).await;
}

#[tokio::test]
async fn an_entry_reaches_a_waiting_caller_by_push() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Arc::new(open(options(folder.path()), &TestClock::new()).await);
    let mut changes = ca.subscribe();
    changes.borrow_and_update();
    assert_eq!(
        ca.x509_context(&caller(UID)).await.unwrap_err(),
        IssueError::NoIdentity
    );
    let web = create(&ca, entry("/web", UID)).await;
    assert!(changes.has_changed().unwrap());
    changes.borrow_and_update();
    let context = ca
        .x509_context(&caller(&["unix:uid:1", "unix:gid:1"]))
        .await
        .unwrap();
    assert_eq!(context.svids[0].spiffe_id, web.spiffe_id);
    let again = ca.x509_context(&caller(UID)).await.unwrap();
    assert!(
        context.is_same(&again),
        "callers of an entry share its SVID"
    );
    let both = create(&ca, entry("/both", &["unix:uid:1", "unix:gid:7"])).await;
    assert_eq!(
        ca.x509_context(&caller(UID)).await.unwrap().svids.len(),
        1,
        "all selectors or nothing"
    );
    let ids = vec![web.id.clone(), both.id.clone()];
    ca.registry().delete(ids, "test").await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(
        ca.x509_context(&caller(UID)).await.unwrap_err(),
        IssueError::NoIdentity
    );
}

#[tokio::test]
async fn the_oldest_entry_keeps_a_hint_and_the_others_keep_their_identity() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    for (path, selector) in [("/one", "unix:uid:1"), ("/two", "unix:gid:1")] {
        let mut hinted = entry(path, &[selector]);
        hinted.hint = "internal".to_owned();
        create(&ca, hinted).await;
        clock.advance(Duration::from_secs(1));
    }
    let caller = caller(&["unix:uid:1", "unix:gid:1"]);
    let context = ca.x509_context(&caller).await.unwrap();
    let hints: Vec<(&str, &str)> = context
        .svids
        .iter()
        .map(|svid| (svid.spiffe_id.path(), svid.hint.as_str()))
        .collect();
    assert_eq!(hints, [("/one", "internal"), ("/two", "")]);
    assert!(context.is_same(&ca.x509_context(&caller).await.unwrap()));
    let alone = svid(&ca, &["unix:gid:1"]).await;
    assert_eq!(alone.hint, "internal");
}

#[tokio::test]
async fn an_svid_is_renewed_at_half_its_life_and_when_its_entry_changes() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    let mut short = entry("/web", UID);
    short.x509_ttl = Some(Duration::from_secs(100));
    let web = create(&ca, short).await;
    let first = svid(&ca, UID).await;
    clock.advance(Duration::from_secs(49));
    assert!(Arc::ptr_eq(&first, &svid(&ca, UID).await));
    clock.advance(Duration::from_secs(1));
    let second = svid(&ca, UID).await;
    assert!(second.not_after > first.not_after);
    let update = (web.id.clone(), |entry: &mut Entry| {
        entry.dns_names = vec!["web.example.org".to_owned()];
        Ok(())
    });
    ca.registry().update(vec![update], "test").await.unwrap();
    assert!(!Arc::ptr_eq(&second, &svid(&ca, UID).await));
}

#[tokio::test]
async fn an_expired_entry_is_served_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    let mut passing = entry("/web", UID);
    passing.expires_at = Some(clock.now() + Duration::from_secs(10));
    create(&ca, passing).await;
    let context = ca.x509_context(&caller(UID)).await.unwrap();
    assert_eq!(
        context.renew_at,
        clock.now() + Duration::from_secs(10),
        "ask again then"
    );
    clock.advance(Duration::from_secs(10));
    assert_eq!(
        ca.x509_context(&caller(UID)).await.unwrap_err(),
        IssueError::NoIdentity
    );
    ca.tick().await.unwrap();
    assert!(ca.registry().index().is_empty());
}

#[tokio::test]
async fn by_hand_an_authority_goes_from_prepared_to_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(options(folder.path()), &TestClock::new()).await;
    create(&ca, entry("/web", UID)).await;
    let kind = AuthorityKind::X509;
    let old = ca.authorities().active(kind).unwrap().row.id.clone();
    let first = svid(&ca, UID).await;
    let sequence = ca.bundle().sequence;
    let next = ca.prepare(kind, "test").await.unwrap().row.id.clone();
    assert_eq!(
        ca.bundle().x509_authorities.len(),
        2,
        "published before used"
    );
    assert_eq!(ca.bundle().sequence, sequence + 1);
    assert!(ca.prepare(kind, "test").await.is_err(), "one at a time");
    assert!(matches!(
        ca.taint(kind, &old, false, "test").await,
        Err(AuthorityError::TaintActive(_))
    ));
    assert!(ca.revoke(kind, &old, "test").await.is_err());
    assert!(
        ca.activate(kind, &old, "test").await.is_err(),
        "active already"
    );
    assert!(ca.activate(kind, "nonsense", "test").await.is_err());
    ca.activate(kind, &next, "test").await.unwrap();
    assert!(
        Arc::ptr_eq(&first, &svid(&ca, UID).await),
        "what an old authority signed stays"
    );
    assert!(ca.revoke(kind, &old, "test").await.is_err(), "taint first");
    ca.taint(kind, &old, false, "test").await.unwrap();
    let second = svid(&ca, UID).await;
    assert!(!Arc::ptr_eq(&first, &second), "tainting replaces at once");
    let tainted: Vec<bool> = ca
        .bundle()
        .x509_authorities
        .iter()
        .map(|a| a.tainted)
        .collect();
    assert_eq!(tainted, [true, false]);
    ca.revoke(kind, &old, "test").await.unwrap();
    assert_eq!(ca.bundle().x509_authorities.len(), 1);
    assert!(Arc::ptr_eq(&second, &svid(&ca, UID).await));
    let events = events(&ca);
    for event in [
        "authority_prepared",
        "authority_tainted",
        "authority_revoked",
    ] {
        assert_eq!(count(&events, event), 1, "{event}");
    }
}

#[tokio::test]
async fn an_authority_waits_for_every_live_stream() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Arc::new(open(options(folder.path()), &TestClock::new()).await);
    let stream = ca.deliveries().open();
    stream.delivered(ca.bundle().sequence);
    let next = ca
        .prepare(AuthorityKind::Jwt, "test")
        .await
        .unwrap()
        .row
        .clone();
    let activating = tokio::spawn({
        let (ca, id) = (Arc::clone(&ca), next.id.clone());
        async move { ca.activate(AuthorityKind::Jwt, &id, "test").await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!activating.is_finished());
    assert_ne!(
        ca.authorities().active(AuthorityKind::Jwt).unwrap().row.id,
        next.id
    );
    stream.delivered(next.published);
    activating.await.unwrap().unwrap();
    assert_eq!(
        ca.authorities().active(AuthorityKind::Jwt).unwrap().row.id,
        next.id
    );
}

#[tokio::test]
async fn an_emergency_replaces_the_active_authority_and_says_that_nobody_was_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(options(folder.path()), &TestClock::new()).await;
    create(&ca, entry("/web", UID)).await;
    let first = svid(&ca, UID).await;
    let old = ca
        .authorities()
        .active(AuthorityKind::X509)
        .unwrap()
        .row
        .id
        .clone();
    ca.taint(AuthorityKind::X509, &old, true, "test")
        .await
        .unwrap();
    let active = ca
        .authorities()
        .active(AuthorityKind::X509)
        .unwrap()
        .row
        .clone();
    assert_ne!(active.id, old);
    assert!(!Arc::ptr_eq(&first, &svid(&ca, UID).await));
    let events = events(&ca);
    let activated = events
        .iter()
        .rfind(|record| record["event"] == "authority_activated")
        .unwrap();
    assert_eq!(
        (activated["authority"].as_str(), &activated["waited"]),
        (Some(&*active.id), &false.into())
    );
}

#[tokio::test]
async fn time_alone_rotates_authorities_and_sequence_only_grows() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let mut options = options(folder.path());
    options.authority_ttl = Duration::from_secs(60);
    let ca = open(options, &clock).await;
    let mut short = entry("/web", UID);
    short.x509_ttl = Some(Duration::from_secs(10));
    create(&ca, short).await;
    let (mut sequence, mut signers) = (0, std::collections::BTreeSet::new());
    for _ in 0..240 {
        clock.advance(Duration::from_secs(1));
        ca.tick().await.unwrap();
        let bundle = ca.bundle();
        assert!(bundle.sequence >= sequence, "the sequence never goes back");
        sequence = bundle.sequence;
        let svid = svid(&ca, UID).await;
        assert!(svid.not_after > clock.now());
        let set = ca.authorities();
        let active = set.active(AuthorityKind::X509).unwrap();
        assert!(svid.not_after <= active.row.not_after || signers.contains(&active.row.id));
        signers.insert(active.row.id.clone());
        // Who has this bundle can verify this SVID.
        use x509_parser::prelude::FromDer as _;
        let (_, leaf) =
            x509_parser::certificate::X509Certificate::from_der(&svid.chain[0]).unwrap();
        let is_rooted = bundle.x509_authorities.iter().any(|root| {
            let (_, root) = x509_parser::certificate::X509Certificate::from_der(&root.der).unwrap();
            root.subject().as_raw() == leaf.issuer().as_raw()
        });
        assert!(is_rooted);
        assert!(bundle.x509_authorities.len() <= 3, "old ones leave");
    }
    assert!(signers.len() >= 4, "{}", signers.len());
    assert!(count(&events(&ca), "authority_pruned") >= 4);
}

#[tokio::test]
async fn after_two_days_of_sleep_it_signs_again() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    create(&ca, entry("/web", UID)).await;
    clock.advance(Duration::from_secs(48 * 3600));
    let error = ca.x509_context(&caller(UID)).await.unwrap_err();
    assert!(
        matches!(error, IssueError::Unavailable(_)),
        "never past its own end: {error}"
    );
    ca.tick().await.unwrap();
    let svid = svid(&ca, UID).await;
    assert!(svid.not_after > clock.now());
}

#[tokio::test]
async fn every_issuance_and_denial_has_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(options(folder.path()), &TestClock::new()).await;
    let web = create(&ca, entry("/web", UID)).await;
    let mut who = caller(UID);
    (who.pid, who.uid) = (Some(42), Some(1));
    let context = ca.x509_context(&who).await.unwrap();
    ca.x509_context(&who).await.unwrap();
    ca.jwt_svids(&who, &["a".to_owned()], None).await.unwrap();
    let _ = ca.x509_context(&caller(&["unix:uid:2"])).await;
    let events = events(&ca);
    for (event, expected) in [
        ("x509_prepared", 1),
        ("x509_issued", 1),
        ("jwt_issued", 1),
        ("denied", 1),
        ("entry_created", 1),
    ] {
        assert_eq!(count(&events, event), expected, "{event}");
    }
    let issued = events
        .iter()
        .find(|record| record["event"] == "x509_issued")
        .unwrap();
    use x509_parser::prelude::FromDer as _;
    let chain = &context.svids[0].chain;
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&chain[0]).unwrap();
    assert_eq!(
        issued["serial"],
        crate::x509::certificate::hex(leaf.raw_serial())
    );
    assert_eq!(issued["entry"], web.id);
    assert_eq!(issued["caller"]["pid"], 42);
    assert_eq!(issued["caller"]["selectors"], serde_json::json!(UID));
    assert_eq!(issued["spki_sha256"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn a_damaged_store_or_key_refuses_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    drop(open(options(folder.path()), &clock).await);
    let refused = |what: &'static str| {
        let (options, clock) = (options(folder.path()), clock.clone());
        async move {
            let error = Ca::open(options, clock).await.err();
            error
                .unwrap_or_else(|| panic!("{what} must refuse"))
                .to_string()
        }
    };
    let secret = folder.path().join("keys/secret");
    let good = fs::read(&secret).unwrap();
    fs::write(&secret, "{}").unwrap();
    assert!(refused("a damaged secret").await.contains("secret"));
    fs::write(&secret, good).unwrap();
    let database = folder.path().join(store::FILE_NAME);
    fs::write(&database, vec![0x41; 8192]).unwrap();
    for log in ["ca.sqlite-wal", "ca.sqlite-shm"] {
        let _ = fs::remove_file(folder.path().join(log));
    }
    let error = refused("a damaged database").await;
    assert!(error.contains("ca.sqlite"), "{error}");
}
