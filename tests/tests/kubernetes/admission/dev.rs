//! `portcullis dev` beside a cluster: one process judges what is applied and answers requests by it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use portcullis_authz::check_request;
use portcullis_authz::client::Client as Asker;
use portcullis_authz::endpoint::Endpoint;
use portcullis_tests::ports::free_address;
use portcullis_tests::process::Daemon;
use serde_json::{Value, json};

use super::sources::shared;
use super::steady::{asked, configured};
use super::webhook::{bad, path, policy, send};
use crate::cluster::{self, LIMIT, until};

const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");
const PLURAL: &str = "authorizationpolicies";

/// Starts it, and says where it answers requests.
async fn start(kubeconfig: &Path, folder: &Path, webhook: SocketAddr) -> (Daemon, SocketAddr) {
    let mut command = Command::new(PORTCULLIS);
    command
        .args(["dev", "--listen", "127.0.0.1:0", "--admission-listen"])
        .arg(webhook.to_string())
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .current_dir(folder);
    let mut daemon = Daemon::start(&mut command, &folder.join("log")).unwrap();
    tokio::task::spawn_blocking(move || {
        let log = |daemon: &Daemon| daemon.log();
        let mut text = String::new();
        for _ in 0..u64::MAX {
            let ended = daemon
                .wait_until(Duration::from_millis(200), || false)
                .err();
            let ended = ended.filter(|e| e.kind() != std::io::ErrorKind::TimedOut);
            assert!(ended.is_none(), "{ended:?}");
            text = log(&daemon);
            if text.contains("Ctrl-C ends") {
                break;
            }
        }
        let (_, rest) = text.split_once("ext_authz on ").unwrap();
        let address = rest.split_whitespace().next().unwrap();
        let plain: String = address
            .chars()
            .filter(|c| c.is_ascii_digit() || ".:".contains(*c))
            .collect();
        (daemon, plain.parse().unwrap())
    })
    .await
    .unwrap()
}

/// The policy that denies `path` at the pod, if one does.
async fn denied_by(asker: &mut Asker, path: &str) -> Option<String> {
    let check = json!({ "attributes": {
        "source": { "address": { "socketAddress": { "address": "10.1.0.7", "portValue": 40000 } } },
        "destination": { "address": { "socketAddress": { "address": "10.77.0.1", "portValue": 8080 } } },
        "request": { "http": { "method": "GET", "path": path, "host": "web", "scheme": "http" } },
    } });
    let text = check.to_string();
    let line = check_request::lines(text.as_bytes()).next().unwrap();
    let request = tonic::Request::new(line.request.unwrap());
    let answer = asker.check(request).await.unwrap();
    let text = format!("{answer:?}");
    let denied = text.contains("denied_by");
    denied.then_some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_judges_what_is_applied_and_serves_what_it_took() {
    let Some((cluster, client, folder)) = shared("kubernetes-dev").await else {
        return;
    };
    let webhook = free_address().unwrap();
    let namespace = configured(&client, "portcullis-dev", &format!("https://{webhook}")).await;
    cluster::pod(&client, &namespace, "web", "10.77.0.1").await;
    let (mut daemon, address) = start(&cluster.server.kubeconfig(), &folder, webhook).await;
    assert!(daemon.log().contains("the cluster of "), "{}", daemon.log());
    assert!(
        !folder.join("portcullis-dev").exists(),
        "no example beside a cluster"
    );
    asked(&client, &namespace).await;

    let mut asker = Asker::connect(&Endpoint::Tcp(address)).await.unwrap();
    assert_eq!(denied_by(&mut asker, "/closed").await, None);
    let here = path(&namespace, PLURAL, "", "");
    let said = send(&client, "POST", &here, &policy("worse", bad())).await;
    assert!(
        said.status == 403 && said.message().contains("PC0102"),
        "{said:?}"
    );
    let deny = json!({
        "selector": { "matchLabels": { "app": "web" } }, "action": "DENY",
        "rules": [{ "to": [{ "operation": { "paths": ["/closed"] } }] }],
    });
    let said = send(&client, "POST", &here, &policy("closed", deny)).await;
    assert_eq!(said.status, 201, "{said:?}");
    let wanted = format!("{namespace}/closed");
    until("the policy is enforced", async || {
        let told = denied_by(&mut asker, "/closed").await;
        told.is_some_and(|told| told.contains(&wanted))
    })
    .await;
    assert_eq!(denied_by(&mut asker, "/open").await, None);
    let at = path(&namespace, PLURAL, "closed", "");
    let said = send(&client, "DELETE", &at, &Value::Null).await;
    assert_eq!(said.status, 200, "{said:?}");
    until("what is deleted denies no more", async || {
        denied_by(&mut asker, "/closed").await.is_none()
    })
    .await;

    let ended = tokio::task::spawn_blocking(move || daemon.terminate(LIMIT).unwrap());
    assert!(ended.await.unwrap().unwrap().success());
}
