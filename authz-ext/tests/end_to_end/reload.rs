//! Files change beneath a running server.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use portcullis_policy::diagnostic::Diagnostic;

use super::support::*;

fn write(folder: &tempfile::TempDir, name: &str, content: &str) {
    std::fs::write(folder.path().join(name), content).unwrap();
}

async fn start(policy: &str) -> (Running, tempfile::TempDir) {
    let folder = folder(&[("inventory.yaml", INVENTORY), ("p.yaml", policy)]);
    let running = Running::start(options(folder.path(), vec![tcp()])).await;
    (running, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_in_force_and_a_touched_one_changes_nothing() {
    let (mut running, folder) = start(&allow("/a")).await;
    let mut client = running.client().await;
    let first = running.status.borrow().clone();
    assert_eq!(ask(&mut client, "/b").await, "no_allow_matched");
    write(&folder, "p.yaml", &allow("/b"));
    let second = running
        .until("the change is read", |s| s.revision != first.revision)
        .await;
    assert_eq!(ask(&mut client, "/b").await, "allowed_by");
    assert_eq!(ask(&mut client, "/a").await, "no_allow_matched");

    write(&folder, "p.yaml", &allow("/b"));
    let third = running
        .until("the touch is read", |s| s.succeeded > second.succeeded)
        .await;
    assert_eq!(
        (third.revision, third.since),
        (second.revision, second.since)
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_document_keeps_the_last_good_snapshot_and_says_so() {
    let (mut running, folder) = start(&allow("/a")).await;
    let mut client = running.client().await;
    let good = running.status.borrow().clone();
    assert_eq!((good.failed, good.last_error.as_deref()), (0, None));
    for (name, bad) in [
        ("p.yaml", "kind: [".to_owned()),
        ("p.yaml", allow("/b").replace("operation", "opration")),
        ("extra.cedar", "permit(".to_owned()),
    ] {
        let failed = running.status.borrow().failed;
        write(&folder, name, &bad);
        let status = running.until("it is refused", |s| s.failed > failed).await;
        assert_eq!(status.revision, good.revision);
        assert!(status.last_error.is_some());
        let blamed = |d: &Diagnostic| d.is_error() && d.location.file.ends_with(name);
        assert!(status.diagnostics.iter().any(blamed), "{name}: {status:?}");
        assert_eq!(ask(&mut client, "/a").await, "allowed_by");
        assert_eq!(ask(&mut client, "/b").await, "no_allow_matched");
    }
    std::fs::remove_file(folder.path().join("extra.cedar")).unwrap();
    write(&folder, "p.yaml", &allow("/b"));
    let status = running
        .until("it is mended", |s| s.revision != good.revision)
        .await;
    assert_eq!(status.last_error, None);
    assert_eq!(ask(&mut client, "/b").await, "allowed_by");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_files_open_nothing() {
    let (mut running, folder) = start(&allow("/a")).await;
    let mut client = running.client().await;
    // Emptied, then gone, then back with another policy.
    std::fs::remove_file(folder.path().join("p.yaml")).unwrap();
    std::fs::remove_file(folder.path().join("inventory.yaml")).unwrap();
    let status = running
        .until("the empty folder is refused", |s| s.failed > 0)
        .await;
    assert!(status.last_error.unwrap().starts_with("no policy file in "));
    assert_eq!(ask(&mut client, "/b").await, "no_allow_matched");
    std::fs::remove_dir(folder.path()).unwrap();
    let gone = |s: &portcullis_authz::reload::ReloadStatus| {
        s.last_error
            .as_ref()
            .is_some_and(|error| error.ends_with("does not exist"))
    };
    running.until("the missing folder is refused", gone).await;
    assert_eq!(ask(&mut client, "/b").await, "no_allow_matched");
    assert_eq!(ask(&mut client, "/a").await, "allowed_by");
    std::fs::create_dir(folder.path()).unwrap();
    write(&folder, "inventory.yaml", INVENTORY);
    write(&folder, "p.yaml", &allow("/b"));
    running
        .until("the new folder is read", |s| s.last_error.is_none())
        .await;
    within("the new policy is in force", async {
        while ask(&mut client, "/b").await != "allowed_by" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_maps_atomic_swap_is_noticed() {
    let folder = folder(&[]);
    let version = |name: &str, path: &str| {
        let version = folder.path().join(name);
        std::fs::create_dir(&version).unwrap();
        std::fs::write(version.join("i.yaml"), INVENTORY).unwrap();
        std::fs::write(version.join("p.yaml"), allow(path)).unwrap();
    };
    version("..2026_01", "/a");
    symlink("..2026_01", folder.path().join("..data")).unwrap();
    for name in ["i.yaml", "p.yaml"] {
        symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
    }
    let mut options = options(folder.path(), vec![tcp()]);
    // Longer than the test waits: only a notification can tell.
    options.reload.poll = std::time::Duration::from_secs(600);
    let mut running = Running::start(options).await;
    let mut client = running.client().await;
    assert_eq!(ask(&mut client, "/b").await, "no_allow_matched");
    let first = running.status.borrow().revision.clone();
    // As the kubelet does it: a new folder, a new link, renamed over the old.
    version("..2026_02", "/b");
    symlink("..2026_02", folder.path().join("..data_tmp")).unwrap();
    std::fs::rename(
        folder.path().join("..data_tmp"),
        folder.path().join("..data"),
    )
    .unwrap();
    std::fs::remove_dir_all(folder.path().join("..2026_01")).unwrap();
    running
        .until("the swap is read", |s| s.revision != first)
        .await;
    assert_eq!(ask(&mut client, "/b").await, "allowed_by");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_file_that_an_editor_renames_into_place_is_noticed() {
    let folder = folder(&[("all.yaml", &format!("{INVENTORY}---{}", allow("/a")))]);
    let file = folder.path().join("all.yaml");
    let mut options = options(&file, vec![tcp()]);
    options.reload.poll = std::time::Duration::from_secs(600);
    let mut running = Running::start(options).await;
    let first = running.status.borrow().revision.clone();
    write(
        &folder,
        "all.yaml.new",
        &format!("{INVENTORY}---{}", allow("/b")),
    );
    std::fs::rename(folder.path().join("all.yaml.new"), &file).unwrap();
    running
        .until("the file is read", |s| s.revision != first)
        .await;
    assert_eq!(ask(&mut running.client().await, "/b").await, "allowed_by");
    running.stop().await;
}

/// Under load, with the policies swapped all the while: every request is answered, and every
/// answer is one that a whole policy set gives. `/both` is allowed by each of the two sets, so any
/// other answer would show a set half-loaded or a moment without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_lost_or_wrong_while_policies_change() {
    const SETS: [&str; 2] = [r#"/both", "/a"#, r#"/both", "/b"#];
    const SWAPS: usize = 12;
    let (mut running, folder) = start(&allow(SETS[0])).await;
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let mut askers = Vec::new();
    for _ in 0..4 {
        let mut client = running.client().await;
        let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
        askers.push(tokio::spawn(async move {
            let mut either = [0_u64; 2];
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(ask(&mut client, "/both").await, "allowed_by");
                assert_eq!(ask(&mut client, "/neither").await, "no_allow_matched");
                let answer = ask(&mut client, "/a").await;
                match answer.as_str() {
                    "allowed_by" => either[0] += 1,
                    "no_allow_matched" => either[1] += 1,
                    other => panic!("{other}"),
                }
                asked.fetch_add(3, Ordering::Relaxed);
            }
            either
        }));
    }
    for swap in 1..=SWAPS {
        let before = running.status.borrow().revision.clone();
        write(&folder, "p.yaml", &allow(SETS[swap % 2]));
        running
            .until("the swap is in force", |s| s.revision != before)
            .await;
        // Nonsense in between must change nothing.
        let failed = running.status.borrow().failed;
        write(&folder, "p.yaml", "kind: [");
        running
            .until("nonsense is refused", |s| s.failed > failed)
            .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut seen = [0, 0];
    for asker in askers {
        let either = within("an asker ends", asker).await.unwrap();
        seen = [seen[0] + either[0], seen[1] + either[1]];
    }
    assert!(
        seen[0] > 0 && seen[1] > 0,
        "both sets were in force: {seen:?}"
    );
    assert!(asked.load(Ordering::Relaxed) > 100);
    running.stop().await;
}
