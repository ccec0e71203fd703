use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_policy::decision::{Decision, Reason};
use serde_json::Value;
use tonic::codegen::http::HeaderMap;

use super::*;
use crate::observe::{Decided, fields};

fn event(reason: Reason) -> Arc<DecisionEvent> {
    let decided = Decided {
        listener: &Arc::from("l"),
        headers: &HeaderMap::new(),
        request: None,
        snapshot: None,
        decision: &Decision::closed(reason, "r"),
        error: Some("a \"quoted\"\nline".to_owned()),
        started: Instant::now(),
    };
    let told = fields::Options::default();
    Arc::new(DecisionEvent::of(&decided, None, Duration::ZERO, &told))
}

fn start(path: &Path, rotation: Rotation, queue: usize) -> (Log, Closing) {
    Log::start(&Output::File(path.to_owned(), rotation), queue).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Offers one that must find its way, whatever waits.
fn write(log: &Log, event: &Arc<DecisionEvent>) {
    until("room", || log.state.waiting.load(Ordering::Relaxed) == 0);
    assert!(log.has_room());
    log.offer(event);
}

#[tokio::test]
async fn each_event_is_a_line_and_all_are_there_when_the_log_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decisions.jsonl");
    let (log, closing) = start(&path, Rotation::default(), 1000);
    let denied = event(Reason::DeniedBy);
    for _ in 0..500 {
        log.offer(&denied);
    }
    closing.close(Duration::from_secs(10)).await;
    let lines = lines(&path);
    assert_eq!(lines.len(), 500);
    assert_eq!(lines[0]["reason"], "denied_by");
    assert_eq!(lines[0]["error"], "a \"quoted\"\nline");
    assert_eq!(log.fate().written.load(Ordering::Relaxed), 500);
    assert_eq!(log.fate().lost(), 0);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "not for everybody");
}

#[tokio::test]
async fn a_file_is_put_aside_when_it_is_full_and_the_oldest_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let event = event(Reason::DeniedBy);
    let line = serde_json::to_vec(&*event).unwrap().len() as u64 + 1;
    let rotation = Rotation {
        bytes: line * 10,
        keep: 2,
    };
    let (log, closing) = start(&path, rotation, 4096);
    for _ in 0..105 {
        write(&log, &event);
    }
    closing.close(Duration::from_secs(10)).await;
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["log", "log.1", "log.2"]);
    let counts = names
        .iter()
        .map(|name| lines(&folder.path().join(name)).len());
    // Times differ in length by a few digits.
    for (count, expected) in counts.zip([1..=10, 8..=10, 8..=10]) {
        assert!(expected.contains(&count), "{count}");
    }
    assert_eq!(log.fate().written.load(Ordering::Relaxed), 105);
}

#[tokio::test]
async fn somebody_elses_rotation_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (log, closing) = start(&path, Rotation::default(), 16);
    write(&log, &event(Reason::DeniedBy));
    until("a line", || !std::fs::read(&path).unwrap().is_empty());
    std::fs::rename(&path, folder.path().join("aside")).unwrap();
    until("a new file", || {
        write(&log, &event(Reason::AllowedBy));
        path.exists()
    });
    closing.close(Duration::from_secs(10)).await;
    assert!(!lines(&path).is_empty());
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_costs_events_and_never_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let (log, closing) = start(&path, Rotation::default(), 8);
    let denied = event(Reason::DeniedBy);
    let started = Instant::now();
    for _ in 0..10_000 {
        if log.has_room() {
            log.offer(&denied);
        }
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    // The thread may hold a batch, the queue eight.
    let lost = log.fate().lost();
    assert!(lost > 0, "nobody reads");
    assert_eq!(log.fate().written.load(Ordering::Relaxed), 0);
    // Somebody reads: the log goes on and says what is missing.
    let reader = std::thread::spawn(move || lines(&path));
    write(&log, &denied);
    closing.close(Duration::from_secs(10)).await;
    drop(log);
    let lines = reader.join().unwrap();
    let told: u64 = lines.iter().filter_map(|line| line["lost"].as_u64()).sum();
    assert_eq!(told, lost);
    let events = lines.iter().filter(|line| line["reason"] == "denied_by");
    assert_eq!(events.count() as u64, 10_001 - lost);
}

#[tokio::test]
async fn a_log_that_is_stuck_does_not_keep_the_server_from_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let (log, closing) = start(&path, Rotation::default(), 8);
    log.offer(&event(Reason::DeniedBy));
    let started = Instant::now();
    closing.close(Duration::from_millis(300)).await;
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_full_disk_is_counted() {
    let full = Path::new("/dev/full");
    let (log, closing) = start(full, Rotation::default(), 64);
    for _ in 0..20 {
        write(&log, &event(Reason::DeniedBy));
    }
    closing.close(Duration::from_secs(10)).await;
    assert_eq!(log.fate().failed.load(Ordering::Relaxed), 20);
    assert_eq!(log.fate().written.load(Ordering::Relaxed), 0);
}

#[test]
fn a_file_that_cannot_be_is_told_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no/such/log");
    let output = Output::File(path, Rotation::default());
    assert!(Log::start(&output, 8).is_err());
}
