//! Octets that are no gRPC: what they get is no allow, and nobody else is held up.

use std::time::Duration;

use envoy_types::ext_authz::v3::pb::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use portcullis_authz::endpoint::Endpoint;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;

use super::support::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// SETTINGS without any.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HEADERS of a check, literals without Huffman coding (RFC 7541 section 6.2.2).
fn headers(more: &[(&str, &str)]) -> Vec<u8> {
    // `:method: POST`, `:scheme: http`.
    let mut block = vec![0x83, 0x86];
    let usual = [
        (":path", "/envoy.service.auth.v3.Authorization/Check"),
        (":authority", "a"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in usual.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    frame(1, 4, 1, &block)
}

async fn running() -> (Running, tempfile::TempDir) {
    let folder = folder(&[
        ("inventory.yaml", INVENTORY),
        ("p.yaml", &allow("/public*")),
    ]);
    let mut options = options(folder.path(), vec![tcp()]);
    options.limits.deadline = Duration::from_millis(500);
    options.limits.header_timeout = Duration::from_secs(2);
    (Running::start(options).await, folder)
}

/// What comes back within `limit`; the connection stays open until then if the other side leaves it so.
async fn converse(running: &Running, octets: &[u8], limit: Duration) -> (Vec<u8>, bool) {
    let Endpoint::Tcp(address) = running.endpoints[0] else {
        panic!("not TCP");
    };
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(octets).await;
    let mut said = Vec::new();
    let reading = async {
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece).await {
                Ok(read @ 1..) => said.extend_from_slice(&piece[..read]),
                _ => return,
            }
        }
    };
    let closed = tokio::time::timeout(limit, reading).await.is_ok();
    (said, closed)
}

/// The name of a reason in a message is not compressed, so that it can be looked for.
fn says(said: &[u8], word: &str) -> bool {
    said.windows(word.len())
        .any(|window| window == word.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_closed_or_answered_without_an_allow() {
    let (running, _folder) = running().await;
    let begin = [PREFACE, SETTINGS].concat();
    let with = |rest: Vec<u8>| [begin.clone(), rest].concat();
    let good = framed(&get("/public"));
    let long = u32::MAX.to_be_bytes();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("http/1", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        (
            "tls",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".repeat(20),
        ),
        ("noise", vec![0xa5; 10_000]),
        (
            "a frame above the limit",
            with([&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..], &[0; 100]].concat()),
        ),
        ("an unknown frame", with(frame(0xfe, 0xff, 1, b"what"))),
        ("data before headers", with(frame(0, 1, 1, &good))),
        (
            "headers that cannot be decoded",
            with(frame(1, 5, 1, &[0xff; 50])),
        ),
        ("headers on stream 0", with(frame(1, 5, 0, &[0x83]))),
        (
            "continuations without end",
            with(
                (0..200)
                    .flat_map(|n| frame(if n == 0 { 1 } else { 9 }, 0, 1, &[0; 1000]))
                    .collect(),
            ),
        ),
        (
            "a window beyond all bounds",
            with([frame(8, 0, 0, &long), frame(8, 0, 0, &long)].concat()),
        ),
        (
            "resets in a row",
            with(
                (0..2000u32)
                    .flat_map(|n| {
                        let mut both = headers(&[]);
                        both[5..9].copy_from_slice(&(n * 2 + 1).to_be_bytes());
                        both.extend(frame(3, 0, n * 2 + 1, &[0, 0, 0, 8]));
                        both
                    })
                    .collect(),
            ),
        ),
        (
            "an unknown encoding",
            with(
                [
                    headers(&[("grpc-encoding", "snappy")]),
                    frame(0, 1, 1, &[&[1], &good[1..]].concat()),
                ]
                .concat(),
            ),
        ),
        (
            "no gRPC",
            with(
                [
                    headers(&[("content-encoding", "gzip")]),
                    frame(0, 1, 1, b"hello"),
                ]
                .concat(),
            ),
        ),
        (
            "a length that promises four gigabytes",
            with(
                [
                    headers(&[]),
                    frame(0, 1, 1, &[0, 0xff, 0xff, 0xff, 0xff, 1]),
                ]
                .concat(),
            ),
        ),
        (
            "a message that never ends",
            with([headers(&[]), frame(0, 0, 1, &good[..good.len() - 1])].concat()),
        ),
        ("no message at all", with(headers(&[]))),
    ];
    for (what, octets) in cases {
        let (said, _) = converse(&running, &octets, Duration::from_secs(3)).await;
        for word in ["allowed_by", "no_allow_policy"] {
            assert!(!says(&said, word), "{what}");
        }
        // Who speaks properly is answered as ever.
        assert_eq!(
            ask(&mut running.client().await, "/public").await,
            "allowed_by",
            "{what}"
        );
    }
    // The probe itself sees an allow where there is one.
    let octets = with([headers(&[]), frame(0, 1, 1, &good)].concat());
    let (said, _) = converse(&running, &octets, Duration::from_secs(2)).await;
    assert!(says(&said, "allowed_by"));
    running.stop().await;
}

fn framed(request: &CheckRequest) -> Vec<u8> {
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &message].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_message_is_no_way_to_memory() {
    let (running, _folder) = running().await;
    let channel = portcullis_authz::client::channel(&running.endpoints[0]);
    let client = AuthorizationClient::new(channel.await.unwrap());
    let mut client = client.send_compressed(CompressionEncoding::Gzip);
    let mut bomb = get("/public");
    let http = bomb.attributes.as_mut().unwrap().request.as_mut().unwrap();
    let http = http.http.as_mut().unwrap();
    http.headers.insert("x-zeros".into(), "0".repeat(64 << 20));
    for request in [get("/never"), bomb] {
        let asked = client.check(tonic::Request::new(request));
        match within("an answer", asked).await {
            Ok(answer) => assert_ne!(answer.into_inner().status.unwrap().code, 0),
            Err(status) => assert_ne!(status.code(), tonic::Code::Ok),
        }
    }
    assert_eq!(
        ask(&mut running.client().await, "/public").await,
        "allowed_by"
    );
    running.stop().await;
}
