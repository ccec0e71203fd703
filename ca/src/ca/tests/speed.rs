//! Bounds that an optimised build beats by far: they catch what grows with the table.

use std::time::Instant;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_entries_are_created_and_found_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(options(folder.path()), &TestClock::new()).await;
    let entries: Vec<Entry> = (0..10_000)
        .map(|number| {
            entry(
                &format!("/w/{number}"),
                &["k8s:ns:default", &format!("k8s:pod:{number}")],
            )
        })
        .collect();
    let start = Instant::now();
    let results = ca.registry().create(entries, "test").await.unwrap();
    let took = start.elapsed();
    assert!(results.iter().all(Result::is_ok));
    eprintln!("10,000 entries created in {took:?}");
    // Two seconds are the promise for an optimised build on an idle machine.
    assert!(took < Duration::from_secs(15), "{took:?}");
    let caller = caller(&["k8s:ns:default", "k8s:pod:7777", "unix:uid:0"]);
    let agent = ca.registry().local_agent();
    let start = Instant::now();
    for _ in 0..100 {
        let found = ca
            .registry()
            .index()
            .matching(&caller.selectors, &agent, SystemTime::now());
        assert_eq!(found.len(), 1);
    }
    let took = start.elapsed() / 100;
    eprintln!("a look-up takes {took:?}");
    assert!(took < Duration::from_millis(5), "{took:?}");
}
