//! Over a limit: denied in ext_authz's own terms, quickly, and counted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use envoy_types::ext_authz::v3::pb::CheckResponse;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::http::Dialect;
use portcullis_authz::limits::Limits;
use portcullis_authz::server::{ListenerOptions, Protocol, ServeOptions};
use prost::Message as _;
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::*;

const CHECK: &str = "http://authz/envoy.service.auth.v3.Authorization/Check";

async fn running(change: impl FnOnce(&mut ServeOptions)) -> (Running, TempDir) {
    let files = [
        ("inventory.yaml", INVENTORY),
        ("p.yaml", &*allow("/public*")),
    ];
    let folder = folder(&files);
    let mut options = options(folder.path(), vec![tcp()]);
    change(&mut options);
    (Running::start(options).await, folder)
}

pub(super) async fn limited(change: impl FnOnce(&mut Limits)) -> (Running, TempDir) {
    running(|options| change(&mut options.limits)).await
}

impl Running {
    pub(super) fn address(&self) -> SocketAddr {
        match &self.endpoints[0] {
            Endpoint::Tcp(address) => *address,
            other => panic!("{other}"),
        }
    }
}

pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// An HTTP/2 connection whose every frame is ours to send.
pub(super) async fn http2(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender.ready().await.unwrap()
}

/// Begins a check; its message is still to be sent.
pub(super) fn begin(
    sender: &mut SendRequest<Bytes>,
    headers: &[(&str, &str)],
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut request = tonic::codegen::http::Request::post(CHECK)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    sender
        .send_request(request.body(()).unwrap(), false)
        .unwrap()
}

/// A message in gRPC's frame.
pub(super) fn framed(path: &str) -> Bytes {
    let message = get(path).encode_to_vec();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(&message);
    frame.freeze()
}

/// The reason of the answer, which must be a denial or an allow in ext_authz's terms.
pub(super) async fn answered(response: ResponseFuture) -> String {
    let response = within("an answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers().get("grpc-status"), None);
    let mut body: RecvStream = response.into_body();
    let mut octets = BytesMut::new();
    while let Some(chunk) = within("the body", body.data()).await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        octets.put_slice(&chunk);
    }
    let trailers = within("trailers", body.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    reason(&CheckResponse::decode(&octets[5..]).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_check_too_many_is_denied_at_once_and_a_stalled_one_in_the_end() {
    let (running, _folder) = limited(|limits| {
        limits.concurrent_checks = 1;
        limits.deadline = Duration::from_secs(3);
    })
    .await;
    let mut sender = http2(running.address()).await;
    let start = Instant::now();
    let (stalled, _body) = begin(&mut sender, &[]);
    let one = || read(&running.counters.checks_in_flight) == 1;
    while !one() {
        assert!(start.elapsed() < Duration::from_secs(3));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut client = running.client().await;
    assert_eq!(ask(&mut client, "/public").await, "overloaded");
    assert!(start.elapsed() < Duration::from_secs(2), "it does not wait");
    assert_eq!(answered(stalled).await, "deadline");
    assert!(start.elapsed() >= Duration::from_secs(3));
    assert_eq!(ask(&mut client, "/public").await, "allowed_by");
    assert_eq!(read(&running.counters.overloaded), 1);
    assert_eq!(read(&running.counters.deadline), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_up_soon_is_answered_before() {
    let (running, _folder) = limited(|_| {}).await;
    let mut sender = http2(running.address()).await;
    let (stalled, _body) = begin(&mut sender, &[("grpc-timeout", "2S")]);
    let start = Instant::now();
    assert_eq!(answered(stalled).await, "deadline");
    assert!(start.elapsed() < Duration::from_secs(2));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_metadata_than_the_limits_say_is_denied_as_overloaded() {
    let (running, _folder) = limited(|limits| {
        limits.headers = 12;
        limits.header_bytes = 4096;
    })
    .await;
    let long = "a".repeat(8000);
    let many: Vec<(String, &str)> = (0..20).map(|n| (format!("x-{n}"), "a")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, *value)).collect();
    for headers in [&[("x-long", &*long)][..], &many] {
        let mut sender = http2(running.address()).await;
        let (response, mut body) = begin(&mut sender, headers);
        body.send_data(framed("/public"), true).unwrap();
        assert_eq!(answered(response).await, "overloaded");
    }
    assert_eq!(read(&running.counters.overloaded), 2);
    let mut client = running.client().await;
    assert_eq!(ask(&mut client, "/public").await, "allowed_by");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_is_denied_whatever_is_wrong_with_its_frame() {
    let (running, _folder) = limited(|_| {}).await;
    let truncated = framed("/public").slice(..20);
    let compressed = Bytes::from_static(&[1, 0, 0, 0, 1, 0]);
    let mut two = BytesMut::from(framed("/public"));
    two.put_slice(&framed("/public"));
    for (what, octets) in [
        ("none", Bytes::new()),
        ("cut off", truncated),
        ("compressed without saying how", compressed),
        ("two of them", two.freeze()),
    ] {
        let mut sender = http2(running.address()).await;
        let (response, mut body) = begin(&mut sender, &[]);
        body.send_data(octets, true).unwrap();
        assert_eq!(answered(response).await, "invalid_request", "{what}");
    }
    running.stop().await;
}

/// True when the peer closes within `limit`.
async fn closes(stream: &mut TcpStream, limit: Duration) -> bool {
    let mut octets = [0; 4096];
    let ended = async { while stream.read(&mut octets).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(limit, ended).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_closed_and_the_others_go_on() {
    let (running, _folder) = limited(|limits| limits.connections = 1).await;
    let mut client = running.client().await;
    assert_eq!(ask(&mut client, "/public").await, "allowed_by");
    let mut second = TcpStream::connect(running.address()).await.unwrap();
    assert!(closes(&mut second, Duration::from_secs(5)).await);
    assert_eq!(read(&running.counters.connections_refused), 1);
    assert_eq!(ask(&mut client, "/public").await, "allowed_by");
    drop(client);
    // Its place is free again.
    let start = Instant::now();
    while read(&running.counters.connections) > 0 {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut client = running.client().await;
    assert_eq!(ask(&mut client, "/public").await, "allowed_by");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_begin_to_speak_is_closed() {
    let (running, _folder) =
        limited(|limits| limits.header_timeout = Duration::from_millis(300)).await;
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for said in [&b""[..], b"PRI", preface] {
        let mut stream = TcpStream::connect(running.address()).await.unwrap();
        stream.write_all(said).await.unwrap();
        assert!(
            closes(&mut stream, Duration::from_secs(5)).await,
            "{said:?}"
        );
    }
    // One octet at a time is no way around it.
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    let start = Instant::now();
    let mut ended = false;
    for octet in preface {
        let sent = stream.write_all(&[*octet]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        ended |= sent.is_err();
    }
    assert!(ended || closes(&mut stream, Duration::from_secs(5)).await);
    assert!(start.elapsed() < Duration::from_secs(10));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_settings_and_pings_hold_up_nobody_else() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0abcdefgh";
    let (running, _folder) = limited(|_| {}).await;
    let mut floods = Vec::new();
    for frame in [SETTINGS, PING] {
        let mut stream = TcpStream::connect(running.address()).await.unwrap();
        floods.push(tokio::spawn(async move {
            stream.write_all(PREFACE).await?;
            let many = frame.repeat(1000);
            // Nothing is read: acknowledgements pile up until the server stops reading, too.
            for _ in 0..2000 {
                tokio::time::timeout(Duration::from_secs(2), stream.write_all(&many)).await??;
            }
            std::io::Result::Ok(())
        }));
    }
    let mut client = running.client().await;
    for _ in 0..200 {
        assert_eq!(ask(&mut client, "/public").await, "allowed_by");
    }
    for flood in floods {
        flood.abort();
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_dialects_have_the_same_limits() {
    let (running, _folder) = running(|options| {
        options.limits.concurrent_checks = 0;
        options.limits.headers = 8;
        let mut http = portcullis_authz::http::Options::new(Dialect::Traefik);
        http.workload = Some("foo/a".to_owned());
        options.listeners = vec![ListenerOptions {
            protocol: Protocol::Http(Box::new(http)),
            respond: portcullis_authz::respond::Options {
                debug_headers: true,
                ..Default::default()
            },
            ..tcp()
        }];
    })
    .await;
    let address = running.address();
    let answer = async |headers: String| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-forwarded-method: GET\r\nx-forwarded-uri: /public\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        answer
    };
    let denied = answer(String::new()).await;
    assert!(denied.starts_with("HTTP/1.1 403 "), "{denied}");
    assert!(
        denied.contains("x-portcullis-reason: overloaded"),
        "{denied}"
    );
    assert_eq!(read(&running.counters.overloaded), 1);
    let many = (0..20).map(|n| format!("x-{n}: a\r\n")).collect();
    let denied = answer(many).await;
    assert!(denied.starts_with("HTTP/1.1 431 "), "{denied}");
    running.stop().await;
}
