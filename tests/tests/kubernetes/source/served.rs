//! `authz serve` in front of a real Envoy: what is applied answers the next requests.

use std::time::{Duration, Instant};

use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::component::run_folder;
use portcullis_tests::envoy::config::{ExtAuthz, Listener, Service};
use portcullis_tests::portcullis::Server;
use portcullis_tests::ports::free_address;
use portcullis_tests::process::poll;
use serde_json::{Value, json};

use super::followed::{paths, policy};
use crate::cluster::{apply, delete, namespace, pod, shared};
use crate::setting::{Front, PORTCULLIS, envoy};

const APPLIES: usize = 50;

#[test]
fn what_is_applied_answers_the_next_requests_of_a_real_envoy() {
    let Some(executable) = envoy() else { return };
    let Some(cluster) = shared() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(cluster.client());
    let shop = runtime.block_on(namespace(&client, "served"));
    runtime.block_on(pod(&client, &shop, "web", "10.32.0.1"));

    let folder = run_folder("kubernetes-served");
    let management = free_address().unwrap();
    let config = json!({
        "listener": { "debug_headers": true },
        "management": { "address": management.to_string() },
        "kubernetes": { "kubeconfig": cluster.server.kubeconfig(), "namespaces": [shop], "status": "none" },
    });
    // A file beside the API server: both are in force.
    let in_file = policy(
        &shop,
        "from-a-file",
        json!({ "action": "DENY", "rules": paths(&["/file"]) }),
    );
    let in_file = in_file.to_string();
    let manifests = [("file.yaml", in_file.as_str())];
    let server = Server::start(PORTCULLIS.as_ref(), &folder, &manifests, &config)
        .unwrap_or_else(|cause| panic!("{cause}"));
    let listener = Listener::http("web")
        .extension("portcullis.workload", &format!("{shop}/web"))
        .filter(ExtAuthz::default().http());
    let front = Front::start(
        &executable,
        &folder,
        Service::Tcp(server.address),
        vec![listener],
    );
    let asking = Client::plain(front.address("web"));
    let status = |path: &str| asking.send(&Exchange::get(path)).unwrap().status;
    assert_eq!((status("/"), status("/file")), (200, 403));

    // Readiness tells what is followed.
    let operators = Client::plain(management);
    let ready = operators.send(&Exchange::get("/readyz")).unwrap();
    assert_eq!(ready.status, 200);
    let ready: Value = serde_json::from_slice(ready.body.as_ref()).unwrap();
    let followed = &ready["kubernetes"];
    assert_eq!(followed["synced"], json!(true), "{ready}");
    let kinds = followed["kinds"].as_array().unwrap();
    let pods = kinds
        .iter()
        .find(|kind| kind["resource"] == "pods")
        .unwrap();
    assert_eq!(
        (&pods["state"], &pods["objects"]),
        (&json!("following"), &json!(1))
    );

    // From the answer to `kubectl apply` until the answer of Envoy.
    let mut times: Vec<Duration> = Vec::new();
    for n in 0..APPLIES {
        let path = format!("/closed-{n}");
        let deny = policy(
            &shop,
            "closed",
            json!({ "action": "DENY", "rules": paths(&[&path]) }),
        );
        runtime.block_on(apply(&client, &deny)).unwrap();
        let applied = Instant::now();
        let denied = poll(Duration::from_secs(30), || {
            (status(&path) == 403).then_some(())
        });
        assert!(denied.is_some(), "{path} is not denied");
        times.push(applied.elapsed());
    }
    times.sort();
    eprintln!(
        "from apply to enforced, {APPLIES} times: p50 {:?}, p99 {:?}",
        times[APPLIES / 2],
        times[APPLIES - 1]
    );
    let deny = policy(&shop, "closed", json!({}));
    runtime.block_on(delete(&client, &deny));
    let last = format!("/closed-{}", APPLIES - 1);
    assert!(
        poll(Duration::from_secs(30), || (status(&last) == 200)
            .then_some(()))
        .is_some()
    );

    // A file that changes does so beside the API server; a bad one is refused whole.
    server
        .replace("file.yaml", &in_file.replace("/file", "/other"))
        .unwrap();
    assert!(
        poll(Duration::from_secs(30), || (status("/other") == 403)
            .then_some(()))
        .is_some()
    );
    server.replace("file.yaml", "kind: [").unwrap();
    let refused = poll(Duration::from_secs(30), || {
        let ready = operators.send(&Exchange::get("/readyz")).ok()?;
        let ready: Value = serde_json::from_slice(ready.body.as_ref()).ok()?;
        ready["reload"]["error"].as_str().map(str::to_owned)
    });
    assert!(refused.unwrap().contains("file.yaml"));
    assert_eq!((status("/other"), status("/file")), (403, 200));

    let metrics = operators.send(&Exchange::get("/metrics")).unwrap();
    let metrics = String::from_utf8_lossy(metrics.body.as_ref()).into_owned();
    for line in [
        "portcullis_source_synced 1",
        "portcullis_source_kind_state{resource=\"pods\",state=\"following\"} 1",
        "portcullis_source_objects{resource=\"pods\"} 1",
        "portcullis_source_policies_refused{instead=\"closed\"} 0",
    ] {
        assert!(
            metrics.lines().any(|known| known.starts_with(line)),
            "{line} in\n{metrics}"
        );
    }
}
