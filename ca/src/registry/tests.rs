use std::collections::HashSet;
use std::time::Duration;

use super::*;
use crate::ca::tests::{TestClock, create, entry, open, options};

type Change = fn(&mut Entry);

#[tokio::test]
async fn an_entry_that_breaks_a_rule_is_refused_and_nothing_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(options(folder.path()), &TestClock::new()).await;
    let changes: [(&str, Change); 13] = [
        ("not in the trust domain", |e| {
            e.spiffe_id = "spiffe://other.org/x".parse().unwrap()
        }),
        ("has no path", |e| {
            e.spiffe_id = "spiffe://example.org".parse().unwrap()
        }),
        ("reserved", |e| {
            e.spiffe_id = "spiffe://example.org/spire/server".parse().unwrap()
        }),
        ("reserved", |e| {
            e.spiffe_id = "spiffe://example.org/spire/agent/x".parse().unwrap()
        }),
        ("parent ID", |e| {
            e.parent_id = "spiffe://other.org/x".parse().unwrap()
        }),
        ("own parent", |e| e.parent_id = e.spiffe_id.clone()),
        ("no selector", |e| e.selectors.clear()),
        ("no DNS name", |e| e.dns_names = vec!["a..b".to_owned()]),
        ("there twice", |e| {
            e.dns_names = vec!["a.b".to_owned(), "A.b".to_owned()]
        }),
        ("own trust domain", |e| {
            e.federates_with = vec!["example.org".parse().unwrap()]
        }),
        ("1025 bytes", |e| e.hint = "x".repeat(1025)),
        ("identifier", |e| e.id = "a/b".to_owned()),
        ("at most 256", |e| {
            e.dns_names = (0..257).map(|n| format!("n{n}.org")).collect()
        }),
    ];
    for (told, change) in changes {
        let mut bad = entry("/x", &["unix:uid:1"]);
        change(&mut bad);
        let results = ca.registry().create(vec![bad], "test").await.unwrap();
        let error = results[0].as_ref().unwrap_err().to_string();
        assert!(error.contains(told), "{told}: {error}");
    }
    assert!(ca.registry().index().is_empty());
    assert_eq!(ca.registry().index().revision(), 0);
}

#[tokio::test]
async fn a_bad_entry_of_a_batch_does_not_take_the_others_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    let mut bad = entry("/bad", &["unix:uid:1"]);
    bad.dns_names = vec!["-".to_owned()];
    let same = entry("/a", &["unix:uid:1", "unix:gid:1"]);
    let batch = vec![same.clone(), bad, same, entry("/b", &["unix:uid:1"])];
    let results = ca.registry().create(batch, "test").await.unwrap();
    let fine: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [true, false, false, true]);
    assert!(
        matches!(results[2], Err(RegistryError::Similar(_))),
        "the same one in the same batch"
    );
    // A restart finds what was acknowledged.
    let ids: HashSet<String> = results
        .into_iter()
        .flatten()
        .map(|entry| entry.id.clone())
        .collect();
    drop(ca);
    let ca = open(options(folder.path()), &clock).await;
    let found: HashSet<String> = ca
        .registry()
        .index()
        .after("")
        .map(|entry| entry.id.clone())
        .collect();
    assert_eq!(found, ids);
}

#[tokio::test]
async fn hints_are_unique_among_the_same_callers() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(options(folder.path()), &TestClock::new()).await;
    let hinted = |path: &str, selector: &str| {
        let mut entry = entry(path, &[selector]);
        entry.hint = "internal".to_owned();
        entry
    };
    let first = create(&ca, hinted("/a", "unix:uid:1")).await;
    let results = ca
        .registry()
        .create(vec![hinted("/b", "unix:uid:1")], "test")
        .await
        .unwrap();
    let error = results[0].as_ref().unwrap_err().to_string();
    assert!(
        error.contains(&first.id) && error.contains("§5.2.1"),
        "{error}"
    );
    create(&ca, hinted("/b", "unix:uid:2")).await;
}

#[tokio::test]
async fn an_update_counts_and_a_conflicting_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(options(folder.path()), &TestClock::new()).await;
    let one = create(&ca, entry("/one", &["unix:uid:1"])).await;
    let two = create(&ca, entry("/two", &["unix:uid:2"])).await;
    let to_uid_2 = |entry: &mut Entry| {
        entry.spiffe_id = "spiffe://example.org/two".parse().unwrap();
        entry.selectors = vec!["unix:uid:2".parse().unwrap()];
        Ok(())
    };
    let results = ca
        .registry()
        .update(vec![(one.id.clone(), to_uid_2)], "test")
        .await
        .unwrap();
    assert!(matches!(&results[0], Err(RegistryError::Similar(other)) if other.id == two.id));
    let longer = |entry: &mut Entry| {
        entry.x509_ttl = Some(Duration::from_secs(5));
        Ok(())
    };
    let updates = vec![(one.id.clone(), longer), ("missing".to_owned(), longer)];
    let results = ca.registry().update(updates, "test").await.unwrap();
    let updated = results[0].as_ref().unwrap();
    assert_eq!(
        (updated.revision_number, updated.x509_ttl),
        (1, Some(Duration::from_secs(5)))
    );
    assert!(matches!(results[1], Err(RegistryError::NotFound(_))));
    let revision = ca.registry().index().revision();
    let gone = ca
        .registry()
        .delete(vec![one.id.clone(), one.id.clone()], "test")
        .await
        .unwrap();
    assert!(gone[0].is_ok() && gone[1].is_err(), "gone once");
    assert!(ca.registry().index().revision() > revision);
}

#[tokio::test]
async fn bundles_of_others_are_set_restricted_and_dissociated() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    let other: TrustDomain = "other.org".parse().unwrap();
    let bundle = Bundle::empty(other.clone());
    let own = Bundle::empty(ca.trust_domain().clone());
    let set = ca
        .registry()
        .set_bundles(vec![bundle.clone(), own], bundles::SetMode::Set, "test")
        .await
        .unwrap();
    assert!(set[0].is_ok());
    assert!(matches!(set[1], Err(RegistryError::OwnBundle(_))));
    let again = ca
        .registry()
        .set_bundles(vec![bundle], bundles::SetMode::Create, "test")
        .await
        .unwrap();
    assert!(matches!(again[0], Err(RegistryError::BundleExists(_))));
    let mut federated = entry("/x", &["unix:uid:1"]);
    federated.federates_with = vec![other.clone()];
    let federated = create(&ca, federated).await;
    let delete = |mode| {
        ca.registry()
            .delete_bundles(vec![other.clone()], mode, "test")
    };
    let restricted = delete(bundles::DeleteMode::Restrict).await.unwrap();
    assert!(matches!(
        restricted[0],
        Err(RegistryError::BundleInUse { count: 1, .. })
    ));
    delete(bundles::DeleteMode::Dissociate).await.unwrap()[0]
        .as_ref()
        .unwrap();
    let left = ca.registry().index().entry(&federated.id).cloned().unwrap();
    assert!(left.federates_with.is_empty());
    drop(ca);
    assert!(
        open(options(folder.path()), &clock)
            .await
            .registry()
            .bundles()
            .is_empty()
    );
}

#[tokio::test]
async fn many_entries_are_reconciled_in_one_commit_and_each_stands_or_falls_alone() {
    use super::reconcile::Reconciled;
    let folder = tempfile::tempdir().unwrap();
    let ca = open(options(folder.path()), &TestClock::new()).await;
    let registry = ca.registry();
    let own = |number: usize, path: &str| Entry {
        id: format!("clusterspiffeid.{number}"),
        ..entry(path, &[&format!("k8s:pod-uid:{number}")])
    };
    let all: Vec<Entry> = (0..5000).map(|number| own(number, "/web")).collect();
    let results = registry.reconcile(Vec::new(), all, "test").await.unwrap();
    assert!(
        results
            .iter()
            .all(|one| matches!(one, Ok(Reconciled::Created)))
    );
    assert_eq!(registry.index().revision(), 1);
    // One somebody made by hand, which grants what ours would.
    let by_hand = entry("/by-hand", &["k8s:pod-uid:7777"]);
    registry.create(vec![by_hand], "person").await.unwrap();
    let moved = Entry {
        hint: "moved".to_owned(),
        ..own(1, "/web")
    };
    let put = vec![moved, own(7777, "/by-hand"), own(6000, "/new")];
    let gone = vec![
        "clusterspiffeid.0".to_owned(),
        "clusterspiffeid.none".to_owned(),
    ];
    let results = registry.reconcile(gone, put, "test").await.unwrap();
    assert!(matches!(results[0], Ok(Reconciled::Updated)));
    assert!(matches!(results[1], Err(RegistryError::Similar(_))));
    assert!(matches!(results[2], Ok(Reconciled::Created)));
    let index = registry.index();
    assert_eq!((index.revision(), index.len()), (3, 5001));
    assert!(index.entry("clusterspiffeid.0").is_none());
    let moved = index.entry("clusterspiffeid.1").unwrap();
    assert_eq!((moved.hint.as_str(), moved.revision_number), ("moved", 1));
}
