//! A disk that takes nothing more, a folder that cannot be written: refused by name, and nothing is served that was not stored.

use std::process::{Command, Stdio};

use crate::run::{Folder, finish};
use crate::svid::{Authority, until};

/// `ca serve` whose files may not grow beyond `blocks` of 512 bytes; the signal that says so is ignored, as the disk's own
/// fullness has none.
fn limited(folder: &Folder, blocks: u32) -> std::process::Child {
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""),
        ])
        .arg(env!("CARGO_BIN_EXE_portcullis"))
        .args(["ca", "serve", "--data", "ca"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn a_full_disk_stops_what_cannot_be_recorded_and_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new(&[]);
    let mut server = limited(&folder, 1200);
    let ca = |arguments: &[&str]| folder.run(&[&["ca"], arguments, &["--data", "ca"]].concat());
    until("it serves", || ca(&["status"]).code == 0);
    let uid = format!("unix:uid:{}", rustix::process::getuid().as_raw());
    let created = ca(&[
        "entry",
        "create",
        "--spiffe-id",
        "spiffe://example.org/x",
        "--selector",
        &uid,
    ]);
    assert_eq!(created.code, 0, "{created:?}");
    let audience = "a".repeat(200);
    let fetch = || {
        folder.run(&[
            "svid",
            "fetch",
            "--socket",
            "ca/workload.sock",
            "--audience",
            &audience,
        ])
    };
    let mut acknowledged = Vec::new();
    let refused = loop {
        let fetched = fetch();
        if fetched.code != 0 {
            break fetched;
        }
        acknowledged.push(fetched.stdout.trim().to_owned());
        assert!(acknowledged.len() < 5_000, "the disk does not fill");
        // Entries of 60 kB each, so that it does not take all day.
        let dns: Vec<String> = (0..100)
            .map(|n| format!("{n}.{}", "b".repeat(60)))
            .collect();
        let id = format!("spiffe://example.org/fill/{}", acknowledged.len());
        let selectors: Vec<String> = (0..60)
            .map(|n| format!("unix:path:/{n}/{}", "p".repeat(500)))
            .collect();
        let mut arguments = vec!["entry", "create", "--spiffe-id", &id];
        for name in &dns {
            arguments.extend(["--dns", name]);
        }
        for selector in &selectors {
            arguments.extend(["--selector", selector]);
        }
        ca(&arguments);
    };
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stdout.is_empty(), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("the audit journal cannot be written"),
        "{refused:?}"
    );
    // A shorter record may still fit; then the next one does not.
    let mut stored = Vec::new();
    loop {
        let id = format!("spiffe://example.org/last/{}", stored.len());
        let created = ca(&["entry", "create", "--spiffe-id", &id, "--selector", &uid]);
        if created.code != 0 {
            break;
        }
        stored.push(id);
        assert!(stored.len() < 20, "the disk is not full");
    }
    server.kill().unwrap();
    server.wait().unwrap();

    // With room again everything is there that was promised.
    let mut again = folder
        .command(&["ca", "serve", "--data", "ca"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it serves again", || ca(&["status"]).code == 0);
    assert_eq!(ca(&["audit", "verify"]).code, 0);
    let journal = ca(&["audit", "export"]).stdout;
    let issued = journal
        .lines()
        .filter(|line| line.contains("\"event\":\"jwt_issued\""))
        .count();
    assert!(
        issued >= acknowledged.len(),
        "{issued} records, {} tokens",
        acknowledged.len()
    );
    let listed = ca(&["entry", "list", "--output", "json"]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    let known = listed.stdout;
    assert!(stored.iter().all(|id| known.contains(id)), "{stored:?}");
    let refused = format!("spiffe://example.org/last/{}", stored.len());
    assert!(!known.contains(&format!("\"{refused}\"")), "it was refused");
    assert_eq!(fetch().code, 0);
    again.kill().unwrap();
    again.wait().unwrap();
}

#[test]
fn a_folder_that_cannot_be_written_or_trusted_refuses_the_start() {
    let folder = Folder::new(&[("file", "")]);
    let start = |data: &str| {
        let mut command = folder.command(&["ca", "init", "--data", data]);
        command.stdin(Stdio::null());
        finish(command, b"")
    };
    // Nobody writes there, root neither.
    for data in ["/proc/portcullis", "file", "file/below"] {
        let refused = start(data);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(
            refused.stderr.contains(&format!("data folder `{data}`")),
            "{refused:?}"
        );
    }
    let ca = Authority::start();
    let data = ca.path("ca").display().to_string();
    let twice = start(&data);
    assert!(
        twice
            .stderr
            .contains("another certificate authority is running on it"),
        "{twice:?}"
    );
    let copy = |name: &str| {
        let to = folder.path().join(name);
        let copied = Command::new("cp")
            .arg("-r")
            .arg(ca.path("ca"))
            .arg(&to)
            .status();
        assert!(copied.unwrap().success());
        to
    };
    let damaged = copy("journal");
    let journal = portcullis_ca::journal::path_in(&damaged);
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.replace("ca_started", "ca_stopped")).unwrap();
    let refused = start("journal");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("journal"), "{refused:?}");
    let damaged = copy("database");
    for log in ["ca.sqlite-wal", "ca.sqlite-shm"] {
        let _ = std::fs::remove_file(damaged.join(log));
    }
    std::fs::write(damaged.join("ca.sqlite"), "no database ".repeat(1000)).unwrap();
    let refused = start("database");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("restore it from a backup"),
        "{refused:?}"
    );
}

#[test]
fn a_journal_that_was_changed_further_back_is_an_alarm() {
    let mut authority = Authority::start();
    for id in ["a", "b"] {
        authority.entry(id, &[]);
    }
    authority.restart(|_| {});
    // Verified by now, or soon: whole.
    assert!(!authority.ca(&["status"]).stdout.contains("Alarm"));
    authority.restart(|folder| {
        let journal = folder.join("ca/audit.jsonl");
        let text = std::fs::read_to_string(&journal).unwrap();
        let changed = text.replace("example.org/a\"", "example.org/z\"");
        assert_ne!(text, changed);
        std::fs::write(&journal, changed).unwrap();
    });
    until("the alarm is raised", || {
        let status = authority.ca(&["status"]).stdout;
        status.starts_with("Alarm        : the audit journal was damaged or changed")
    });
    // It serves: who wrote to the journal does not take everybody's identity away.
    assert_eq!(authority.ca(&["entry", "list"]).code, 0);
    assert_eq!(authority.svid("fetch", &[]).code, 0);
    assert_eq!(authority.ca(&["audit", "verify"]).code, 2);
}
