//! `authz serve` as a process: starts, answers, reloads, ends when told.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use portcullis_authz::check_request;
use portcullis_authz::client;
use portcullis_authz::endpoint::Endpoint;

use super::run::{Folder, WEB, request, wait};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server in a process of its own, killed when the test ends.
pub struct Serving {
    child: Child,
    log: mpsc::Receiver<String>,
    pub endpoint: Endpoint,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Serving {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut serving = Self {
            child,
            log,
            endpoint: Endpoint::Unix("nowhere".into()),
        };
        let listening = serving.logged("listening");
        serving.endpoint = listening["endpoint"].as_str().unwrap().parse().unwrap();
        serving
    }

    /// Waits for the log line with this message.
    fn logged(&self, message: &str) -> serde_json::Value {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                panic!("no `{message}` in the log: {error}");
            });
            let line: serde_json::Value = serde_json::from_str(&line).expect(&line);
            if line["message"] == message {
                return line;
            }
        }
    }

    pub fn ask(&self, path: &str) -> i32 {
        let check = check_request::from_json(request(path).trim().as_bytes()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let answer = runtime.block_on(client::check(&self.endpoint, check));
        answer.unwrap().status.unwrap().code
    }

    pub fn stop(mut self) -> i32 {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(kill.success());
        wait(&mut self.child, PATIENCE)
    }
}

#[test]
fn serves_by_flags_alone_and_ends_at_sigterm() {
    let folder = Folder::new(&[("web.yaml", WEB)]);
    let serving = Serving::start(folder.command(&[
        "authz",
        "serve",
        "--policies",
        "web.yaml",
        "--listen",
        "127.0.0.1:0",
    ]));
    assert_eq!(serving.ask("/public/a"), 0);
    assert_eq!(serving.ask("/private"), 7);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn serves_a_unix_socket_beside_its_configuration() {
    let folder = Folder::new(&[
        ("etc/web.yaml", WEB),
        (
            "etc/portcullis.yaml",
            "policies: [web.yaml]\nlisteners: [{address: \"unix:authz.sock\"}]\nlog: {format: json}\n",
        ),
    ]);
    let mut serving =
        Serving::start(folder.command(&["authz", "serve", "--config", "etc/portcullis.yaml"]));
    let Endpoint::Unix(path) = &serving.endpoint else {
        panic!("{:?}", serving.endpoint);
    };
    // Relative to the folder that the server was started in.
    let socket = folder.path().join(path);
    assert!(socket.ends_with("etc/authz.sock"));
    serving.endpoint = Endpoint::Unix(socket);
    assert_eq!(serving.ask("/public/a"), 0);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn an_address_that_is_taken_is_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = Folder::new(&[("web.yaml", WEB)]);
    let outcome = folder.run(&[
        "authz",
        "serve",
        "--policies",
        "web.yaml",
        "--listen",
        &address,
        "--log-level",
        "error",
    ]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome
            .stderr
            .starts_with(&format!("error: cannot listen on `{address}`: ")),
        "{outcome:?}"
    );
}
