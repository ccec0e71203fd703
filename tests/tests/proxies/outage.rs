//! Portcullis stopped, started again, and fed with new policies while requests run: closed, and never wrong.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::process::poll;

use crate::stage::{PORTCULLIS, Stage};

const PATIENCE: Duration = Duration::from_secs(30);

/// `/ready` and `/always` are allowed, `/never` is not, `/PAGE` is.
fn policy(page: &str) -> String {
    format!(
        "{{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{ name: web, namespace: shop }}, \
         spec: {{ rules: [ {{ to: [ {{ operation: {{ paths: [ /ready, /always, /{page} ] }} }} ] }} ] }} }}"
    )
}

fn status(client: &Client, path: &str) -> Option<u16> {
    client
        .send(&Exchange::get(path))
        .ok()
        .map(|answer| answer.status)
}

#[test]
fn a_service_that_is_gone_denies_and_one_that_is_back_decides() {
    let mut stage = Stage::start("proxies-outage", "BASE", &policy("one"));
    stage.server.kill();
    for proxy in &stage.proxies {
        let client = Client::plain(proxy.plain);
        for path in ["/always", "/never"] {
            let status = status(&client, path);
            assert!(
                matches!(status, Some(403 | 500..=504)),
                "{}: {path}: {status:?}",
                proxy.kind.name()
            );
        }
    }
    stage.server.restart(PORTCULLIS.as_ref()).unwrap();
    for proxy in &stage.proxies {
        let client = Client::plain(proxy.plain);
        // A proxy may take a moment to try again.
        let back = poll(PATIENCE, || {
            (status(&client, "/always") == Some(200)).then_some(())
        });
        assert!(back.is_some(), "{}", proxy.kind.name());
        assert_eq!(
            status(&client, "/never"),
            Some(403),
            "{}",
            proxy.kind.name()
        );
    }
}

#[test]
fn policies_change_under_load_without_a_wrong_answer_or_a_lost_one() {
    let stage = Stage::start("proxies-reload", "BASE", &policy("one"));
    let stop = AtomicBool::new(false);
    let answers = AtomicUsize::new(0);
    thread::scope(|scope| {
        let load: Vec<_> = stage
            .proxies
            .iter()
            .map(|proxy| {
                let (stop, answers) = (&stop, &answers);
                scope.spawn(move || {
                    let client = Client::plain(proxy.plain);
                    let mut wrong = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        for (path, expected) in [("/always", 200), ("/never", 403)] {
                            let status = client.send(&Exchange::get(path)).map(|a| a.status);
                            answers.fetch_add(1, Ordering::Relaxed);
                            if !matches!(status, Ok(found) if found == expected) {
                                wrong.push(format!("{} {path}: {status:?}", proxy.kind.name()));
                            }
                        }
                        thread::sleep(Duration::from_millis(2));
                    }
                    wrong
                })
            })
            .collect();
        for round in 0..4 {
            let page = if round % 2 == 0 { "two" } else { "one" };
            // Every other time a broken document comes between: the last good set stays.
            if round % 2 == 1 {
                stage.server.replace("policies.yaml", "spec: [").unwrap();
                thread::sleep(Duration::from_millis(400));
            }
            stage
                .server
                .replace("policies.yaml", &policy(page))
                .unwrap();
            let start = Instant::now();
            for proxy in &stage.proxies {
                let client = Client::plain(proxy.plain);
                let path = format!("/{page}");
                let changed = poll(PATIENCE, || {
                    (status(&client, &path) == Some(200)).then_some(())
                });
                assert!(
                    changed.is_some(),
                    "{} {path} after {:?}",
                    proxy.kind.name(),
                    start.elapsed()
                );
            }
        }
        stop.store(true, Ordering::Relaxed);
        let wrong: Vec<String> = load
            .into_iter()
            .flat_map(|one| one.join().unwrap())
            .collect();
        assert!(
            wrong.is_empty(),
            "{} of {}: {wrong:#?}",
            wrong.len(),
            answers.load(Ordering::Relaxed)
        );
    });
    let expected = stage.proxies.len() * 20;
    assert!(answers.load(Ordering::Relaxed) >= expected, "{answers:?}");
}
