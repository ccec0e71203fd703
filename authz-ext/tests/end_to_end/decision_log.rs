//! The decision log of a running server.

use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_authz::observe::fields::{Names, Query};
use portcullis_authz::observe::log::{Options, Output, Rotation};
use portcullis_authz::observe::sample::Share;
use portcullis_authz::server::{ServeError, ServeOptions, Server};
use serde_json::Value;

use super::management::{Answer, managed};
use super::support::*;
use super::tokens::request;

fn logged(folder: &Path, file: &Path, allows: Share) -> ServeOptions {
    let mut options = managed(options(folder, vec![tcp()]));
    let output = Output::File(file.to_owned(), Rotation::default());
    options.observe.log = Some(Options {
        allows,
        queue: 16,
        ..Options::new(output)
    });
    options
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn denials_are_logged_and_allows_by_their_share() {
    let folder = folder(&[("inventory.yaml", INVENTORY), ("p.yaml", &allow("/ok"))]);
    let logs = tempfile::tempdir().unwrap();
    let file = logs.path().join("decisions.jsonl");
    let mut options = logged(folder.path(), &file, Share::NONE);
    options.observe.fields.query = Query::Names;
    options.observe.fields.headers = Names {
        all: true,
        names: Vec::new(),
    };
    let running = Running::start(options).await;
    let mut client = running.client().await;
    assert_eq!(ask(&mut client, "/ok").await, "allowed_by");
    let headers = [
        ("authorization", "Basic aHVzaA=="),
        ("cookie", "session=hush"),
        ("user-agent", "a\"b"),
        ("x-request-id", "r-1"),
    ];
    let denied = request("/no?password=hush", &headers, None);
    let answer = client.check(tonic::Request::new(denied)).await.unwrap();
    assert_eq!(reason(&answer), "no_allow_matched");
    running.stop().await;

    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("hush") && !text.contains("aHVzaA"), "{text}");
    let lines = lines(&text);
    assert_eq!(lines.len(), 1, "{text}");
    assert_eq!(lines[0]["decision"], "deny");
    assert_eq!(lines[0]["path"], "/no?password=***");
    assert_eq!(lines[0]["request_id"], "r-1");
    assert_eq!(lines[0]["headers"]["authorization"], "***");
    assert_eq!(lines[0]["headers"]["user-agent"], "a\"b");
}

#[tokio::test]
async fn a_log_that_takes_nothing_delays_no_verdict_and_its_losses_are_counted() {
    let folder = folder(&[("inventory.yaml", INVENTORY), ("p.yaml", &allow("/ok"))]);
    let logs = tempfile::tempdir().unwrap();
    let pipe = logs.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for (file, cause) in [
        (pipe.as_path(), "queue"),
        (Path::new("/dev/full"), "output"),
    ] {
        let options = logged(folder.path(), file, Share::ALL);
        let running = Running::start(options).await;
        let mut client = running.client().await;
        let started = Instant::now();
        for _ in 0..100 {
            assert_eq!(ask(&mut client, "/ok").await, "allowed_by");
            assert_eq!(ask(&mut client, "/no").await, "no_allow_matched");
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{cause}");
        let lost = within("losses", async {
            let name = format!(r#"portcullis_authz_decision_log_lost_total{{cause="{cause}"}} "#);
            loop {
                let text = Answer::to(&running, "/metrics").await.rest().await;
                let value = text.lines().find_map(|line| line.strip_prefix(&name));
                let lost: u64 = value
                    .unwrap_or_else(|| panic!("{name}{text}"))
                    .parse()
                    .unwrap();
                if lost >= 100 {
                    break lost;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert!(lost <= 200, "{lost}");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_is_refused_at_start() {
    let folder = folder(&[("inventory.yaml", INVENTORY)]);
    let file = folder.path().join("no/such/folder");
    let started = Server::start(logged(folder.path(), &file, Share::ALL)).await;
    assert!(matches!(started, Err(ServeError::Observe(_))));
}
