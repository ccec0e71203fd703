//! The HTTP configurations that ship under `deploy/`, whole: client, Envoy, Portcullis, workload.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::component::{run_folder, workspace};
use portcullis_tests::echo::Echo;
use portcullis_tests::envoy::Envoy;
use portcullis_tests::portcullis::Server;
use serde_json::json;

use crate::setting::{PORTCULLIS, envoy, pod};

const POLICIES: &str = r#"
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: readers, namespace: shop },
  spec: { selector: { matchLabels: { app: web } },
          rules: [ { to: [ { operation: { methods: [ GET ], paths: [ /books/* ] } } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: world, namespace: istio-system },
  spec: { selector: { matchLabels: { app: ingress } },
          rules: [ { from: [ { source: { remoteIpBlocks: [ 203.0.113.0/24 ] } } ] } ] } }
"#;

/// One shipped configuration, moved to free ports of loopback and nothing else.
struct Stage {
    address: SocketAddr,
    _envoy: Envoy,
    _server: Server,
    _workload: Echo,
}

impl Stage {
    fn start(executable: &Path, file: &str, target: &str) -> Self {
        let folder = run_folder(&format!("shipped-{file}"));
        let workload = Echo::http().unwrap();
        let pods = [pod("shop", "web"), pod("istio-system", "ingress")].join("---\n");
        let manifests = [("policies.yaml", POLICIES), ("pods.yaml", pods.as_str())];
        let config = json!({ "listener": { "target": target } });
        let server = Server::start(PORTCULLIS.as_ref(), &folder, &manifests, &config)
            .unwrap_or_else(|cause| panic!("{cause}"));
        let mut text =
            fs::read_to_string(workspace().join("deploy/proxies/envoy").join(file)).unwrap();
        let mut moved = |from: &str, to: &str| {
            assert_eq!(text.matches(from).count(), 1, "`{from}` in {file}");
            text = text.replace(from, to);
        };
        let own = if file == "http.yaml" {
            "10000"
        } else {
            "10080"
        };
        moved(
            &format!("address: 0.0.0.0, port_value: {own}"),
            "address: 127.0.0.1, port_value: 0",
        );
        moved(
            "port_value: 9191 ",
            &format!("port_value: {} ", server.address.port()),
        );
        moved(
            "port_value: 8080 ",
            &format!("port_value: {} ", workload.address.port()),
        );
        // A busy machine must not turn into denials here.
        text = text.replace("timeout: 0.25s", "timeout: 10s");
        let config = folder.join(file);
        fs::write(&config, text).unwrap();
        let envoy = Envoy::start_file(executable, &config, &folder)
            .unwrap_or_else(|cause| panic!("{cause}"));
        let address = envoy
            .listener("inbound")
            .or_else(|_| envoy.listener("ingress"))
            .unwrap();
        Self {
            address,
            _envoy: envoy,
            _server: server,
            _workload: workload,
        }
    }
}

#[test]
fn the_http_configuration_decides_and_keeps_our_headers_to_itself() {
    let Some(executable) = envoy() else { return };
    let stage = Stage::start(&executable, "http.yaml", "auto");
    let client = Client::plain(stage.address);
    let claimed = Exchange::get("/books/moby-dick")
        .header("x-portcullis-decision", "allow")
        .header("x-portcullis-workload", "shop/other")
        .header("x-own", "kept");
    let answer = client.send(&claimed).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("x-own: kept"), "{answer:?}");
    assert!(
        !answer.body.contains("x-portcullis"),
        "what a client claims stops at Envoy: {answer:?}"
    );
    assert_eq!(client.send(&claimed.method("DELETE")).unwrap().status, 403);
    assert_eq!(
        client
            .send(&Exchange::get("/books/../admin"))
            .unwrap()
            .status,
        403
    );
}

#[test]
fn the_gateway_configuration_knows_the_client_behind_the_load_balancer() {
    let Some(executable) = envoy() else { return };
    let stage = Stage::start(&executable, "gateway.yaml", "gateway");
    let client = Client::plain(stage.address);
    let through = |entries: &str| Exchange::get("/").header("x-forwarded-for", entries);
    let status = |exchange: &Exchange| client.send(exchange).unwrap().status;
    assert_eq!(status(&through("203.0.113.7")), 200);
    assert_eq!(status(&through("198.51.100.1, 203.0.113.7")), 200);
    assert_eq!(
        status(&through("203.0.113.7, 198.51.100.1")),
        403,
        "only the load balancer's own entry counts"
    );
    assert_eq!(status(&Exchange::get("/")), 403);
    let claimed = Exchange::get("/").header("x-portcullis-remote-address", "203.0.113.7");
    assert_eq!(
        status(&claimed),
        403,
        "a client's header is no metadata of ours"
    );
}
