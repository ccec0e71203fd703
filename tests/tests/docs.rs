//! Every command shown in README.md and docs/tasks runs, and prints what the page says.
//!
//! A page is run from top to bottom in a folder of its own: blocks with `file=PATH` are written there, `console` blocks
//! are executed. Ports are exchanged for free ones. `UPDATE_DOCS=1` writes what was printed into the page.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use portcullis_tests::component::{self, require, run_folder, workspace};
use portcullis_tests::kube_api::KubeApi;
use portcullis_tests::ports::free_address;
use portcullis_tests::process::{self, Daemon};
use regex::Regex;

const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");

/// The example of `portcullis-mtls`.
const HELLO: &str = env!("CARGO_BIN_EXE_hello");

/// How long a command may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The ports that the pages name.
const PORTS: [&str; 3] = ["9191", "10000", "9192"];

/// A page while it is run.
struct Page {
    folder: PathBuf,
    path: std::ffi::OsString,
    /// The ports that stand in for [`PORTS`].
    ports: [String; 3],
    daemons: Vec<Daemon>,
    /// The cluster that it speaks to.
    kubeconfig: Option<PathBuf>,
}

#[test]
fn readme() {
    check("README.md", &[]);
}

#[test]
fn judging_changes_as_they_are_applied() {
    check("docs/tasks/admission.md", &[]);
}

#[test]
fn checking_in_ci() {
    check("docs/tasks/ci.md", &[]);
}

#[test]
fn trying_a_candidate() {
    check("docs/tasks/candidate.md", &[]);
}

#[test]
fn asking_the_cluster() {
    check_in_cluster("docs/tasks/kubectl.md");
}

#[test]
fn testing_policies() {
    check("docs/tasks/test.md", &[]);
}

#[test]
fn explaining_a_denial() {
    check("docs/tasks/explain.md", &[]);
}

#[test]
fn verifying_tokens() {
    check("docs/tasks/tokens.md", &[]);
}

#[test]
fn asking_another_authorizer() {
    check("docs/tasks/custom.md", &[]);
}

#[test]
fn seeing_what_is_decided() {
    check("docs/tasks/observe.md", &[]);
}

#[test]
fn standing_behind_envoy() {
    if let Some(envoy) = require(component::envoy()) {
        check("docs/tasks/envoy.md", &[envoy]);
    }
}

#[test]
fn standing_behind_other_proxies() {
    check("docs/tasks/proxies.md", &[]);
}

#[test]
fn installing_it_in_a_cluster() {
    check_in_cluster("docs/tasks/helm.md");
}

#[test]
fn standing_behind_proxies_of_a_cluster() {
    check("docs/tasks/cluster-proxies.md", &[]);
}

#[test]
fn giving_workloads_an_identity() {
    check("docs/tasks/identities.md", &[]);
}

#[test]
fn giving_pods_an_identity() {
    check("docs/tasks/kubernetes-identities.md", &[]);
}

#[test]
fn seeing_identities_issued() {
    check("docs/tasks/observe-ca.md", &[]);
}

#[test]
fn revoking_an_identity() {
    check("docs/tasks/revocation.md", &[]);
}

#[test]
fn trusting_another_trust_domain() {
    check("docs/tasks/federation.md", &[]);
}

#[test]
fn connecting_rust_services() {
    let page = fs::read_to_string(workspace().join("docs/tasks/rust.md")).unwrap();
    let example = fs::read_to_string(workspace().join("mtls/examples/hello.rs")).unwrap();
    assert!(
        page.contains(&format!("```rust\n{example}```\n")),
        "the page shows the example as it is"
    );
    check("docs/tasks/rust.md", &[PathBuf::from(HELLO)]);
}

#[test]
fn running_in_production() {
    check("docs/tasks/production.md", &[]);
}

#[test]
fn following_an_api_server() {
    check("docs/tasks/kubernetes.md", &[]);
}

#[test]
fn every_page_is_run() {
    let pages = fs::read_dir(workspace().join("docs/tasks")).unwrap();
    let mut names: Vec<_> = pages
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "admission.md",
            "candidate.md",
            "ci.md",
            "cluster-proxies.md",
            "custom.md",
            "envoy.md",
            "explain.md",
            "federation.md",
            "helm.md",
            "identities.md",
            "kubectl.md",
            "kubernetes-identities.md",
            "kubernetes.md",
            "observe-ca.md",
            "observe.md",
            "production.md",
            "proxies.md",
            "revocation.md",
            "rust.md",
            "test.md",
            "tokens.md"
        ]
    );
}

/// Runs a page with helm and kubectl, which speak to a real API server; there are no nodes, so no pod ever runs.
fn check_in_cluster(page: &str) {
    let (Some(server), Some(helm), Some(kubectl)) = (
        require(component::kube_api()),
        require(component::helm()),
        require(component::kubectl()),
    ) else {
        return;
    };
    let folder = run_folder(&format!("docs-api-{}", page.replace(['/', '.'], "-")));
    let server = KubeApi::start(&server, &folder).unwrap_or_else(|cause| panic!("{cause}"));
    check_with(
        page,
        &[helm, kubectl.executable],
        Some(&server.kubeconfig()),
    );
}

/// Runs a page with `tools` on its PATH.
fn check(page: &str, tools: &[PathBuf]) {
    check_with(page, tools, None);
}

fn check_with(page: &str, tools: &[PathBuf], kubeconfig: Option<&Path>) {
    let file = workspace().join(page);
    let written = fs::read_to_string(&file).unwrap();
    let folder = run_folder(&format!("docs-{}", page.replace(['/', '.'], "-")));
    let mut run = Page::new(&folder, tools);
    run.kubeconfig = kubeconfig.map(Path::to_owned);
    let printed = run.page(&written);
    drop(run);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &printed).unwrap();
        return;
    }
    assert!(
        written == printed,
        "{page} does not show what its commands print: run `UPDATE_DOCS=1 cargo test -p portcullis-tests --test docs` \
         and read the difference\n{}",
        difference(&written, &printed)
    );
}

impl Page {
    fn new(folder: &Path, tools: &[PathBuf]) -> Self {
        let bin = folder.join("bin");
        let work = folder.join("work");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&work).unwrap();
        std::os::unix::fs::symlink(PORTCULLIS, bin.join("portcullis")).unwrap();
        // What the page pipes in comes from its own manifests.
        write_script(&bin.join("kustomize"), "cat manifests/*.yaml");
        // Pages speak of it as of a folder beside them.
        std::os::unix::fs::symlink(workspace().join("deploy"), work.join("deploy")).unwrap();
        for tool in tools {
            std::os::unix::fs::symlink(tool, bin.join(tool.file_name().unwrap())).unwrap();
        }
        let mut path = bin.into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        Self {
            folder: work,
            path,
            ports: PORTS.map(|_| free_port()),
            daemons: Vec::new(),
            kubeconfig: None,
        }
    }

    /// The page with what its commands really print.
    fn page(&mut self, text: &str) -> String {
        let mut printed = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            printed.push_str(line);
            printed.push('\n');
            let Some(info) = line.strip_prefix("```") else {
                continue;
            };
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if info == "console" {
                printed.push_str(&self.console(&block));
            } else {
                let body = block.join("\n") + "\n";
                if let Some((_, path)) = info.split_once("file=") {
                    let path = self.folder.join(path);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, self.with_free_ports(&body)).unwrap();
                }
                printed.push_str(&body);
            }
            printed.push_str("```\n");
        }
        printed
    }

    fn console(&mut self, block: &[&str]) -> String {
        let mut printed = String::new();
        let mut status = 0;
        let mut lines = block.iter().peekable();
        while let Some(line) = lines.next() {
            let command = line
                .strip_prefix("$ ")
                .unwrap_or_else(|| panic!("no command: {line}"));
            let mut shown = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
                shown.push(*line);
            }
            let output = self.run(&command.replace("$?", &status.to_string()), &mut status);
            printed.push_str(&format!("$ {command}\n"));
            if shown.is_empty() {
                continue;
            }
            // A block that ends in dots shows the beginning.
            if shown.last() == Some(&"...") {
                for line in output.lines().take(shown.len() - 1) {
                    printed.push_str(line);
                    printed.push('\n');
                }
                printed.push_str("...\n");
            } else {
                printed.push_str(&output);
            }
        }
        printed
    }

    /// Runs one command and gives what it printed, the ports as the page has them.
    fn run(&mut self, command: &str, status: &mut i32) -> String {
        if command == "cargo test --workspace" {
            let gates = fs::read_to_string(workspace().join(".ci/run")).unwrap();
            assert!(
                gates.contains("gate cargo test --workspace\n"),
                "the gates run this command"
            );
            return String::new();
        }
        let command = command.replace("cargo run --release --", "portcullis");
        let command = self.with_free_ports(&command);
        let output = if let Some(command) = command.strip_suffix(" &") {
            self.start(command);
            String::new()
        } else if command == "portcullis dev" {
            self.until(&command, "Ctrl-C ends")
        } else {
            let output = process::run(&mut self.bash(&command), LIMIT).unwrap();
            *status = output.status.code().unwrap();
            let printed = String::from_utf8(output.stdout).unwrap()
                + &String::from_utf8(output.stderr).unwrap();
            // HTTP ends its lines so, a page does not.
            printed.replace("\r\n", "\n")
        };
        // A revision names the content; a page shows one of them.
        let output = Regex::new(r"\b[0-9a-f]{16}\b")
            .unwrap()
            .replace_all(&output, "5c1f0a9be2d47710")
            .into_owned();
        PORTS
            .iter()
            .zip(&self.ports)
            .fold(output, |text, (shown, real)| {
                text.replace(&format!(":{real}"), &format!(":{shown}"))
                    .replace(
                        &format!("port_value: {real}"),
                        &format!("port_value: {shown}"),
                    )
            })
    }

    /// Runs a command that stays up until it has said `last`.
    fn until(&mut self, command: &str, last: &str) -> String {
        let log = self.folder.join("daemon.log");
        let mut daemon = Daemon::start(&mut self.bash(command), &log).unwrap();
        let said = || fs::read_to_string(&log).unwrap_or_default();
        daemon.wait_until(LIMIT, || said().contains(last)).unwrap();
        assert!(daemon.terminate(LIMIT).unwrap().unwrap().success());
        said()
    }

    /// Starts a server that stays up until the page's end.
    fn start(&mut self, command: &str) {
        let log = self
            .folder
            .join(format!("daemon-{}.log", self.daemons.len()));
        let port = &self.ports[self.daemons.len()];
        let mut daemon = Daemon::start(&mut self.bash(command), &log).unwrap();
        let address = format!("127.0.0.1:{port}");
        // A certificate authority without an address has its sockets in its data folder.
        let data = command.strip_prefix("portcullis ca serve --data ");
        let data = data.and_then(|rest| rest.split(' ').next());
        let socket = data.map(|data| self.folder.join(data).join("workload.sock"));
        daemon
            .wait_until(LIMIT, || match &socket {
                Some(socket) => UnixStream::connect(socket).is_ok(),
                None => TcpStream::connect(&address).is_ok(),
            })
            .unwrap();
        self.daemons.push(daemon);
    }

    fn bash(&self, command: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.args(["-c", command])
            .current_dir(&self.folder)
            .env("PATH", &self.path);
        bash.env("PORTCULLIS_LISTEN", format!("127.0.0.1:{}", self.ports[0]));
        bash.env_remove("PORTCULLIS_CONFIG")
            .env_remove("PORTCULLIS_POLICIES");
        match &self.kubeconfig {
            Some(kubeconfig) => bash.env("KUBECONFIG", kubeconfig),
            None => bash.env_remove("KUBECONFIG"),
        };
        // What helm and kubectl keep is the page's own, too.
        bash.env("HOME", &self.folder);
        bash
    }

    fn with_free_ports(&self, text: &str) -> String {
        PORTS
            .iter()
            .zip(&self.ports)
            .fold(text.to_owned(), |text, (shown, real)| {
                text.replace(shown, real)
            })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            daemon.kill();
        }
    }
}

fn write_script(path: &Path, command: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, format!("#!/bin/sh\n{command}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn free_port() -> String {
    free_address().unwrap().port().to_string()
}

/// The first lines that differ.
fn difference(written: &str, printed: &str) -> String {
    let pairs = written.lines().zip(printed.lines());
    let differing = pairs
        .filter(|(written, printed)| written != printed)
        .take(3);
    let lines: Vec<String> = differing
        .map(|(written, printed)| format!("- {written}\n+ {printed}"))
        .collect();
    lines.join("\n")
}
