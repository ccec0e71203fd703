//! `authz tail` and `authz top` beside a running service.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use portcullis_authz::endpoint::Endpoint;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::run::{Folder, Outcome, WEB, finish, wait};
use super::serve::Serving;

const PATIENCE: Duration = Duration::from_secs(30);

fn folder() -> Folder {
    Folder::new(&[
        ("web.yaml", WEB),
        (
            "portcullis.yaml",
            "policies: [web.yaml]\nlisteners: [{address: \"unix:authz.sock\"}]\n\
             management: {address: \"unix:management.sock\"}\nlog: {format: json}\n",
        ),
    ])
}

fn serve(folder: &Folder) -> Serving {
    let mut serving =
        Serving::start(folder.command(&["authz", "serve", "--config", "portcullis.yaml"]));
    serving.endpoint = Endpoint::Unix(folder.path().join("authz.sock"));
    serving
}

/// Runs a command while the service is asked for a private and a public path, again and again.
fn while_asking(folder: &Folder, serving: &Serving, arguments: &[&str]) -> Outcome {
    let command = folder.command(arguments);
    let running = std::thread::spawn(move || finish(command, b""));
    while !running.is_finished() {
        assert_eq!(serving.ask("/private?token=s3cret"), 7);
        assert_eq!(serving.ask("/public/a"), 0);
    }
    running.join().unwrap()
}

#[test]
fn tail_tells_decisions_as_they_happen() {
    let folder = folder();
    let serving = serve(&folder);
    let arguments = [
        "authz",
        "tail",
        "--config",
        "portcullis.yaml",
        "--count",
        "4",
    ];
    let all = while_asking(&folder, &serving, &arguments);
    assert_eq!(all.code, 0, "{all:?}");
    let lines: Vec<&str> = all.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{all:?}");
    let denied =
        "  DENY   no_allow_matched  GET web.foo/private from 10.0.0.9 to pod/foo/web:8080  ";
    let allowed = "  ALLOW  allowed_by foo/readers#rule[0]  GET web.foo/public/a from ";
    for told in [denied, allowed] {
        assert_eq!(
            lines.iter().filter(|line| line.contains(told)).count(),
            2,
            "{all:?}"
        );
    }
    assert!(!all.stdout.contains("s3cret"), "{all:?}");

    let arguments = [&arguments[..], &["--denied", "--output", "json"]].concat();
    let json = while_asking(&folder, &serving, &arguments);
    let told = json.json();
    assert_eq!(told.len(), 4, "{json:?}");
    for one in told {
        assert_eq!(
            (&one["decision"], &one["path"]),
            (&"deny".into(), &"/private".into())
        );
        assert!(one.get("explanation").is_none(), "{one}");
    }

    let explain = [
        "authz",
        "tail",
        "--management",
        "unix:management.sock",
        "--denied",
        "--explain",
        "--count",
        "1",
    ];
    let story = while_asking(&folder, &serving, &explain);
    assert!(
        story.stdout.contains("the nearest rules, and what failed"),
        "{story:?}"
    );
    assert!(story.stdout.contains("had instead `/private`"), "{story:?}");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn tail_waits_for_a_service_that_is_started_again() {
    let folder = folder();
    let serving = serve(&folder);
    let arguments = [
        "authz",
        "tail",
        "--config",
        "portcullis.yaml",
        "--count",
        "1",
    ];
    let command = folder.command(&arguments);
    let tail = std::thread::spawn(move || finish(command, b""));
    // Until it follows, a decision would be lost; a service that stops ends the stream.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(serving.stop(), 0);
    let serving = serve(&folder);
    let start = Instant::now();
    while !tail.is_finished() {
        assert!(start.elapsed() < PATIENCE, "tail goes on");
        assert_eq!(serving.ask("/public/a"), 0);
    }
    let told = tail.join().unwrap();
    assert_eq!((told.code, told.stdout.lines().count()), (0, 1), "{told:?}");
    assert!(told.stderr.contains("is gone; waiting for it"), "{told:?}");
    assert!(told.stderr.contains("is back"), "{told:?}");
}

#[test]
fn a_service_that_cannot_be_followed_is_named() {
    let folder = folder();
    for verb in [&["authz", "tail"][..], &["authz", "top", "--once"]] {
        let nowhere = folder.run(&[verb, &["--management", "unix:none.sock"]].concat());
        assert_eq!(nowhere.code, 1, "{nowhere:?}");
        assert!(
            nowhere
                .stderr
                .starts_with("error: cannot connect to the management listener `unix:none.sock`: "),
            "{nowhere:?}"
        );
        let which = folder.run(verb);
        assert_eq!(which.code, 1, "{which:?}");
        assert!(which.stderr.contains("management.address"), "{which:?}");
    }
    let serving = serve(&folder);
    // The listener of proxies is no management listener.
    let other = folder.run(&["authz", "tail", "--management", "unix:authz.sock"]);
    assert_eq!(other.code, 1, "{other:?}");
    let text = folder.run(&["authz", "top", "--config", "portcullis.yaml"]);
    assert_eq!(text.code, 1, "{text:?}");
    assert!(text.stderr.contains("--once"), "{text:?}");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn top_prints_its_view_once() {
    let folder = folder();
    let serving = serve(&folder);
    let view = while_asking(
        &folder,
        &serving,
        &[
            "authz",
            "top",
            "--config",
            "portcullis.yaml",
            "--once",
            "--interval",
            "2",
        ],
    );
    assert_eq!(view.code, 0, "{view:?}");
    for shown in [
        "portcullis authz unix:",
        "snapshot ",
        "1 policies",
        "latency p50 ",
        "allowed_by",
        "no_allow_matched",
        "10.0.0.9",
        "pod/foo/web:8080",
        "GET web.foo/private",
    ] {
        assert!(
            view.stdout.contains(shown),
            "no `{shown}` in\n{}",
            view.stdout
        );
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn top_is_drawn_on_a_terminal_until_q() {
    let folder = folder();
    let serving = serve(&folder);
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let open = || {
        File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap()
    };
    let size = rustix::termios::Winsize {
        ws_row: 40,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&terminal, size).unwrap();
    let mut child = folder
        .command(&[
            "authz",
            "top",
            "--config",
            "portcullis.yaml",
            "--interval",
            "0.2",
        ])
        .stdin(Stdio::from(open()))
        .stdout(Stdio::from(open()))
        .stderr(Stdio::from(open()))
        .spawn()
        .unwrap();
    let mut terminal = File::from(terminal);
    let (sender, shown) = mpsc::channel();
    let mut reading = terminal.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = reading.read(&mut buffer) {
            if sender.send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut text = String::new();
    let start = Instant::now();
    while !text.contains("web.foo/private") {
        assert!(start.elapsed() < PATIENCE, "{}", text.len());
        assert_eq!(serving.ask("/private"), 7);
        while let Ok(more) = shown.try_recv() {
            text.push_str(&String::from_utf8_lossy(&more));
        }
    }
    terminal.write_all(b"q").unwrap();
    assert_eq!(wait(&mut child, PATIENCE), 0);
    assert_eq!(serving.stop(), 0);
}
