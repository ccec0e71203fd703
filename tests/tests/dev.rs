//! `portcullis dev` as a person meets it: a real Envoy that answers curl, edits that count at once, nothing left behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use portcullis_tests::component::{self, require, run_folder};
use portcullis_tests::ports::free_address;
use portcullis_tests::process::{Daemon, poll};

const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A running `portcullis dev`.
struct Dev {
    daemon: Daemon,
    folder: PathBuf,
    /// Where its Envoy listens.
    envoy: SocketAddr,
}

impl Dev {
    fn start(name: &str, envoy: &Path) -> Self {
        let folder = run_folder(name);
        let address = free_address().unwrap();
        let mut command = Command::new(PORTCULLIS);
        command
            .args([
                "dev",
                "--envoy",
                "--listen",
                "127.0.0.1:0",
                "--envoy-listen",
            ])
            .arg(address.to_string())
            .current_dir(&folder)
            .env("ENVOY", envoy);
        let daemon = Daemon::start(&mut command, &folder.join("log")).unwrap();
        let mut dev = Self {
            daemon,
            folder,
            envoy: address,
        };
        dev.said("Ctrl-C ends");
        dev
    }

    /// Waits until it has printed `text`.
    fn said(&mut self, text: &str) {
        let log = self.folder.join("log");
        self.daemon
            .wait_until(LIMIT, || fs::read_to_string(&log).unwrap().contains(text))
            .unwrap();
    }

    /// What curl would show: status line, headers and body.
    fn curl(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.envoy).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn envoy_is_gone(&self) -> bool {
        poll(LIMIT, || {
            TcpStream::connect(self.envoy).is_err().then_some(())
        })
        .is_some()
    }
}

#[test]
fn curl_shows_200_and_403_with_the_reason_and_edits_count_at_once() {
    let Some(envoy) = require(component::envoy()) else {
        return;
    };
    let mut dev = Dev::start("dev-envoy", &envoy);
    let allowed = dev.curl("GET", "/books/moby-dick");
    assert!(allowed.starts_with("HTTP/1.1 200 "), "{allowed}");
    assert!(
        allowed.contains("x-portcullis-policy: ingress/readers#rule[0]\r\n"),
        "{allowed}"
    );
    assert!(
        allowed.contains("\r\n\r\nGET /books/moby-dick\n"),
        "the echo service answers: {allowed}"
    );
    let forbidden = dev.curl("GET", "/admin/users");
    assert!(forbidden.starts_with("HTTP/1.1 403 "), "{forbidden}");
    assert!(
        forbidden.contains(r#"{"decision":"deny","reason":"denied_by","policies":["istio-system/no-admin#rule[0]"]"#),
        "{forbidden}"
    );
    let unlisted = dev.curl("DELETE", "/books/moby-dick");
    assert!(unlisted.starts_with("HTTP/1.1 403 "), "{unlisted}");
    assert!(
        unlisted.contains("x-portcullis-reason: no_allow_matched\r\n"),
        "{unlisted}"
    );

    let policies = dev.folder.join("portcullis-dev/bookshop/policies.yaml");
    let text = fs::read_to_string(&policies).unwrap();
    fs::write(
        &policies,
        text.replace("[GET, HEAD]", "[GET, HEAD, DELETE]"),
    )
    .unwrap();
    dev.said("1 reload since start");
    let edited = dev.curl("DELETE", "/books/moby-dick");
    assert!(edited.starts_with("HTTP/1.1 200 "), "{edited}");

    fs::write(&policies, "kind: [").unwrap();
    dev.said("stays in force");
    let kept = dev.curl("DELETE", "/books/moby-dick");
    assert!(kept.starts_with("HTTP/1.1 200 "), "{kept}");

    assert!(dev.daemon.terminate(LIMIT).unwrap().unwrap().success());
    assert!(dev.envoy_is_gone());
}

#[test]
fn a_dev_that_is_killed_takes_its_envoy_along() {
    let Some(envoy) = require(component::envoy()) else {
        return;
    };
    let dev = Dev::start("dev-killed", &envoy);
    // The process alone, not its group: nobody is left to clean up.
    let pid = dev.daemon.pid().to_string();
    assert!(
        Command::new("kill")
            .args(["-KILL", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert!(dev.envoy_is_gone());
}

/// What `dev --envoy` says when the Envoy at `envoy` cannot listen on `address`.
fn refused(name: &str, envoy: &str, address: &str) -> String {
    let folder = run_folder(name);
    let output = portcullis_tests::process::run(
        Command::new(PORTCULLIS)
            .args(["dev", "--envoy", "--once", "--listen", "127.0.0.1:0"])
            .args(["--envoy-listen", address])
            .current_dir(&folder)
            .env("ENVOY", envoy),
        LIMIT,
    )
    .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_envoy_that_cannot_start_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refused("dev-taken", "/bin/false", &address);
    let expected =
        format!("error: Envoy cannot listen on `{address}`; choose another with --envoy-listen: ");
    assert!(said.starts_with(&expected), "{said}");
    drop(taken);
    let said = refused("dev-false", "/bin/false", &address);
    assert!(
        said.starts_with("error: Envoy `/bin/false` ended at once (exit status: 1)"),
        "{said}"
    );
}

/// A running `dev` without an Envoy.
fn plain(folder: &Path, arguments: &[&str]) -> Daemon {
    let mut command = Command::new(PORTCULLIS);
    command
        .args(["dev", "--listen", "127.0.0.1:0"])
        .args(arguments)
        .current_dir(folder);
    Daemon::start(&mut command, &folder.join("log")).unwrap()
}

fn wait_for(daemon: &mut Daemon, folder: &Path, text: &str) -> String {
    let log = || fs::read_to_string(folder.join("log")).unwrap();
    daemon
        .wait_until(LIMIT, || log().contains(text))
        .unwrap_or_else(|error| panic!("no `{text}`: {error}"));
    log()
}

/// Processes whose program is below `folder`.
fn running_in(folder: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let programs = processes.filter_map(|process| fs::read_link(process.path().join("exe")).ok());
    programs
        .filter(|program| program.starts_with(folder))
        .count()
}

#[test]
fn services_with_identities_meet_and_the_policies_decide_by_them() {
    let folder = run_folder("dev-identity");
    let mut daemon = plain(&folder, &["--svid-ttl", "4s"]);
    let said = wait_for(&mut daemon, &folder, "Ctrl-C ends");
    for line in [
        "  identity  SVIDs of cluster.local on portcullis-dev/ca/workload.sock\n",
        "  frontend -> catalog  GET /books/moby-dick  ALLOW  200  allowed_by  shop/catalog-readers#rule[0]\n",
        "  orders   -> catalog  GET /books/moby-dick  DENY   403  no_allow_matched  -\n",
        "nearest rule  shop/catalog-readers#rule[0] at portcullis-dev/bookshop/policies.yaml:",
        "had instead `spiffe://cluster.local/ns/shop/sa/orders`\n",
    ] {
        assert!(said.contains(line), "`{line}` is not in {said}");
    }
    let programs = folder.canonicalize().unwrap();
    assert_eq!(running_in(&programs), 3, "a process for each service");

    // The printed commands, and the identity of a service seen from outside.
    let list = Command::new(PORTCULLIS)
        .args(["ca", "entry", "list", "--data", "portcullis-dev/ca"])
        .current_dir(&folder)
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(
        list.contains("SPIFFE ID        : spiffe://cluster.local/ns/shop/sa/orders\n"),
        "{list}"
    );

    let said = wait_for(&mut daemon, &folder, "renewed   the SVID of catalog");
    assert!(said.contains("none failed"), "{said}");

    // Who may is edited; the next picture shows it.
    let policies = folder.join("portcullis-dev/bookshop/policies.yaml");
    let text = fs::read_to_string(&policies).unwrap();
    let frontend = r#"principals: ["cluster.local/ns/shop/sa/frontend"]"#;
    assert!(text.contains(frontend), "{text}");
    let orders = frontend.replace("frontend", "orders");
    fs::write(&policies, text.replace(frontend, &orders)).unwrap();
    let said = wait_for(
        &mut daemon,
        &folder,
        "orders   -> catalog  GET /books/moby-dick  ALLOW",
    );
    assert!(
        said.contains("frontend -> catalog  GET /books/moby-dick  DENY   403"),
        "{said}"
    );
    // Several lives of an SVID later.
    let renewals = || {
        let said = fs::read_to_string(folder.join("log")).unwrap();
        said.matches("renewed   the SVID of catalog").count()
    };
    daemon.wait_until(LIMIT, || renewals() >= 4).unwrap();
    let said = fs::read_to_string(folder.join("log")).unwrap();
    assert_eq!(
        said.matches("none failed").count(),
        said.matches("handshakes so far").count(),
        "{said}"
    );

    // Whoever starts a second one there is told what to do.
    let second = portcullis_tests::process::run(
        Command::new(PORTCULLIS)
            .args(["dev", "--once", "--listen", "127.0.0.1:0"])
            .current_dir(&folder),
        LIMIT,
    )
    .unwrap();
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let complaint = String::from_utf8(second.stderr).unwrap();
    assert_eq!(
        complaint,
        "error: no certificate authority; --dir names another folder: data folder `portcullis-dev/ca`: another \
         certificate authority is running on it\n"
    );

    assert!(daemon.terminate(LIMIT).unwrap().unwrap().success());
    assert!(poll(LIMIT, || (running_in(&programs) == 0).then_some(())).is_some());
    // It is the same authority when it starts again.
    let again = portcullis_tests::process::run(
        Command::new(PORTCULLIS)
            .args(["dev", "--once", "--listen", "127.0.0.1:0"])
            .current_dir(&folder),
        LIMIT,
    )
    .unwrap();
    assert!(again.status.success(), "{again:?}");
}

#[test]
fn a_dev_that_is_killed_takes_its_services_along() {
    let folder = run_folder("dev-services-killed");
    let mut daemon = plain(&folder, &[]);
    wait_for(&mut daemon, &folder, "Ctrl-C ends");
    let programs = folder.canonicalize().unwrap();
    assert_eq!(running_in(&programs), 3);
    daemon.kill_alone();
    assert!(poll(LIMIT, || (running_in(&programs) == 0).then_some(())).is_some());
}

#[test]
fn a_folder_too_deep_for_a_socket_has_it_elsewhere() {
    let folder = run_folder("dev-deep").join("d".repeat(90));
    fs::create_dir_all(&folder).unwrap();
    let output = portcullis_tests::process::run(
        Command::new(PORTCULLIS)
            .args(["dev", "--once", "--listen", "127.0.0.1:0"])
            .current_dir(&folder),
        LIMIT,
    )
    .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("frontend -> catalog  GET /books/moby-dick  ALLOW"),
        "{said}"
    );
    let line = said
        .lines()
        .find(|line| line.contains("identity  SVIDs"))
        .unwrap();
    let socket = Path::new(line.rsplit(' ').next().unwrap());
    assert!(socket.is_absolute(), "{line}");
    assert!(
        !socket.parent().unwrap().exists(),
        "it is tidied up: {line}"
    );
}
