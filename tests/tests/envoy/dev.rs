//! `portcullis dev --envoy`: what it prints to try is true of the Envoy that it started.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::component::{self, run_folder};
use portcullis_tests::ports::free_address;
use portcullis_tests::process::{self, Daemon, poll};

use crate::setting::{PORTCULLIS, envoy};

const PATIENCE: Duration = Duration::from_secs(60);

/// `dev --envoy` in a folder of its own, until it says that it serves.
fn start(envoy: &Path, folder: &Path) -> (Daemon, SocketAddr, String) {
    let (own, front) = (free_address().unwrap(), free_address().unwrap());
    let log = folder.join("dev.log");
    let mut command = Command::new(PORTCULLIS);
    command.args([
        "dev",
        "--envoy",
        "--listen",
        &own.to_string(),
        "--envoy-listen",
        &front.to_string(),
    ]);
    command.env("ENVOY", envoy).current_dir(folder);
    let mut daemon = Daemon::start(&mut command, &log).unwrap();
    let printed = || fs::read_to_string(&log).unwrap_or_default();
    daemon
        .wait_until(PATIENCE, || printed().contains("Ctrl-C ends"))
        .unwrap_or_else(|cause| panic!("{cause}"));
    (daemon, front, printed())
}

#[test]
fn the_printed_requests_get_the_printed_answers() {
    let Some(executable) = envoy() else { return };
    let folder = run_folder("dev-requests");
    let (_daemon, front, printed) = start(&executable, &folder);
    let mut statuses = Vec::new();
    for line in printed
        .lines()
        .filter(|line| line.trim_start().starts_with("curl "))
    {
        let (command, promise) = line.split_once("  # ").unwrap();
        let expected: u16 = promise.split(':').next().unwrap().parse().unwrap();
        let mut exchange = Exchange::get("/");
        let mut words = command.split_whitespace().skip(1);
        while let Some(word) = words.next() {
            match word {
                "-i" => {}
                "-X" => exchange = exchange.method(words.next().unwrap()),
                url => {
                    let path = url.strip_prefix(&format!("http://{front}")).unwrap();
                    exchange.path = path.to_owned();
                    exchange.host = front.to_string();
                }
            }
        }
        let answer = Client::plain(front).send(&exchange).unwrap();
        assert_eq!(answer.status, expected, "{line}: {answer:?}");
        if expected == 403 {
            assert!(
                answer.body.contains("reason"),
                "the answer says why: {answer:?}"
            );
        }
        statuses.push(expected);
    }
    assert!(
        statuses.contains(&200) && statuses.contains(&403),
        "{printed}"
    );
}

#[test]
fn the_printed_commands_run_in_a_shell() {
    let Some(executable) = envoy() else { return };
    let Some(grpcurl) = component::require(component::grpcurl()) else {
        return;
    };
    let folder = run_folder("dev-commands");
    let (_daemon, _, printed) = start(&executable, &folder);
    let tools = folder.join("tools");
    fs::create_dir_all(&tools).unwrap();
    std::os::unix::fs::symlink(PORTCULLIS, tools.join("portcullis")).unwrap();
    std::os::unix::fs::symlink(grpcurl, tools.join("grpcurl")).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let run = |command: &str| {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .env("PATH", &path)
            .current_dir(&folder);
        let output = process::run(&mut shell, PATIENCE).unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    // A backslash at the end of a line continues the command.
    let joined = printed.replace("\\\n", "");
    let command = |start: &str| {
        joined
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with(start))
            .unwrap()
    };

    let (code, answer) = run(command("grpcurl "));
    assert_eq!(code, Some(0), "{answer}");
    assert!(
        answer.contains("\"portcullis\"") && answer.contains("denied_by"),
        "{answer}"
    );
    let (code, story) = run(command("sed "));
    assert_eq!(code, Some(2), "a denial explained: {story}");
    assert!(story.contains("policies.yaml:"), "{story}");
}

#[test]
fn its_envoy_ends_with_it_however_it_ends() {
    let Some(executable) = envoy() else { return };
    for (name, killed) in [("dev-terminated", false), ("dev-killed", true)] {
        let folder = run_folder(name);
        let (mut daemon, front, _) = start(&executable, &folder);
        assert!(TcpStream::connect(front).is_ok());
        if killed {
            daemon.kill_alone();
        } else {
            assert!(daemon.terminate(PATIENCE).unwrap().is_some());
        }
        let gone = poll(PATIENCE, || {
            TcpStream::connect(front).is_err().then_some(())
        });
        assert!(gone.is_some(), "{name}: something still listens on {front}");
    }
}
