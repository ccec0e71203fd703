use std::time::Duration;

use super::*;
use crate::ca::tests::entry;

fn index(entries: Vec<Entry>) -> Index {
    let mut index = Index::default();
    let changes = entries.into_iter().enumerate().map(|(place, mut entry)| {
        entry.id = format!("id-{place}");
        entry.created_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - place as u64);
        Change::Put(Arc::new(entry))
    });
    index.apply(changes.collect(), 1).unwrap();
    index
}

fn found(index: &Index, selectors: &[&str]) -> Vec<String> {
    let mut selectors: Vec<Selector> = selectors.iter().map(|text| text.parse().unwrap()).collect();
    selectors.sort_unstable();
    let agent = "spiffe://example.org/spire/agent/local".parse().unwrap();
    let matching = index.matching(&selectors, &agent, SystemTime::UNIX_EPOCH);
    matching
        .iter()
        .map(|entry| entry.spiffe_id.path().to_owned())
        .collect()
}

#[test]
fn an_entry_matches_who_has_all_its_selectors() {
    let index = index(vec![
        entry("/a", &["t:1"]),
        entry("/ab", &["t:1", "t:2"]),
        entry("/abc", &["t:1", "t:2", "t:3"]),
    ]);
    assert_eq!(found(&index, &[]), [""; 0]);
    assert_eq!(found(&index, &["t:2", "t:3"]), [""; 0]);
    assert_eq!(found(&index, &["t:1"]), ["/a"]);
    // The oldest first, whatever the order of insertion.
    assert_eq!(
        found(&index, &["t:3", "t:2", "t:1", "t:9"]),
        ["/abc", "/ab", "/a"]
    );
}

#[test]
fn only_what_descends_from_the_agent_is_handed_out() {
    let under = |path: &str, parent: &str| {
        let mut entry = entry(path, &["t:1"]);
        entry.parent_id = parent.parse().unwrap();
        entry
    };
    let index = index(vec![
        under("/other-agent", "spiffe://example.org/spire/agent/other"),
        under("/child", "spiffe://example.org/node"),
        under("/node", "spiffe://example.org/spire/agent/local"),
        under("/circle", "spiffe://example.org/elcric"),
        under("/elcric", "spiffe://example.org/circle"),
    ]);
    assert_eq!(found(&index, &["t:1"]), ["/node", "/child"]);
}

#[test]
fn an_index_does_not_go_back() {
    let mut index = index(vec![entry("/a", &["t:1"])]);
    assert!(
        index
            .apply(vec![Change::Remove("id-0".to_owned())], 1)
            .is_err()
    );
    assert_eq!((index.len(), index.revision()), (1, 1));
    index
        .apply(vec![Change::Remove("id-0".to_owned())], 5)
        .unwrap();
    assert!(index.is_empty());
    assert!(index.by_selector.is_empty() && index.uses.is_empty() && index.by_spiffe_id.is_empty());
}

#[test]
fn the_index_agrees_with_a_look_at_every_entry() {
    // Every subset of six selectors, as entry and as caller.
    let subset = |bits: u32| -> Vec<String> {
        (0..6)
            .filter(|bit| bits & (1 << bit) != 0)
            .map(|bit| format!("t:{bit}"))
            .collect()
    };
    let entries = (1..64).map(|bits| {
        let selectors = subset(bits);
        let texts: Vec<&str> = selectors.iter().map(String::as_str).collect();
        entry(&format!("/{bits}"), &texts)
    });
    let index = index(entries.collect());
    for caller in 0..64u32 {
        let selectors = subset(caller);
        let texts: Vec<&str> = selectors.iter().map(String::as_str).collect();
        let mut expected: Vec<String> = (1..64u32)
            .filter(|bits| bits & !caller == 0)
            .map(|bits| format!("/{bits}"))
            .collect();
        let mut found = found(&index, &texts);
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{selectors:?}");
    }
}
