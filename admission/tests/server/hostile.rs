//! What no API server sends: each gets an AdmissionReview that says what is wrong, or HTTP 400, and soon.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Running, request as http_request, review, start};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use portcullis_admission::server::Limits;

/// What an answer may take, on a busy machine and in a debug build.
const SOON: Duration = Duration::from_secs(20);

/// A review that is right, then changed.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut review: Value = serde_json::from_slice(&review(json!({ "rules": [{}] }))).unwrap();
    change(&mut review["request"]);
    review.to_string().into_bytes()
}

/// The response of an AdmissionReview, held against what API servers take of one.
fn response(body: &str) -> Value {
    let answer: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    let response = answer["response"].clone();
    assert_eq!(response["uid"], "u");
    match response["allowed"].as_bool().unwrap() {
        true => assert!(response.get("status").is_none()),
        false => {
            assert!((400..500).contains(&response["status"]["code"].as_u64().unwrap()));
            let message = response["status"]["message"].as_str().unwrap();
            assert!(!message.is_empty() && message.chars().count() <= 8192);
            assert!(!message.contains(|c: char| c.is_control() && c != '\n'));
        }
    }
    let none = Vec::new();
    let warnings = response["warnings"].as_array().unwrap_or(&none);
    let warnings = warnings.iter().map(|w| w.as_str().unwrap());
    let mut all = 0;
    for warning in warnings {
        let length = warning.chars().count();
        all += length;
        assert!(
            length <= 256 && !warning.contains(char::is_control),
            "{warning:?}"
        );
    }
    assert!(all <= 4096, "{all} characters of warnings");
    let nothing = Map::new();
    for (key, value) in response["auditAnnotations"].as_object().unwrap_or(&nothing) {
        let value = value.as_str().unwrap();
        assert!(
            key.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
            "{key:?}"
        );
        assert!(
            value.chars().count() <= 1024 && !value.contains(char::is_control),
            "{value:?}"
        );
    }
    response
}

impl Running {
    /// The response to a review that can be answered.
    async fn answered(&self, body: Vec<u8>) -> Value {
        let started = Instant::now();
        let (status, body) = self.review(body).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        response(&body)
    }

    /// Writes octets over TLS as they are, lets `more` go on, and reads what comes back until the end.
    async fn raw(&self, octets: &[u8], more: impl AsyncFnOnce(&mut Stream)) -> String {
        let mut stream = self.connect(b"http/1.1").await;
        stream.write_all(octets).await.unwrap();
        stream.flush().await.unwrap();
        let spoken = async {
            more(&mut stream).await;
            let mut answer = Vec::new();
            // The other side may close without a goodbye.
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        tokio::time::timeout(SOON, spoken).await.expect("no hang")
    }
}

type Stream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

#[tokio::test(flavor = "multi_thread")]
async fn other_versions_kinds_operations_and_missing_parts_are_answered() {
    let server = start(Limits::default()).await;
    type Change = fn(&mut Value);
    let allowed: [(Change, &str); 5] = [
        (|r| r["subResource"] = json!("status"), "subresource"),
        (|r| r["operation"] = json!("CONNECT"), "subresource"),
        (
            |r| {
                r["kind"] = json!({ "group": "", "version": "v1", "kind": "Pod" });
                r["object"]["apiVersion"] = json!("v1");
                r["object"]["kind"] = json!("Pod");
            },
            "other_kind",
        ),
        (
            |r| {
                r["operation"] = json!("DELETE");
                r["oldObject"] = r["object"].take();
            },
            "accepted",
        ),
        (|r| r["kind"]["version"] = json!("v1alpha7"), "accepted"),
    ];
    for (change, cause) in allowed {
        let said = server.answered(changed(change)).await;
        assert_eq!(said["allowed"], json!(true), "{said}");
        assert_eq!(said["auditAnnotations"]["cause"], cause, "{said}");
    }
    let refused: [(Change, &str); 14] = [
        (|r| r["operation"] = json!("DELETE"), "`oldObject`"),
        (|r| r["object"] = Value::Null, "`object`"),
        (|r| r["operation"] = json!("create"), "`create`"),
        (
            |r| r["kind"]["kind"] = json!("PeerAuthentication"),
            "its object is",
        ),
        (
            |r| r["object"]["kind"] = json!(["Pod"]),
            "`kind` is not a string",
        ),
        (|r| r["object"]["apiVersion"] = Value::Null, "its object is"),
        (
            |r| r["namespace"] = json!("other"),
            "its object says `shop`",
        ),
        (|r| r["name"] = json!("other"), "its object says `web`"),
        (
            |r| {
                r["name"] = json!("");
                r["object"]["metadata"] = json!({});
            },
            "says the name",
        ),
        (
            |r| {
                r["namespace"] = json!("a/b\nc");
                r["object"]["metadata"]["namespace"] = json!("a/b\nc");
            },
            "names no object",
        ),
        (
            |r| r["object"]["metadata"]["labels"] = json!({ "a": 1 }),
            "map of strings",
        ),
        (
            |r| r["object"]["metadata"]["annotations"] = json!([]),
            "map of strings",
        ),
        (|r| r["userInfo"] = json!("root"), "userInfo"),
        (
            |r| r["object"] = json!("kind: AuthorizationPolicy"),
            "is not an object",
        ),
    ];
    for (change, words) in refused {
        let said = server.answered(changed(change)).await;
        assert_eq!(said["status"]["code"], json!(400), "{words}: {said}");
        let message = said["status"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{words}: {message}");
    }

    let text = |change: Change| String::from_utf8(changed(change)).unwrap();
    let whole = text(|_| {});
    let not_one = [
        (
            whole.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1"),
            "v1beta1",
        ),
        (
            whole.replace("AdmissionReview", "TokenReview"),
            "`TokenReview`",
        ),
        (text(|r| r["uid"] = Value::Null), "request.uid"),
        (text(|r| r["uid"] = json!("")), "request.uid"),
        (text(|r| r["uid"] = json!(7)), "request.uid"),
        (text(|r| r["uid"] = json!("u".repeat(1000))), "request.uid"),
        (text(|r| *r = Value::Null), "request"),
        (text(|r| *r = json!([])), "request"),
        (format!("\u{feff}{whole}"), "not JSON"),
        (format!("{whole}{whole}"), "not JSON"),
        (
            whole.replacen("\"uid\":\"u\"", "\"uid\":\"u\",\"uid\":\"v\"", 1),
            "`uid` stands twice",
        ),
        (whole.replace("{}", "NaN"), "not JSON"),
        (whole[..whole.len() / 2].to_owned(), "not JSON"),
        ("[".repeat(1 << 20), "not JSON"),
    ];
    for (body, words) in not_one {
        let (status, said) = server.review(body.into_bytes()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stands_twice_is_refused_wherever_it_is() {
    let server = start(Limits::default()).await;
    let whole = String::from_utf8(changed(|_| {})).unwrap();
    for (once, twice) in [
        ("\"rules\":[{}]", "\"rules\":[{}],\"rules\":[]"),
        (
            "\"rules\":[{}]",
            "\"action\":\"DENY\",\"rules\":[{}],\"action\":\"ALLOW\"",
        ),
        ("\"name\":\"web\"", "\"name\":\"web\",\"name\":\"web\""),
        (
            "\"operation\":\"CREATE\"",
            "\"operation\":\"CREATE\",\"operation\":\"DELETE\"",
        ),
    ] {
        assert!(whole.contains(once), "{whole}");
        let said = server
            .answered(whole.replacen(once, twice, 1).into_bytes())
            .await;
        assert_eq!(said["status"]["code"], json!(400), "{said}");
        let message = said["status"]["message"].as_str().unwrap();
        assert!(message.contains("stands twice"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_were_never_pruned_are_judged_by_the_engine_and_do_no_harm() {
    let server = start(Limits::default()).await;
    for (spec, allowed) in [
        (json!({ "rules": [{}], "surprise": { "rules": [] } }), false),
        (json!({ "rules": [{ "form": [{}] }] }), false),
        (json!({ "rules": {} }), false),
        (json!({ "rules": [null] }), false),
        (json!({ "rules": [[]] }), false),
        (json!({ "action": 7, "rules": [{}] }), false),
        (json!({ "action": "deny", "rules": [{}] }), false),
        (json!("rules"), false),
        (json!([]), false),
        (Value::Null, true),
        (
            json!({ "selector": { "matchLabels": { "app": 1 } } }),
            false,
        ),
        (
            json!({ "rules": [{ "to": [{ "operation": { "ports": [80] } }] }] }),
            false,
        ),
        (
            json!({ "rules": [{ "to": [{ "operation": { "paths": ["/\u{0}\u{7}\r\n"] } }] }] }),
            true,
        ),
    ] {
        let said = server.answered(review(spec.clone())).await;
        assert_eq!(said["allowed"], json!(allowed), "{spec}: {said}");
    }
    // A thousand errors are told as far as there is room.
    let rule = json!({ "from": [{ "source": { "ipBlocks": ["x".repeat(300)] } }] });
    let said = server
        .answered(review(json!({ "rules": vec![rule; 1000] })))
        .await;
    let message = said["status"]["message"].as_str().unwrap();
    assert!(
        message.contains(" more: `portcullis policy check` shows all"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_metadata_reaches_neither_logs_nor_annotations() {
    let server = start(Limits::default()).await;
    let long = "é\u{1b}[31m\r\n\u{0}\u{202e}".repeat(10_000);
    let annotations = [
        json!({ "a\nb: c": "d\re", "\u{0}": "\u{7f}", "": "" }),
        json!({ "portcullis.dev/break-glass": long }),
        json!({ "portcullis.dev/break-glass": "\n\t" }),
        json!({ "istio.io/dry-run": long }),
        json!({ long.clone(): long }),
        (0..50_000)
            .map(|n| (format!("k{n}"), json!("v")))
            .collect::<Map<_, _>>()
            .into(),
    ];
    for annotations in annotations {
        let said = server
            .answered(changed(|r| {
                r["object"]["metadata"]["annotations"] = annotations;
                r["object"]["spec"] = json!({ "action": "DENY" });
                r["userInfo"] = json!({ "username": long, "groups": [long, "\n"] });
            }))
            .await;
        assert_eq!(said["allowed"], json!(false), "{said}");
    }
    let labels: Map<String, Value> = (0..50_000)
        .map(|n| (format!("label-{n}"), json!("v".repeat(63))))
        .collect();
    let said = server
        .answered(changed(|r| {
            r["object"]["metadata"]["labels"] = labels.clone().into();
            r["object"]["spec"]["selector"] = json!({ "matchLabels": labels });
        }))
        .await;
    assert!(said["allowed"].is_boolean(), "{said}");
    let deep = (0..120).fold(json!({}), |inner, _| json!({ "a": inner }));
    let said = server
        .answered(changed(|r| r["object"]["spec"] = deep))
        .await;
    assert_eq!(said["allowed"], json!(false), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_cut_slow_packed_or_too_long_get_400_in_time() {
    let limits = Limits {
        body_bytes: 64 << 10,
        deadline: Duration::from_millis(600),
        header_timeout: Duration::from_millis(600),
        ..Limits::default()
    };
    let server = start(limits).await;
    const HEAD: &str = "POST /validate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let is_400 = |answer: &str| answer.starts_with("HTTP/1.1 400 ");

    // A byte now and then, with a length that is never reached, or in chunks without an end.
    for framing in ["content-length: 60000", "transfer-encoding: chunked"] {
        let head = format!("{HEAD}{framing}\r\n\r\n");
        let started = Instant::now();
        let answer = server
            .raw(head.as_bytes(), async |stream| {
                for _ in 0..40 {
                    let octets: &[u8] = match framing.starts_with("content") {
                        true => b" ",
                        false => b"1\r\n \r\n",
                    };
                    if stream.write_all(octets).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
            .await;
        assert!(
            is_400(&answer) && answer.contains("has not come within"),
            "{answer}"
        );
        assert!(started.elapsed() < SOON);
    }
    // Cut: what comes back, if anything can, is 400; the connection ends in any case.
    let head = format!("{HEAD}content-length: 100\r\n\r\n{{");
    let answer = server
        .raw(head.as_bytes(), async |stream| {
            let _ = stream.shutdown().await;
        })
        .await;
    assert!(answer.is_empty() || is_400(&answer), "{answer}");
    // A head that never ends.
    let answer = server.raw(HEAD.as_bytes(), async |_| {}).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Longer than said, in chunks; and longer than is read, with a length.
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, " ".repeat(60_000));
    let body = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    let answer = server.raw(body.as_bytes(), async |_| {}).await;
    assert!(
        is_400(&answer) && answer.contains("65536 octets"),
        "{answer}"
    );
    let head = format!("{HEAD}content-length: 99999999999\r\n\r\n");
    let answer = server.raw(head.as_bytes(), async |_| {}).await;
    assert!(
        is_400(&answer) && answer.contains("65536 octets"),
        "{answer}"
    );

    // Packed: API servers send reviews as they are.
    for encoding in ["gzip", "deflate", "br", "\u{7f}"] {
        let stream = TokioIo::new(server.connect(b"http/1.1").await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut packed = http_request(
            Method::POST,
            "/validate",
            "application/json",
            b"\x1f\x8b\x08\x00".to_vec(),
        );
        let value = http::HeaderValue::from_bytes(encoding.as_bytes());
        let Ok(value) = value else { continue };
        packed.headers_mut().insert("content-encoding", value);
        let answer = sender.send_request(packed).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("send it as it is"));
    }
    // All of it over, it judges as ever.
    let said = server.answered(review(json!({ "rules": [{}] }))).await;
    assert_eq!(said["allowed"], json!(true));
}
