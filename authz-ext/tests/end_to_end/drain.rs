//! The end of a server over HTTP/1.1: what was asked is answered, and connections that wait for nothing are closed.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::ext_authz::v3::pb::OkHttpResponse;
use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::http::{self, Dialect};
use portcullis_authz::server::{ListenerOptions, Protocol};
use portcullis_policy::settings::CustomProvider;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::custom_provider::{allowed, grpc, grpc_provider, policies, serve};
use super::support::*;

fn question(path: &str) -> String {
    format!(
        "GET /auth HTTP/1.1\r\nhost: web.foo\r\nx-original-method: GET\r\nx-original-uri: {path}\r\n\r\n"
    )
}

async fn read(stream: &mut TcpStream) -> String {
    let mut octets = vec![0; 4096];
    let read = within("an answer", stream.read(&mut octets)).await.unwrap();
    String::from_utf8_lossy(&octets[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_answered_and_idle_connections_are_closed() {
    // The provider takes its time: the request is in flight for as long.
    let provider = grpc(
        Duration::from_millis(1500),
        Arc::new(|_| Ok(allowed(OkHttpResponse::default()))),
    )
    .await;
    let providers = grpc_provider(provider.address, json!({"timeout": "10s"}));
    let folder = folder(&[
        ("inventory.yaml", INVENTORY),
        ("p.yaml", &policies(&providers)),
    ]);
    let mut options = http::Options::new(Dialect::Nginx);
    options.workload = Some("foo/a".to_owned());
    let listener = ListenerOptions {
        protocol: Protocol::Http(Box::new(options)),
        ..tcp()
    };
    let running = Running::start(serve(&folder, CustomProvider::Call, listener)).await;
    let Endpoint::Tcp(address) = running.endpoints[0] else {
        panic!("not TCP");
    };
    // Both were used before, as the connections of a proxy are.
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(question("/free").as_bytes())
            .await
            .unwrap();
        assert!(read(&mut stream).await.starts_with("HTTP/1.1 200 "));
        streams.push(stream);
    }
    let (mut busy, mut idle) = (streams.remove(0), streams.remove(0));
    // Two at once: the second of them waits behind the first.
    let both = question("/asked/yes") + &question("/asked/never");
    busy.write_all(both.as_bytes()).await.unwrap();
    within("a question", async {
        while provider.asked.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let stop = tokio::spawn(running.stop());
    assert_eq!(read(&mut idle).await, "", "it is closed without a word");
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    within("nobody accepts any more", refused).await;
    assert!(!stop.is_finished(), "ended before the open request");
    let mut rest = String::new();
    within("an answer", busy.read_to_string(&mut rest))
        .await
        .unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 "), "{rest}");
    // The one behind it is answered as it must be, or not at all: never with the answer of another.
    let answers: Vec<&str> = rest.split("HTTP/1.1 ").skip(1).collect();
    assert!(answers.len() <= 2, "{rest}");
    assert!(
        answers.iter().skip(1).all(|a| a.starts_with("403 ")),
        "{rest}"
    );
    within("the end", stop).await.unwrap();
}
