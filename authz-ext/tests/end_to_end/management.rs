//! What operators are shown, over HTTP.

use std::time::Duration;

use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::server::ServeOptions;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::support::*;

/// With a management listener.
pub fn managed(mut options: ServeOptions) -> ServeOptions {
    options.observe.management = Some("127.0.0.1:0".parse().unwrap());
    options
}

/// The lines of an answer, one after the other; chunk sizes are left out.
pub struct Answer {
    pub status: String,
    lines: Lines<BufReader<OwnedReadHalf>>,
    _write: tokio::net::tcp::OwnedWriteHalf,
}

impl Answer {
    pub async fn to(server: &Running, path: &str) -> Self {
        let Some(Endpoint::Tcp(address)) = server.management else {
            panic!("no management listener");
        };
        let stream = TcpStream::connect(address).await.unwrap();
        let (read, mut write) = stream.into_split();
        let request = format!("GET {path} HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n");
        write.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(read).lines();
        let status = within("a status", lines.next_line()).await.unwrap();
        let status = status.unwrap().split(' ').nth(1).unwrap().to_owned();
        while let Some(header) = within("a header", lines.next_line()).await.unwrap() {
            if header.is_empty() {
                break;
            }
        }
        Self {
            status,
            lines,
            _write: write,
        }
    }

    /// The next line that is JSON.
    pub async fn json(&mut self) -> Option<Value> {
        loop {
            let line = within("a line", self.lines.next_line()).await.unwrap()?;
            if let Ok(value @ Value::Object(_)) = serde_json::from_str(&line) {
                return Some(value);
            }
        }
    }

    /// The rest, as it comes.
    pub async fn rest(mut self) -> String {
        let mut rest = String::new();
        while let Some(line) = within("a line", self.lines.next_line()).await.unwrap() {
            rest.push_str(&line);
            rest.push('\n');
        }
        rest
    }
}

async fn server() -> (tempfile::TempDir, Running) {
    let folder = folder(&[("inventory.yaml", INVENTORY), ("p.yaml", &allow("/ok"))]);
    let running = Running::start(managed(options(folder.path(), vec![tcp()]))).await;
    (folder, running)
}

#[tokio::test]
async fn decisions_are_followed_as_they_happen() {
    let (_folder, running) = server().await;
    let mut all = Answer::to(&running, "/decisions").await;
    let mut denied = Answer::to(&running, "/decisions?denied=true&explain=true").await;
    assert_eq!((&*all.status, &*denied.status), ("200", "200"));
    let mut client = running.client().await;
    assert_eq!(ask(&mut client, "/ok?token=hush").await, "allowed_by");
    assert_eq!(ask(&mut client, "/a\"b").await, "no_allow_matched");

    let event = all.json().await.unwrap();
    assert_eq!(event["decision"], "allow");
    assert_eq!(event["reason"], "allowed_by");
    assert_eq!(event["policies"], serde_json::json!(["foo/p#rule[0]"]));
    assert_eq!(event["method"], "GET");
    assert_eq!(event["host"], "a.foo");
    assert_eq!(event["path"], "/ok", "the query stays here");
    assert_eq!(event["source"]["address"], "10.0.0.9");
    assert_eq!(event["destination"]["workload"], "pod/foo/a");
    assert_eq!(event["destination"]["port"], 8080);
    assert_eq!(event["listener"], "tcp");
    assert_eq!(event["protocol"], "http");
    assert_eq!(event["dry_run"], Value::Null);
    assert!(event["duration_us"].is_u64());
    assert!(event["time"].as_str().unwrap().ends_with('Z'), "{event}");
    let revision = running.status.borrow().revision.clone();
    assert_eq!(event["snapshot"].as_str(), revision.as_deref());
    assert_eq!(event.get("explanation"), None);

    let event = denied.json().await.unwrap();
    assert_eq!(event["reason"], "no_allow_matched", "allows are left out");
    assert_eq!(event["path"], "/a\"b", "escaped, it is one line");
    assert_eq!(event["explanation"]["rules"][0]["id"], "foo/p#rule[0]");
    assert_eq!(all.json().await.unwrap()["decision"], "deny");

    // A follower does not keep the server from stopping.
    tokio::time::timeout(Duration::from_secs(5), running.stop())
        .await
        .unwrap();
    assert_eq!(all.json().await, None);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_is_not_known_is_refused() {
    let (_folder, running) = server().await;
    for (path, status) in [
        ("/", "404"),
        ("/decisions/", "404"),
        ("/decisions?all=true", "400"),
        ("/decisions?denied=perhaps", "400"),
    ] {
        let answer = Answer::to(&running, path).await;
        assert_eq!(answer.status, status, "{path}");
        answer.rest().await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_told_with_its_error() {
    let (_folder, running) = server().await;
    let mut denied = Answer::to(&running, "/decisions?denied=true").await;
    let mut client = running.client().await;
    let check = envoy_types::ext_authz::v3::pb::CheckRequest::default();
    let answer = within("an answer", client.check(tonic::Request::new(check))).await;
    assert_eq!(reason(&answer.unwrap()), "invalid_request");
    let event = denied.json().await.unwrap();
    assert_eq!(event["reason"], "invalid_request");
    assert!(!event["error"].as_str().unwrap().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn metrics_tell_what_was_decided_and_by_which_snapshot() {
    let (folder, mut running) = server().await;
    let mut client = running.client().await;
    assert_eq!(ask(&mut client, "/ok").await, "allowed_by");
    assert_eq!(ask(&mut client, "/no").await, "no_allow_matched");
    std::fs::write(folder.path().join("p.yaml"), "kind: [").unwrap();
    let status = running
        .until("a refusal", |status| status.last_error.is_some())
        .await;
    let mut text = String::new();
    // What is asked for here is answered with the same text, whichever way it is asked.
    for _ in 0..2 {
        let answer = Answer::to(&running, "/metrics").await;
        assert_eq!(answer.status, "200");
        text = answer.rest().await;
    }
    let revision = status.revision.unwrap();
    for line in [
        r#"decisions_total{decision="allow",reason="allowed_by"} 1"#,
        r#"decisions_total{decision="deny",reason="no_allow_matched"} 1"#,
        r#"decisions_total{decision="deny",reason="overloaded"} 0"#,
        "decision_duration_seconds_count 2",
        &format!(r#"snapshot_info{{revision="{revision}"}} 1.0"#),
        "snapshot_policies 1.0",
        r#"reloads_total{result="success"} 1"#,
        r#"reloads_total{result="failure"} 1"#,
        "reload_failing 1.0",
        "followers 0.0",
    ] {
        let whole = format!("portcullis_authz_{line}\n");
        assert!(text.contains(&whole), "`{line}` in\n{text}");
    }
    for word in ["/ok", "/no", "a.foo", "10.0.0.9"] {
        assert!(!text.contains(word), "`{word}` comes from a request");
    }
    running.stop().await;
}
