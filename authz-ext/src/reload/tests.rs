use super::*;

fn files(folder: &tempfile::TempDir) -> PolicyFiles {
    PolicyFiles {
        paths: vec![folder.path().to_owned()],
        candidate: Vec::new(),
    }
}

fn write(folder: &tempfile::TempDir, name: &str, text: &str) {
    std::fs::write(folder.path().join(name), text).unwrap();
}

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: foo}\n";

#[test]
fn a_fingerprint_moves_with_every_kind_of_change() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "a.yaml", "a");
    let take = || Fingerprint::take(&files(&folder)).unwrap();
    let first = take();
    assert_eq!(take(), first);
    // The same size and content, but another file.
    write(&folder, "b.tmp", "a");
    assert_eq!(take(), first, "not a policy file");
    std::fs::rename(folder.path().join("b.tmp"), folder.path().join("a.yaml")).unwrap();
    let second = take();
    assert_ne!(second, first);
    write(&folder, "c.yaml", "c");
    let third = take();
    assert_ne!(third, second);
    std::fs::remove_file(folder.path().join("c.yaml")).unwrap();
    assert_eq!(take(), second);
    std::fs::remove_dir_all(folder.path()).unwrap();
    assert!(Fingerprint::take(&files(&folder)).is_err());
}

#[tokio::test]
async fn files_that_still_move_are_waited_for_but_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "a.yaml", "");
    let path = folder.path().join("a.yaml");
    let writer = tokio::spawn(async move {
        for size in 1..=5_usize {
            tokio::time::sleep(Duration::from_millis(20)).await;
            tokio::fs::write(&path, "a".repeat(size)).await.unwrap();
        }
    });
    let seen = settled(&files(&folder), Duration::from_millis(200)).await;
    assert!(
        writer.is_finished(),
        "the writer rested 20 ms, we wait for 200"
    );
    assert_eq!(seen, Fingerprint::take(&files(&folder)).ok());

    let path = folder.path().join("a.yaml");
    let restless = tokio::spawn(async move {
        for size in 0.. {
            tokio::fs::write(&path, "a".repeat(size % 50))
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let files = files(&folder);
    let waited = settled(&files, Duration::from_millis(20));
    let waited = tokio::time::timeout(Duration::from_secs(20), waited).await;
    assert!(waited.is_ok());
    restless.abort();
}

#[test]
fn a_refusal_keeps_what_is_live_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "a.yaml", NAMESPACE);
    let live = Live::default();
    let mut reloader = Reloader::new(files(&folder), Settings::default(), live.clone());
    let status = reloader.status();
    reloader.load().unwrap();
    let first = live.snapshot().unwrap();
    assert_eq!(status.borrow().revision.as_deref(), Some(first.revision()));

    write(&folder, "b.yaml", "kind: [");
    let error = reloader.load().unwrap_err();
    assert!(
        matches!(error, LoadError::Refused { errors: 1, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("b.yaml:"), "{error}");
    std::fs::remove_dir_all(folder.path()).unwrap();
    let error = reloader.load().unwrap_err();
    assert!(matches!(error, LoadError::Read(_)), "{error}");
    assert!(Arc::ptr_eq(&first, &live.snapshot().unwrap()));
    let status = status.borrow();
    assert_eq!((status.succeeded, status.failed), (1, 2));
    assert_eq!(status.last_error, Some(error.to_string()));
}

#[test]
fn an_unchanged_set_keeps_the_snapshot_with_its_caches() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "a.yaml", NAMESPACE);
    let live = Live::default();
    let mut reloader = Reloader::new(files(&folder), Settings::default(), live.clone());
    reloader.load().unwrap();
    let first = live.snapshot().unwrap();
    write(&folder, "a.yaml", NAMESPACE);
    reloader.load().unwrap();
    assert!(Arc::ptr_eq(&first, &live.snapshot().unwrap()));
    write(&folder, "a.yaml", &NAMESPACE.replace("foo", "bar"));
    reloader.load().unwrap();
    assert!(!Arc::ptr_eq(&first, &live.snapshot().unwrap()));
}

#[test]
fn nothing_to_serve_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let live = Live::default();
    let mut reloader = Reloader::new(files(&folder), Settings::default(), live.clone());
    let error = reloader.load().unwrap_err().to_string();
    assert!(error.starts_with("no policy file in `"), "{error}");
    assert!(live.snapshot().is_none());
    // A candidate that is gone must not silently become "nothing on trial".
    write(&folder, "a.yaml", NAMESPACE);
    let files = PolicyFiles {
        candidate: vec![folder.path().join("candidate")],
        ..files(&folder)
    };
    let mut reloader = Reloader::new(files, Settings::default(), live.clone());
    let error = reloader.load().unwrap_err().to_string();
    assert!(error.ends_with("candidate` does not exist"), "{error}");
}
