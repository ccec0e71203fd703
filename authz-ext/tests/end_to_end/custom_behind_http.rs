//! CUSTOM providers that are asked about requests of proxies that normalise nothing.

use std::net::SocketAddr;
use std::time::Duration;

use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::http::{self, Dialect};
use portcullis_authz::reload::ReloadStatus;
use portcullis_authz::respond;
use portcullis_authz::server::{ListenerOptions, Protocol};
use portcullis_policy::settings::CustomProvider;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::custom_http::{http, http_provider};
use super::custom_provider::{policies, serve};
use super::support::*;

/// A server that nginx asks, whose provider fails open.
async fn behind_nginx(mut provider: Value, more: &str) -> (tempfile::TempDir, Running) {
    provider[0]["envoyExtAuthzHttp"]["failOpen"] = json!(true);
    provider[0]["envoyExtAuthzHttp"]["timeout"] = json!("1s");
    let mesh_and_policies = policies(&provider) + more;
    let folder = folder(&[
        ("inventory.yaml", INVENTORY),
        ("p.yaml", &mesh_and_policies),
    ]);
    let mut options = http::Options::new(Dialect::Nginx);
    options.workload = Some("foo/a".to_owned());
    let listener = ListenerOptions {
        protocol: Protocol::Http(Box::new(options)),
        respond: respond::Options {
            debug_headers: true,
            ..respond::Options::default()
        },
        ..tcp()
    };
    let running = Running::start(serve(&folder, CustomProvider::Call, listener)).await;
    (folder, running)
}

/// Status and reason of the answer about a URI, as nginx hands it over.
async fn ask(running: &Running, uri: &str, headers: &str) -> (u16, String) {
    let Endpoint::Tcp(address) = &running.endpoints[0] else {
        panic!("not TCP");
    };
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /auth HTTP/1.1\r\nhost: web.foo\r\nconnection: close\r\nx-original-method: GET\r\n\
         x-original-uri: {uri}\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    let status = answer.split(' ').nth(1).expect(&answer).parse().unwrap();
    let reason = answer
        .lines()
        .find_map(|l| l.strip_prefix("x-portcullis-reason: "));
    (status, reason.unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_uri_gets_past_a_provider_that_fails_open() {
    let (address, seen, task) = http("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n").await;
    let (_folder, running) = behind_nginx(http_provider(address), "").await;
    for uri in [
        "/asked/8",
        "/asked/8?q=<b>",
        "/asked/8?q=\"x\"",
        "/asked/8<",
        "/asked/8>",
        "/asked/8`",
        "/asked/8?{|}^\\",
        "/asked/8?a#b",
        "http://web.foo/asked/8",
    ] {
        let before = seen.lock().unwrap().len();
        let denied = (403, "custom_denied".to_owned());
        assert_eq!(ask(&running, uri, "").await, denied, "{uri}");
        let asked = seen
            .lock()
            .unwrap()
            .get(before)
            .cloned()
            .unwrap_or_default();
        assert!(asked.starts_with("GET /check/asked/8"), "{uri}: {asked}");
    }
    running.stop().await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provider_is_asked_about_the_path_that_the_rule_matched() {
    let mesh = "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-user, namespace: istio-system}\n\
                data: {mesh: \"pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}\"}\n";
    let (address, seen, task) = http("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let (_folder, running) = behind_nginx(http_provider(address), mesh).await;
    for uri in [
        "/asked/7/../8",
        "/asked/7/%2e%2e/8",
        "/asked/7/..%2f8",
        "/asked//8",
        "/asked/8",
    ] {
        let before = seen.lock().unwrap().len();
        assert_eq!(ask(&running, uri, "").await.0, 200, "{uri}");
        let asked = seen.lock().unwrap()[before].clone();
        assert!(
            asked.starts_with("GET /check/asked/8 HTTP/1.1\r\n"),
            "{uri}: {asked}"
        );
    }
    running.stop().await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_stays_one_whatever_becomes_of_its_body() {
    let long = format!(
        "HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 100000\r\n\r\n{}",
        "x".repeat(100_000)
    );
    let answers = [
        Box::leak(long.into_boxed_str()),
        "HTTP/1.1 403 No\r\ncontent-length: 10\r\n\r\nabc",
        "HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 403 No\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\u{8}",
    ];
    for answer in answers {
        let (address, _, task) = http(answer).await;
        let (_folder, running) = behind_nginx(http_provider(address), "").await;
        let (status, reason) = ask(&running, "/asked", "").await;
        assert_eq!(reason, "custom_denied", "{}", &answer[..30]);
        assert_eq!(status, if answer.contains("302") { 302 } else { 403 });
        running.stop().await;
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_the_answer_itself_are_not_the_providers() {
    let (address, _, task) = http(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nkeep-alive: timeout=1\r\nx-portcullis-reason: mine\r\n\
         x-user: alice\r\n\r\n0\r\n\r\n",
    )
    .await;
    let mut provider = http_provider(address);
    provider[0]["envoyExtAuthzHttp"]["headersToUpstreamOnAllow"] = json!(["*"]);
    let (_folder, running) = behind_nginx(provider, "").await;
    assert_eq!(
        ask(&running, "/asked", "").await,
        (200, "custom_allowed".to_owned())
    );
    running.stop().await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_comes_back_over_http_is_recognised() {
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asked: SocketAddr = relay.local_addr().unwrap();
    let (_folder, running) = behind_nginx(http_provider(asked), "").await;
    let Endpoint::Tcp(own) = running.endpoints[0].clone() else {
        panic!("not TCP");
    };
    let (count, counted) = std::sync::mpsc::channel();
    let relaying = tokio::spawn(async move {
        loop {
            let (mut stream, _) = relay.accept().await.unwrap();
            count.send(()).unwrap();
            tokio::spawn(async move {
                let mut back = TcpStream::connect(own).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut back).await;
            });
        }
    });
    let started = std::time::Instant::now();
    assert_eq!(
        ask(&running, "/asked", "").await,
        (403, "custom_denied".to_owned())
    );
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(counted.try_iter().count(), 1, "asked once");
    relaying.abort();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_on_a_header_that_no_proxy_hands_over_errs_to_the_closed_side() {
    let policy = |name: &str, action: &str, header: &str| {
        format!(
            "\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: foo}}\n\
             spec:\n  action: {action}\n  rules:\n  - to: [{{operation: {{paths: [/{name}]}}}}]\n    \
             when: [{{key: 'request.headers[{header}]', values: ['*']}}]\n"
        )
    };
    let more = policy("no-upgrade", "DENY", "upgrade") + &policy("no-other", "DENY", "x-other");
    let (address, _, task) = http("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let (folder, mut running) = behind_nginx(http_provider(address), &more).await;
    for (uri, headers, expected) in [
        ("/no-upgrade", "upgrade: websocket\r\n", (403, "denied_by")),
        ("/no-upgrade", "", (403, "denied_by")),
        ("/no-other", "", (200, "no_allow_policy")),
        ("/no-other", "x-other: a\r\n", (403, "denied_by")),
    ] {
        let (status, reason) = ask(&running, uri, headers).await;
        assert_eq!((status, reason.as_str()), expected, "{uri} {headers}");
    }
    // A forbid that people wrote is not taken apart: it counts as a whole.
    let cedar = "@id(\"user\")\nforbid (principal, action == Action::\"http\", resource == Workload::\"foo/a\")\n\
                 when { context.http.path == \"/user\" && context.http.headers.hasTag(\"upgrade\") };\n";
    std::fs::write(folder.path().join("user.cedar"), cedar).unwrap();
    let read = |status: &ReloadStatus| status.succeeded > 1;
    running.until("the Cedar policy is read", read).await;
    for headers in ["upgrade: websocket\r\n", ""] {
        let denied = (403, "denied_by".to_owned());
        assert_eq!(ask(&running, "/user", headers).await, denied);
    }
    running.stop().await;
    task.abort();
}
