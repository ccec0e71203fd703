//! What no proxy sends: a denial with its reason, a 4xx, or a closed connection; never an allow, a hang or a panic.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use portcullis_tests::component::run_folder;
use portcullis_tests::portcullis::Server;
use portcullis_tests::ports::free_address;
use serde_json::{Value, json};

use crate::stage::{PORTCULLIS, WEB};

const LIMIT: Duration = Duration::from_secs(20);

struct Endpoint {
    server: Server,
    management: SocketAddr,
    decisions: std::path::PathBuf,
    nginx: SocketAddr,
    envoy: SocketAddr,
    socket: std::path::PathBuf,
}

fn start(name: &str, limits: &Value) -> Endpoint {
    let folder = run_folder(name);
    let (nginx, envoy) = (free_address().unwrap(), free_address().unwrap());
    // The path of a socket must be short.
    let socket = std::env::temp_dir().join(format!("{name}-{}.sock", std::process::id()));
    let uid = rustix::process::getuid().as_raw();
    let identity = json!({ "source": "certificate", "header": "x-client-cert" });
    let management = free_address().unwrap();
    let decisions = folder.join("decisions.jsonl");
    let _ = std::fs::remove_file(&decisions);
    let config = json!({
        "limits": limits,
        "management": { "address": management.to_string() },
        "decision_log": { "output": "file", "file": decisions },
        "default_workload": "shop/web",
        "listeners": [
            { "address": nginx.to_string(), "dialect": "nginx", "debug_headers": true,
              "identity": identity, "trusted_peers": ["127.0.0.1"] },
            { "address": envoy.to_string(), "dialect": "envoy-http", "path_prefix": "/authz", "debug_headers": true },
            { "address": format!("unix:{}", socket.display()), "dialect": "nginx", "debug_headers": true,
              "identity": { "source": "xfcc" }, "trusted_peers": [format!("uid:{uid}")] },
        ],
    });
    let policies = r#"{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: admin, namespace: shop },
        spec: { action: DENY, rules: [ { to: [ { operation: { paths: [ /admin* ] } } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: some, namespace: shop },
  spec: { rules: [ { to: [ { operation: { notPaths: [ /alice ] } } ] },
                   { from: [ { source: { principals: [ cluster.local/ns/shop/sa/alice ] } } ] } ] } }"#;
    let manifests = [("web.yaml", WEB), ("policies.yaml", policies)];
    let server = Server::start(PORTCULLIS.as_ref(), &folder, &manifests, &config)
        .unwrap_or_else(|cause| panic!("{cause}"));
    Endpoint {
        server,
        management,
        decisions,
        nginx,
        envoy,
        socket,
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Writes `octets`, waits until the other side closes, and returns all it said.
fn converse(mut stream: TcpStream, octets: &[u8]) -> String {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // A server that refuses early may reset what is still being written.
    let _ = stream.write_all(octets);
    read_all(&mut stream)
}

fn read_all(stream: &mut impl io::Read) -> String {
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => said.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("it hangs: {said:?}"),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

pub fn ask(address: SocketAddr, octets: impl AsRef<[u8]>) -> String {
    converse(TcpStream::connect(address).unwrap(), octets.as_ref())
}

/// Status of each answer in what was said.
pub fn statuses(said: &str) -> Vec<&str> {
    said.split("HTTP/1.")
        .skip(1)
        .map(|answer| answer.split(' ').nth(1).unwrap_or(""))
        .collect()
}

pub const CLOSE: &str = "Connection: close\r\n\r\n";

fn nginx(path: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: shop.example\r\nX-Original-Method: GET\r\nX-Original-URI: {path}\r\n"
    )
}

#[test]
fn nothing_malformed_is_an_allow() {
    let endpoint = start("http-malformed", &json!({ "header_bytes": 16384 }));
    let good = ask(endpoint.nginx, nginx("/a") + CLOSE);
    assert_eq!(statuses(&good), ["200"], "{good}");
    let of_nginx: Vec<Vec<u8>> = [
        // Hosts.
        "GET / HTTP/1.1\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\n",
        "GET / HTTP/1.1\r\nHost:\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\n",
        "GET / HTTP/1.0\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\n",
        // Targets.
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: *\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a b\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\x7f\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /%00\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: http://b/a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: ftp://a/a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\nX-Original-URI: /b\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI:\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method:\r\nX-Original-URI: /a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-URI: /a\r\n",
        // Another dialect, alone and beside ours.
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Uri: /a\r\nX-Forwarded-Host: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\nX-Forwarded-Uri: /a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\nX-Original-URL: http://a/a\r\n",
        // Identities.
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\nX-Client-Cert: nonsense\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\nX-Client-Cert: a\r\nX-Client-Cert: b\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\nX-Forwarded-Client-Cert: URI=spiffe://a/b\r\n",
        // Addresses.
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\nX-Forwarded-For: nobody\r\n",
        // What is no HTTP/1.
        "GET / HTTP/1.1\r\n folded\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\n /b\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\n",
        "GET / HTTP/0.9\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\n",
        "GET /\r\n",
        "GET  /  HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\nX-Original-Method: GET\r\nX-Original-URI: /a\r\n",
        "PRI * HTTP/2.0\r\n",
    ]
    .into_iter()
    .map(|head| (head.to_owned() + CLOSE).into_bytes())
    .chain([
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(30),
        b"\0\r\n\r\n".to_vec(),
        (nginx("/\u{e9}") + CLOSE).into_bytes(),
        [b"GET / HTTP/1.1\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: /\xff\r\n", CLOSE.as_bytes()].concat(),
        (nginx("/a") + &format!("X-Long: {}\r\n", "a".repeat(20_000)) + CLOSE).into_bytes(),
        (nginx("/a") + &"X-Many: a\r\n".repeat(300) + CLOSE).into_bytes(),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n", "a".repeat(70_000)) + CLOSE).into_bytes(),
        (nginx("/a") + &format!("X-Client-Cert: {}\r\n", "%41".repeat(4_000)) + CLOSE).into_bytes(),
        (nginx("/a") + &format!("X-Client-Cert: {}\r\n", "MII".repeat(4_000)) + CLOSE).into_bytes(),
    ])
    .collect();
    for octets in &of_nginx {
        let said = ask(endpoint.nginx, octets);
        let shown = String::from_utf8_lossy(octets);
        let shown = &shown[..shown.len().min(200)];
        for status in statuses(&said) {
            assert!(status.starts_with('4'), "{shown}\n{said}");
            if status == "403" {
                let named = ["invalid_request", "ambiguous_identity"]
                    .iter()
                    .any(|reason| said.contains(&format!("x-portcullis-reason: {reason}\r\n")));
                assert!(named, "{shown}\n{said}");
            }
        }
    }
    for head in [
        "GET /authz/a HTTP/1.1\r\n",
        "GET /authz/a HTTP/1.1\r\nHost:\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\n",
        "GET http://a/authz/a HTTP/1.1\r\nHost: a\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n",
        "GET /authz HTTP/1.1\r\nHost: a\r\n",
        "GET /authz/a HTTP/1.1\r\nHost: a\r\nX-Original-URI: /a\r\n",
    ] {
        let said = ask(endpoint.envoy, head.to_owned() + CLOSE);
        assert!(
            statuses(&said).iter().all(|status| status.starts_with('4')),
            "{head}{said}"
        );
    }
    // After all that it still decides.
    assert_eq!(statuses(&ask(endpoint.nginx, nginx("/a") + CLOSE)), ["200"]);
    assert_eq!(
        statuses(&ask(endpoint.nginx, nginx("/admin") + CLOSE)),
        ["403"]
    );
    assert!(!endpoint.server.log_end().contains("panicked"));
}

#[test]
fn what_is_no_request_is_a_denial_that_is_counted_and_logged() {
    let limits = json!({ "header_bytes": 16384, "header_timeout": "400ms" });
    let endpoint = start("http-counted", &limits);
    let refused = |reason: &str| -> u64 {
        let exchange = portcullis_tests::client::Exchange::get("/metrics");
        let client = portcullis_tests::client::Client::plain(endpoint.management);
        let text = client.send(&exchange).unwrap().body;
        let lines = text.lines().filter(|line| {
            line.starts_with("portcullis_authz_decisions_total{")
                && line.contains(&format!("reason=\"{reason}\""))
        });
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        values.sum()
    };
    assert_eq!((refused("invalid_request"), refused("deadline")), (0, 0));
    let long = nginx("/a") + &format!("X-Long: {}\r\n", "a".repeat(20_000)) + CLOSE;
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n", "a".repeat(70_000)) + CLOSE;
    for (octets, status) in [
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), "400"),
        (long, "431"),
        (target, "4"),
    ] {
        let said = ask(endpoint.nginx, &octets);
        assert!(statuses(&said)[0].starts_with(status), "{said}");
    }
    // Half a request; a connection that says nothing, or leaves, is none.
    assert_eq!(statuses(&ask(endpoint.nginx, nginx("/a"))), [""; 0]);
    drop(TcpStream::connect(endpoint.nginx).unwrap());
    let counted = portcullis_tests::process::poll(LIMIT, || {
        let counted = (refused("invalid_request"), refused("deadline"));
        (counted == (3, 1)).then_some(())
    });
    let seen = (refused("invalid_request"), refused("deadline"));
    assert!(counted.is_some(), "{seen:?}");
    let logged = portcullis_tests::process::poll(LIMIT, || {
        let text = std::fs::read_to_string(&endpoint.decisions).ok()?;
        let named = |reason: &str| text.matches(&format!("\"reason\":\"{reason}\"")).count();
        (named("invalid_request") == 3 && named("deadline") == 1).then_some(())
    });
    assert!(logged.is_some());
}

#[test]
fn old_and_unusual_but_whole_requests_are_decided() {
    let endpoint = start("http-unusual", &json!({}));
    let old = |path: &str| {
        format!(
            "GET / HTTP/1.0\r\nHost: a\r\nX-Original-Method: GET\r\nX-Original-URI: {path}\r\n\r\n"
        )
    };
    assert_eq!(statuses(&ask(endpoint.nginx, old("/a"))), ["200"]);
    assert_eq!(statuses(&ask(endpoint.nginx, old("/a/../admin"))), ["403"]);
    let absolute = nginx("http://shop.example/admin") + CLOSE;
    assert_eq!(statuses(&ask(endpoint.nginx, absolute)), ["403"]);
    let absolute = nginx("http://shop.example/a") + CLOSE;
    assert_eq!(statuses(&ask(endpoint.nginx, absolute)), ["200"]);
    // A body is nobody's business.
    let with_body =
        nginx("/admin").replace("GET / ", "POST / ") + "Content-Length: 5\r\n" + CLOSE + "/a/ok";
    assert_eq!(statuses(&ask(endpoint.nginx, with_body)), ["403"]);
    let chunked = nginx("/a").replace("GET / ", "POST / ")
        + "Transfer-Encoding: chunked\r\n"
        + CLOSE
        + "5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(statuses(&ask(endpoint.nginx, chunked)), ["200"]);
    // Pipelined, each gets its own answer, in order.
    let pages = ["/a", "/admin", "/b", "/admin/x", "/c"];
    let mut pipelined: String = pages.iter().map(|path| nginx(path) + "\r\n").collect();
    pipelined += &(nginx("/admin") + CLOSE);
    let said = ask(endpoint.nginx, pipelined);
    assert_eq!(statuses(&said), ["200", "403", "200", "403", "200", "403"]);
    let said = ask(
        endpoint.envoy,
        "GET /authz/a/../admin HTTP/1.1\r\nHost: a\r\n".to_owned() + CLOSE,
    );
    assert_eq!(statuses(&said), ["403"], "{said}");
}

#[test]
fn a_unix_sockets_peer_is_known_by_its_user() {
    let endpoint = start("http-unix", &json!({}));
    let alice = "X-Forwarded-Client-Cert: URI=spiffe://cluster.local/ns/shop/sa/alice\r\n";
    for (more, expected) in [(alice, "200"), ("", "403")] {
        let mut stream = UnixStream::connect(&endpoint.socket).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let head = nginx("/alice") + "X-Forwarded-For: 192.0.2.1\r\n" + more + CLOSE;
        stream.write_all(head.as_bytes()).unwrap();
        let said = read_all(&mut stream);
        assert_eq!(statuses(&said), [expected], "{said}");
    }
}

#[test]
fn nobody_holds_a_connection_for_nothing() {
    let limits = json!({ "header_timeout": "600ms", "idle_timeout": "1500ms" });
    let endpoint = start("http-slow", &limits);
    // One octet after another: the clock does not begin anew with each.
    let start = Instant::now();
    let mut slow = TcpStream::connect(endpoint.nginx).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let head = nginx("/a") + &format!("X-Slow: {}\r\n", "a".repeat(2000)) + CLOSE;
    let mut closed = false;
    let mut said = Vec::new();
    for octet in head.as_bytes() {
        let mut piece = [0; 512];
        match slow.read(&mut piece) {
            Ok(0) => closed = true,
            Ok(read) => said.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => closed = true,
        }
        if closed || slow.write_all(&[*octet]).is_err() {
            closed = true;
            break;
        }
        assert!(start.elapsed() < LIMIT);
    }
    assert!(closed, "{}", String::from_utf8_lossy(&said));
    assert!(!String::from_utf8_lossy(&said).contains(" 200 "));
    assert!(start.elapsed() > Duration::from_millis(500));
    // Half a request, and silence; the whole first request before it changes nothing.
    for before in ["", "\r\n"] {
        let whole = if before.is_empty() {
            String::new()
        } else {
            nginx("/a") + "\r\n"
        };
        let start = Instant::now();
        let said = ask(endpoint.nginx, whole.clone() + &nginx("/a"));
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
        assert!(
            statuses(&said).len() <= usize::from(!whole.is_empty()) + 1,
            "{said}"
        );
    }
    // Nothing at all.
    let start = Instant::now();
    assert_eq!(ask(endpoint.nginx, ""), "");
    assert!(
        start.elapsed() > Duration::from_millis(1200),
        "{:?}",
        start.elapsed()
    );
    // Many at once do not keep others out.
    let idle: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(endpoint.nginx).unwrap();
            stream.write_all(b"GET / HT").unwrap();
            stream
        })
        .collect();
    assert_eq!(statuses(&ask(endpoint.nginx, nginx("/a") + CLOSE)), ["200"]);
    drop(idle);
    // A connection that is used stays.
    let mut kept = TcpStream::connect(endpoint.nginx).unwrap();
    kept.set_read_timeout(Some(LIMIT)).unwrap();
    for _ in 0..4 {
        kept.write_all((nginx("/a") + "\r\n").as_bytes()).unwrap();
        let mut piece = [0; 4096];
        let read = kept.read(&mut piece).unwrap();
        assert!(String::from_utf8_lossy(&piece[..read]).starts_with("HTTP/1.1 200 "));
        std::thread::sleep(Duration::from_millis(800));
    }
}
