//! `authz serve` under a supervisor: systemd's notifications and sockets, reload and stop by signal.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::{check_request, client};

use super::run::{Folder, WEB, request, wait};

const PATIENCE: Duration = Duration::from_secs(30);

/// A process whose log is read; killed when the test ends.
struct Supervised {
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Supervised {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, log }
    }

    /// Waits for the log line with this in it.
    fn logged(&self, words: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("no `{words}` in the log: {error}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(kill.success());
    }
}

fn ask(endpoint: &Endpoint, path: &str) -> i32 {
    let check = check_request::from_json(request(path).trim().as_bytes()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer = runtime.block_on(client::check(endpoint, check));
    answer.unwrap().status.unwrap().code
}

/// The socket of the service manager.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// The next message that has `words`.
    fn told(&self, words: &str) -> String {
        let mut octets = [0; 4096];
        loop {
            let read = self.socket.recv(&mut octets);
            let read = read.unwrap_or_else(|error| panic!("`{words}` is not told: {error}"));
            let message = String::from_utf8_lossy(&octets[..read]).into_owned();
            if message.contains(words) {
                return message;
            }
        }
    }
}

const CONFIG: &str = "policies: [web.yaml]\nlisteners: [{address: 127.0.0.1:0}]\nreload: {poll: 60s, settle: 10s}\nlog: {format: json}\n";

#[test]
fn systemd_is_told_of_start_reload_stop_and_life() {
    let folder = Folder::new(&[("web.yaml", WEB), ("portcullis.yaml", CONFIG)]);
    let path = folder.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let manager = Manager { socket };
    let mut command = wrapped(&folder, "WATCHDOG_PID=$$ exec \"$0\" \"$@\"");
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000");
    let mut served = Supervised::start(command);
    let ready = manager.told("READY=1");
    assert!(ready.contains("STATUS=1 policies, revision "), "{ready}");
    let line: serde_json::Value = serde_json::from_str(&served.logged("\"listening\"")).unwrap();
    let endpoint: Endpoint = line["endpoint"].as_str().unwrap().parse().unwrap();
    assert_eq!(ask(&endpoint, "/private"), 7);
    manager.told("WATCHDOG=1");
    manager.told("WATCHDOG=1");

    // The notification of a change would wait for ten seconds; a signal does not.
    let start = Instant::now();
    folder.write("web.yaml", WEB.replace("/public", "/private").as_bytes());
    served.signal("-HUP");
    let reloading = manager.told("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.told("READY=1");
    assert!(
        start.elapsed() < Duration::from_secs(9),
        "{:?}",
        start.elapsed()
    );
    assert_ne!(ask(&endpoint, "/public/a"), 0);

    // What is refused keeps the old, and is told each time that somebody asks.
    folder.write("web.yaml", b"kind: [");
    for _ in 0..2 {
        served.signal("-HUP");
        manager.told("RELOADING=1");
        let refused = manager.told("READY=1");
        assert!(
            refused.contains("stays in force, the policies are refused"),
            "{refused}"
        );
        served.logged("policies refused");
        assert_ne!(ask(&endpoint, "/public/a"), 0);
    }
    served.signal("-TERM");
    manager.told("STOPPING=1");
    assert_eq!(wait(&mut served.child, PATIENCE), 0);
}

#[test]
fn it_is_not_ready_before_it_stops_and_a_second_signal_ends_it_at_once() {
    let config = format!(
        "{CONFIG}management: {{address: 127.0.0.1:0}}\nlimits: {{drain_delay: 2m, drain: 2m}}\n"
    );
    let folder = Folder::new(&[("web.yaml", WEB), ("portcullis.yaml", &config)]);
    let command = folder.command(&["authz", "serve", "--config", "portcullis.yaml"]);
    let mut served = Supervised::start(command);
    let address = |line: String| -> String {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        line["endpoint"].as_str().unwrap().to_owned()
    };
    let endpoint: Endpoint = address(served.logged("\"listening\"")).parse().unwrap();
    let management = address(served.logged("listening for operators"));
    let ready = || {
        let mut stream = TcpStream::connect(&management).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = "GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ready().starts_with("HTTP/1.1 200 "));
    served.signal("-TERM");
    served.logged("the listeners close soon");
    let answer = ready();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("the server is stopping"), "{answer}");
    // Who asks nevertheless is answered.
    assert_eq!(ask(&endpoint, "/public/a"), 0);
    served.signal("-TERM");
    assert_eq!(wait(&mut served.child, PATIENCE), 1);
    served.logged("a second signal ended the server");
}

/// The server, started by a shell: what systemd says of the process names its id.
fn wrapped(folder: &Folder, script: &str) -> Command {
    let serve = folder.command(&["authz", "serve", "--config", "portcullis.yaml"]);
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(serve.get_program())
        .args(serve.get_args())
        .current_dir(folder.path());
    command
}

/// Starts it with `socket` as the one that systemd hands over under the name `authz`.
fn activated(folder: &Folder, socket: OwnedFd) -> Supervised {
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let mut command = wrapped(folder, script);
    command
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "authz")
        .stdin(Stdio::from(socket));
    Supervised::start(command)
}

#[test]
fn sockets_that_systemd_opened_are_served() {
    let config = CONFIG.replace("127.0.0.1:0", "systemd:authz");
    let folder = Folder::new(&[("web.yaml", WEB), ("portcullis.yaml", &config)]);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Tcp(tcp.local_addr().unwrap());
    let mut served = activated(&folder, tcp.into());
    served.logged("\"listening\"");
    assert_eq!(ask(&endpoint, "/public/a"), 0);
    served.signal("-TERM");
    assert_eq!(wait(&mut served.child, PATIENCE), 0);

    let path = folder.path().join("authz.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let mut served = activated(&folder, unix.into());
    served.logged("\"listening\"");
    assert_eq!(ask(&Endpoint::Unix(path.clone()), "/private"), 7);
    served.signal("-TERM");
    assert_eq!(wait(&mut served.child, PATIENCE), 0);
    assert!(path.exists(), "the file is systemd's");
}

#[test]
fn a_socket_that_systemd_did_not_open_is_named() {
    let config = CONFIG.replace("127.0.0.1:0", "systemd:other");
    let folder = Folder::new(&[("web.yaml", WEB), ("portcullis.yaml", &config)]);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut served = activated(&folder, tcp.into());
    assert_eq!(wait(&mut served.child, PATIENCE), 1);
    let line = served.logged("systemd:other");
    assert!(line.contains("only `authz`"), "{line}");
    let outcome = folder.run(&["authz", "serve", "--config", "portcullis.yaml"]);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.stderr.contains("handed over no socket"),
        "{outcome:?}"
    );
}
