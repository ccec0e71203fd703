//! The Envoy configurations that we ship: accepted by a real Envoy, and they carry the facts that they promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what is wrong by failing"
)]

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use portcullis_authz::facts;
use portcullis_policy::request::{RemoteAddress, Request, Target};
use portcullis_tests::authority::{Authority, Names};
use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::component::{self, envoy, run_folder, workspace};
use portcullis_tests::echo::Echo;
use portcullis_tests::ports::free_address;
use portcullis_tests::process::{Daemon, run};
use portcullis_tests::stub::{Asked, Stub};

const PATIENCE: Duration = Duration::from_secs(60);

fn snippets() -> Vec<PathBuf> {
    let folder = workspace().join("deploy/proxies/envoy");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_snippet_is_accepted_and_closed() {
    let files = snippets();
    assert!(files.len() >= 4, "{files:?}");
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        assert!(
            !text.contains("failure_mode_allow: true"),
            "{}",
            file.display()
        );
        assert!(
            text.contains("failure_mode_allow: false"),
            "{}",
            file.display()
        );
    }
    let Some(envoy) = component::require(envoy()) else {
        return;
    };
    // Certificates in files are read, so there must be some.
    let folder = run_folder("snippets-accepted");
    let authority = Authority::new().unwrap();
    let leaf = authority.leaf(&Names::spiffe("spiffe://a/b")).unwrap();
    for (name, text) in [
        ("tls.crt", &leaf.certificate),
        ("tls.key", &leaf.key),
        ("clients.crt", &authority.certificate().to_owned()),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let placed = folder.join(file.file_name().unwrap());
        let here = folder.display().to_string();
        fs::write(&placed, text.replace("/etc/portcullis/proxy", &here)).unwrap();
        let mut command = Command::new(&envoy);
        command
            .args(["--mode", "validate", "--use-dynamic-base-id", "-c"])
            .arg(&placed);
        let output = run(&mut command, PATIENCE).unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {log}", file.display());
    }
}

/// A snippet with its addresses replaced by those of the test, running.
struct Running {
    _envoy: Daemon,
    address: SocketAddr,
    stub: Stub,
    _workload: Echo,
}

fn start(envoy: &Path, snippet: &str, listens: u16, workload: u16) -> Running {
    let stub = Stub::start().unwrap();
    let echo = Echo::start().unwrap();
    let free = free_address().unwrap();
    let file = workspace().join("deploy/proxies/envoy").join(snippet);
    let text = fs::read_to_string(file)
        .unwrap()
        .replace("address: 0.0.0.0,", "address: 127.0.0.1,")
        .replace(
            &format!("port_value: {listens} "),
            &format!("port_value: {} ", free.port()),
        )
        .replace(
            "port_value: 9191 ",
            &format!("port_value: {} ", stub.address.port()),
        )
        .replace(
            &format!("port_value: {workload} "),
            &format!("port_value: {} ", echo.address.port()),
        )
        // A busy machine must not turn into denials here.
        .replace("timeout: 0.25s", "timeout: 10s");
    let folder = run_folder(&format!("snippet-{snippet}"));
    let config = folder.join("envoy.yaml");
    fs::write(&config, text).unwrap();
    let mut command = Command::new(envoy);
    command
        .args(["--concurrency", "1", "--use-dynamic-base-id", "-c"])
        .arg(config);
    let mut daemon = Daemon::start(&mut command, &folder.join("envoy.log")).unwrap();
    let ready = || TcpStream::connect(free).is_ok();
    daemon
        .wait_until(PATIENCE, ready)
        .unwrap_or_else(|cause| panic!("{cause}"));
    Running {
        _envoy: daemon,
        address: free,
        stub,
        _workload: echo,
    }
}

fn facts(asked: Asked) -> Request {
    facts::request(asked.request, &asked.metadata, &facts::Options::default()).unwrap()
}

#[test]
fn the_http_snippet_carries_workload_target_and_addresses() {
    let Some(envoy) = component::require(envoy()) else {
        return;
    };
    let running = start(&envoy, "http.yaml", 10000, 8080);
    let mut client = Client::plain(running.address);
    client.source = Some("127.1.2.3".parse().unwrap());
    let exchange = Exchange::get("/a/../b?q")
        .header("x-forwarded-for", "203.0.113.1, 203.0.113.2")
        .header("x-portcullis-decision", "allow")
        .header("x-tag", "one")
        .header("x-tag", "two");
    // What the workload, which only echoes, makes of it does not matter here.
    let _ = client.send(&exchange);
    let request = facts(running.stub.asked().pop().unwrap());
    assert_eq!(request.destination.workload.as_deref(), Some("shop/web"));
    assert_eq!(request.target, Some(Target::Sidecar));
    assert_eq!(request.source.address, Some("127.1.2.3".parse().unwrap()));
    // Whatever the client wrote.
    let client = RemoteAddress::Known("127.1.2.3".parse().unwrap());
    assert_eq!(request.remote, client);
    let http = request.http.unwrap();
    assert_eq!(http.path, "/b?q");
    let tags: Vec<_> = http
        .headers
        .entries
        .iter()
        .filter(|(name, _)| name == "x-tag")
        .collect();
    assert_eq!(tags.len(), 2);
    assert!(
        !http
            .headers
            .entries
            .iter()
            .any(|(name, _)| name.starts_with("x-portcullis"))
    );
}

#[test]
fn the_gateway_snippet_trusts_one_proxy() {
    let Some(envoy) = component::require(envoy()) else {
        return;
    };
    let running = start(&envoy, "gateway.yaml", 10080, 8080);
    let mut client = Client::plain(running.address);
    client.source = Some("127.1.2.3".parse().unwrap());
    let exchange = Exchange::get("/").header("x-forwarded-for", "203.0.113.1, 203.0.113.2");
    let _ = client.send(&exchange);
    let asked = running.stub.asked().pop().unwrap();
    let last = RemoteAddress::Known("203.0.113.2".parse().unwrap());

    // Counting the header ourselves gives what Envoy states.
    let mut uncounted = asked.clone();
    uncounted.metadata.remove("x-portcullis-remote-address");
    let options = facts::Options {
        num_trusted_proxies: Some(1),
        ..facts::Options::default()
    };
    let counted = facts::request(uncounted.request, &uncounted.metadata, &options).unwrap();
    assert_eq!(counted.remote, last);

    let request = facts(asked);
    assert_eq!(request.remote, last);
    assert_eq!(request.target, Some(Target::Gateway));
    assert_eq!(
        request.destination.workload.as_deref(),
        Some("istio-system/ingress")
    );
}

#[test]
fn the_tcp_snippet_carries_its_facts_as_metadata() {
    let Some(envoy) = component::require(envoy()) else {
        return;
    };
    let running = start(&envoy, "tcp.yaml", 15432, 5432);
    let mut client = Client::plain(running.address);
    client.source = Some("127.1.2.3".parse().unwrap());
    assert_eq!(client.echo("hello").unwrap(), "hello");
    // The probe that waited for the listener was asked about, too; it came from another address.
    let mut requests = running.stub.asked().into_iter().map(facts);
    let ours = |request: &Request| request.source.address == Some("127.1.2.3".parse().unwrap());
    let request = requests.find(ours).unwrap();
    assert!(request.http.is_none());
    assert_eq!(request.destination.workload.as_deref(), Some("shop/db"));
    assert_eq!(request.target, Some(Target::Sidecar));
    let peer = RemoteAddress::Known("127.1.2.3".parse().unwrap());
    assert_eq!(request.remote, peer);
    assert_eq!(request.destination.port, Some(running.address.port()));
}
