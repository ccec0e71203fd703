//! `/livez` and `/readyz`: whether requests are decided, by what, and why not; grpc.health says the same.

use portcullis_authz::endpoint::Endpoint;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::support::*;

async fn answer(running: &Running, path: &str) -> (u16, String) {
    let Some(Endpoint::Tcp(address)) = running.management else {
        panic!("{:?}", running.management);
    };
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    within("an answer", read).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

async fn ready(running: &Running) -> (u16, Value) {
    let (status, body) = answer(running, "/readyz").await;
    (status, serde_json::from_str(&body).unwrap())
}

async fn health(running: &Running) -> ServingStatus {
    let channel = portcullis_authz::client::channel(&running.endpoints[0]);
    let mut health = HealthClient::new(channel.await.unwrap());
    let question = HealthCheckRequest::default();
    health.check(question).await.unwrap().into_inner().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_which_snapshot_decides_and_why_none_does() {
    let folder = folder(&[("inventory.yaml", INVENTORY), ("p.yaml", "kind: [")]);
    let mut options = options(folder.path(), vec![tcp()]);
    options.observe.management = Some("127.0.0.1:0".parse().unwrap());
    let mut running = Running::start(options).await;

    assert_eq!(answer(&running, "/livez").await, (200, "ok\n".to_owned()));
    let (status, report) = ready(&running).await;
    assert_eq!((status, &report["ready"]), (503, &Value::Bool(false)));
    assert_eq!(report["snapshot"], Value::Null);
    let why = report["reasons"][0].as_str().unwrap();
    assert!(
        why.starts_with("there is no snapshot: ") && why.contains("p.yaml"),
        "{why}"
    );
    assert_eq!(health(&running).await, ServingStatus::NotServing);

    std::fs::write(folder.path().join("p.yaml"), allow("/public*")).unwrap();
    let first = running
        .until("a snapshot", |status| status.revision.is_some())
        .await;
    let (status, report) = ready(&running).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(report["reasons"], serde_json::json!([]));
    let snapshot = &report["snapshot"];
    assert_eq!(snapshot["revision"].as_str(), first.revision.as_deref());
    assert_eq!(snapshot["policies"], 1);
    assert!(
        snapshot["since"].as_str().unwrap().ends_with('Z'),
        "{snapshot}"
    );
    let serving = async {
        while health(&running).await != ServingStatus::Serving {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    within("grpc.health follows", serving).await;

    // A set that is refused leaves it ready, and says so.
    std::fs::write(folder.path().join("p.yaml"), "kind: [").unwrap();
    let failed = first.failed;
    running
        .until("a refusal", |status| status.failed > failed)
        .await;
    let (status, report) = ready(&running).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(
        report["snapshot"]["revision"].as_str(),
        first.revision.as_deref()
    );
    assert!(
        report["reload"]["error"]
            .as_str()
            .unwrap()
            .contains("p.yaml"),
        "{report}"
    );
    assert_eq!(health(&running).await, ServingStatus::Serving);
    running.stop().await;
}
