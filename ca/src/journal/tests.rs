use std::fs;
use std::io::BufReader;

use super::read::{VerifyError, verify};
use super::*;
use crate::clock::SystemClock;

fn open(path: &Path) -> Journal {
    Journal::open(path, Arc::new(SystemClock)).unwrap()
}

fn verified(path: &Path) -> Result<read::Verified, VerifyError> {
    verify(BufReader::new(File::open(path).unwrap()), |_, _| {})
}

async fn three_records(path: &Path) {
    let journal = open(path);
    for spiffe_id in ["a", "b \" quoted", "{}"] {
        let record = Record::new("x509_issued").with("spiffe_id", spiffe_id);
        journal.append(vec![record]).await.unwrap();
    }
}

#[tokio::test]
async fn the_chain_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(folder.path());
    three_records(&path).await;
    three_records(&path).await;
    open(&path).append(vec![Record::new("bare")]).await.unwrap();
    let verified = verified(&path).unwrap();
    assert_eq!((verified.records, verified.unfinished), (7, false));
    let last = fs::read_to_string(&path).unwrap();
    let last = last.lines().last().unwrap();
    assert!(
        last.ends_with(&format!("\"hash\":\"{}\"}}", verified.head)),
        "{last}"
    );
}

#[tokio::test]
async fn callers_that_wait_together_are_all_on_disk_in_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(folder.path());
    let journal = open(&path);
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let records = vec![
                    Record::new("a").with("n", number),
                    Record::new("b").with("n", number),
                ];
                journal.append(records).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let mut events = Vec::new();
    verify(BufReader::new(File::open(&path).unwrap()), |line, _| {
        events.push((line.record["event"].clone(), line.record["n"].clone()));
    })
    .unwrap();
    assert_eq!(events.len(), 128);
    // What was appended together stands together.
    for pair in events.chunks(2) {
        assert_eq!(
            (pair[0].0.as_str(), pair[1].0.as_str()),
            (Some("a"), Some("b"))
        );
        assert_eq!(pair[0].1, pair[1].1);
    }
}

#[tokio::test]
async fn a_changed_removed_or_moved_line_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(folder.path());
    three_records(&path).await;
    let good = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let check = |text: String| {
        fs::write(&path, text).unwrap();
        verified(&path).unwrap_err()
    };
    let changed = check(good.replacen("\"a\"", "\"z\"", 1));
    assert!(
        matches!(changed, VerifyError::Line { line: 1, .. }),
        "{changed}"
    );
    let removed = check(format!("{}\n{}\n", lines[0], lines[2]));
    assert!(
        matches!(
            removed,
            VerifyError::Sequence {
                line: 2,
                found: 3,
                ..
            }
        ),
        "{removed}"
    );
    let swapped = check(format!("{}\n{}\n{}\n", lines[1], lines[0], lines[2]));
    assert!(
        matches!(swapped, VerifyError::Sequence { line: 1, .. }),
        "{swapped}"
    );
    // A chain of the same length, made anew, does not fit behind the old first line.
    let other = folder.path().join("other");
    three_records(&other).await;
    let other = fs::read_to_string(&other).unwrap();
    let forged = check(format!("{}\n{}\n", lines[0], other.lines().nth(1).unwrap()));
    assert!(matches!(forged, VerifyError::Chain { line: 2 }), "{forged}");
}

#[tokio::test]
async fn an_unfinished_line_is_cut_off_and_a_damaged_one_refuses_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(folder.path());
    three_records(&path).await;
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{good}{{\"seq\":4,\"ti")).unwrap();
    assert!(verified(&path).unwrap().unfinished);
    open(&path).append(vec![Record::new("next")]).await.unwrap();
    assert_eq!(verified(&path).unwrap().records, 4);
    fs::write(&path, good.replace("{}", "[]")).unwrap();
    let error = Journal::open(&path, Arc::new(SystemClock)).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_refuses_and_says_so() {
    // Every write to this device fails: no space left.
    let error = match Journal::open(Path::new("/dev/full"), Arc::new(SystemClock)) {
        Ok(journal) => journal.append(vec![Record::new("x")]).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(!error.to_string().is_empty());
}

/// What the journal at `path` knows of its past, once it knows.
fn past_of(path: &Path) -> Past {
    let journal = open(path);
    for _ in 0..1000 {
        match journal.past() {
            Past::Unknown => std::thread::sleep(std::time::Duration::from_millis(5)),
            known => return known,
        }
    }
    panic!("it never knows");
}

#[tokio::test]
async fn damage_further_back_is_found_beside_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(folder.path());
    three_records(&path).await;
    assert_eq!(past_of(&path), Past::Whole(3));
    assert_eq!(Past::Whole(3).alarm(), None);
    let whole = fs::read_to_string(&path).unwrap();
    // A record changed, one removed, one put in the place of another: the last line is as it was.
    let lines: Vec<&str> = whole.lines().collect();
    let [first, second, third] = lines[..] else {
        panic!("{whole}");
    };
    let changed = second.replace("quoted", "forged");
    for (text, found) in [
        (
            format!("{first}\n{changed}\n{third}\n"),
            "line 2: its content",
        ),
        (format!("{first}\n{third}\n"), "line 2: record 3"),
        (format!("{second}\n{first}\n{third}\n"), "line 1: record 2"),
    ] {
        fs::write(&path, text).unwrap();
        let past = past_of(&path);
        let alarm = past.alarm().unwrap();
        assert!(alarm.contains(found), "{found}: {alarm}");
        assert!(alarm.contains("portcullis ca audit verify"), "{alarm}");
        // What happens from here on is recorded all the same.
        open(&path)
            .append(vec![Record::new("later")])
            .await
            .unwrap();
    }
}
