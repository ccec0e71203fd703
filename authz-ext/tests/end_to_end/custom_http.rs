//! CUSTOM providers that are asked over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use envoy_types::ext_authz::v3::pb::HttpResponse;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::custom_provider::{check, start};
use super::support::*;
use super::tokens::{changes, status};

/// An HTTP server that answers every request so; keeps what it was sent.
pub async fn http(
    answer: &'static str,
) -> (
    SocketAddr,
    Arc<Mutex<Vec<String>>>,
    tokio::task::JoinHandle<()>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&seen);
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&asked);
            tokio::spawn(async move {
                let mut buffer = vec![0; 8192];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    seen.lock()
                        .unwrap()
                        .push(String::from_utf8_lossy(&buffer[..length]).into_owned());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, seen, task)
}

pub fn http_provider(address: SocketAddr) -> Value {
    json!([{"name": "ext", "envoyExtAuthzHttp": {
        "service": address.ip().to_string(), "port": address.port(), "pathPrefix": "/check",
        "includeRequestHeadersInCheck": ["x-ticket*", "cookie"],
        "includeAdditionalHeadersInCheck": {"x-mesh": "one"},
        "headersToUpstreamOnAllow": ["x-user", "*-groups"],
        "headersToDownstreamOnAllow": ["set-cookie"],
        "headersToDownstreamOnDeny": ["content-type", "set-cookie"],
    }}])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_provider_gets_the_listed_headers_and_gives_the_listed_ones() {
    let (address, seen, task) = http(
        "HTTP/1.1 200 OK\r\nx-user: alice\r\nx-groups: a\r\nx-groups: b\r\nx-secret: no\r\n\
         set-cookie: s=1\r\nx-envoy-auth-headers-to-remove: x-ticket-id, cookie\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let (_folder, running) = start(&http_provider(address)).await;
    let headers = [
        ("x-ticket-id", "7"),
        ("cookie", "a=b"),
        ("authorization", "Basic x"),
        ("x-private", "p"),
        ("x-user", "forged"),
        ("connection", "x-private"),
    ];
    let response = check(&running, "/asked?q=1", &headers).await;
    assert_eq!(reason(&response), "custom_allowed");
    let mut changed = changes(&response);
    changed.sort();
    assert_eq!(
        changed,
        ["-cookie", "-x-ticket-id", "x-groups=a,b", "x-user=alice"]
    );
    let question = seen.lock().unwrap().last().unwrap().to_lowercase();
    assert!(
        question.starts_with("get /check/asked?q=1 http/1.1\r\n"),
        "{question}"
    );
    for line in [
        "host: a.foo",
        "x-ticket-id: 7",
        "cookie: a=b",
        "authorization: basic x",
        "x-mesh: one",
        "content-length: 0",
    ] {
        assert!(
            question.contains(&format!("\r\n{line}\r\n")),
            "{line}: {question}"
        );
    }
    assert!(
        !question.contains("x-private") && !question.contains("forged"),
        "{question}"
    );
    running.stop().await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_provider_s_denial_reaches_the_client_and_its_errors_do_not() {
    let (address, _, task) = http(
        "HTTP/1.1 401 No\r\nwww-authenticate: Basic\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nx-secret: no\r\n\
         content-type: text/plain\r\ncontent-length: 5\r\n\r\nlogin",
    )
    .await;
    let (_folder, running) = start(&http_provider(address)).await;
    let response = check(&running, "/asked", &[]).await;
    assert_eq!(
        (reason(&response).as_str(), status(&response)),
        ("custom_denied", 401)
    );
    let Some(HttpResponse::DeniedResponse(denied)) = &response.http_response else {
        panic!("no denied response");
    };
    let mut names: Vec<&str> = denied
        .headers
        .iter()
        .map(|h| h.header.as_ref().unwrap().key.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "content-type",
            "set-cookie",
            "set-cookie",
            "www-authenticate"
        ]
    );
    assert_eq!(denied.body, "login");
    running.stop().await;
    task.abort();

    for answer in [
        "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200",
        "garbage\r\n\r\n",
    ] {
        let (address, _, task) = http(answer).await;
        let mut provider = http_provider(address);
        provider[0]["envoyExtAuthzHttp"]["timeout"] = json!("0.3s");
        let (_folder, running) = start(&provider).await;
        assert_eq!(
            reason(&check(&running, "/asked", &[]).await),
            "custom_provider_unavailable"
        );
        running.stop().await;
        task.abort();
    }
    // 2xx that is not 200 is a denial, and must not look like anything else.
    let (address, _, task) = http("HTTP/1.1 204 No\r\n\r\n").await;
    let (_folder, running) = start(&http_provider(address)).await;
    assert_eq!(
        reason(&check(&running, "/asked", &[]).await),
        "custom_denied"
    );
    running.stop().await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_the_entry_of_an_http_provider_decides() {
    let (broken, _, broken_task) = http("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await;
    let (endless, _, endless_task) = http("HTTP/1.1 200 OK\r\nx-a").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody: SocketAddr = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let closed = "custom_provider_unavailable";
    for (name, address) in [
        ("broken", broken),
        ("endless", endless),
        ("silent", silent.local_addr().unwrap()),
        ("nobody", nobody),
    ] {
        for (more, expected, code) in [
            (json!({}), closed, 403),
            (
                json!({"failOpen": false, "statusOnError": "503"}),
                closed,
                503,
            ),
            (json!({"failOpen": true}), "custom_allowed", 200),
            (
                json!({"failOpen": true, "statusOnError": "503"}),
                "custom_allowed",
                200,
            ),
        ] {
            let mut provider = http_provider(address);
            let call = &mut provider[0]["envoyExtAuthzHttp"];
            call["timeout"] = json!("0.3s");
            // Said, and without effect: no question carries the body.
            call["includeRequestBodyInCheck"] =
                json!({"maxRequestBytes": 100, "allowPartialMessage": true, "packAsBytes": true});
            for (key, value) in more.as_object().unwrap() {
                call[key] = value.clone();
            }
            let (_folder, running) = start(&provider).await;
            let started = std::time::Instant::now();
            let response = check(&running, "/asked", &[]).await;
            assert_eq!(
                (reason(&response).as_str(), status(&response)),
                (expected, code),
                "{name} {more}"
            );
            assert!(
                started.elapsed() < std::time::Duration::from_secs(4),
                "{name}"
            );
            // Open is the provider's answer alone.
            let never = reason(&check(&running, "/asked/never", &[]).await);
            assert_eq!(never == "denied_by", code == 200, "{name} {more}: {never}");
            running.stop().await;
        }
    }
    broken_task.abort();
    endless_task.abort();
}
