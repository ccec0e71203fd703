//! The service as a gRPC client sees it that shares no code with ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::component::{self, run_folder};
use portcullis_tests::envoy::config::{ExtAuthz, Listener, Service};
use portcullis_tests::portcullis::Server;
use portcullis_tests::process;
use serde_json::{Value, json};

use crate::setting::{Front, PORTCULLIS, envoy, pod};

const CHECK: &str = "envoy.service.auth.v3.Authorization/Check";

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: open, namespace: shop }
spec: { rules: [ { to: [ { operation: { paths: [ /open ] } } ] } ] }
";

/// grpcurl with these arguments; what it printed on standard output.
fn call(grpcurl: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(grpcurl);
    command
        .args(["-plaintext", "-max-time", "20"])
        .args(arguments);
    let output = process::run(&mut command, Duration::from_secs(60)).unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn question(path: &str) -> String {
    json!({ "attributes": {
        "source": { "address": { "socketAddress": { "address": "10.0.0.1", "portValue": 1 } } },
        "destination": { "address": { "socketAddress": { "address": "10.0.0.2", "portValue": 80 } } },
        "request": { "http": { "method": "GET", "path": path, "host": "web", "headers": { ":path": path } } },
        "contextExtensions": { "portcullis.workload": "shop/web" },
    } })
    .to_string()
}

fn serve(name: &str, config: &Value) -> (Server, PathBuf) {
    let folder = run_folder(name);
    let pods = pod("shop", "web");
    let manifests = [("policy.yaml", POLICY), ("pods.yaml", pods.as_str())];
    let server = Server::start(PORTCULLIS.as_ref(), &folder, &manifests, config)
        .unwrap_or_else(|cause| panic!("{cause}"));
    (server, folder)
}

#[test]
fn reflection_health_and_check_work_from_another_implementation() {
    let Some(grpcurl) = component::require(component::grpcurl()) else {
        return;
    };
    let (server, _) = serve("grpc", &json!({}));
    let at = server.address.to_string();

    let services = call(&grpcurl, &[&at, "list"]);
    for service in [
        "envoy.service.auth.v3.Authorization",
        "grpc.health.v1.Health",
    ] {
        assert!(services.lines().any(|line| line == service), "{services}");
    }
    assert!(services.contains("grpc.reflection.v1"), "{services}");
    let described = call(
        &grpcurl,
        &[&at, "describe", "envoy.service.auth.v3.CheckRequest"],
    );
    assert!(described.contains("AttributeContext"), "{described}");

    for service in ["", "envoy.service.auth.v3.Authorization"] {
        let asked = json!({ "service": service }).to_string();
        let health = call(
            &grpcurl,
            &["-d", &asked, &at, "grpc.health.v1.Health/Check"],
        );
        let health: Value = serde_json::from_str(&health).unwrap();
        assert_eq!(health["status"], "SERVING", "`{service}`");
    }

    let check = |path: &str| -> Value {
        serde_json::from_str(&call(&grpcurl, &["-d", &question(path), &at, CHECK])).unwrap()
    };
    let allowed = check("/open");
    assert_eq!(
        allowed["status"]["code"].as_i64().unwrap_or(0),
        0,
        "{allowed}"
    );
    assert!(allowed.get("okResponse").is_some(), "{allowed}");
    assert_eq!(
        allowed["dynamicMetadata"]["portcullis"]["policies"],
        json!(["shop/open#rule[0]"])
    );
    let denied = check("/closed");
    assert_eq!(denied["status"]["code"], 7, "{denied}");
    assert_eq!(
        denied["deniedResponse"]["status"]["code"], "Forbidden",
        "{denied}"
    );
    assert!(
        denied["deniedResponse"].get("body").is_none(),
        "no body unless configured: {denied}"
    );
    assert_eq!(
        denied["dynamicMetadata"]["portcullis"]["reason"],
        "no_allow_matched"
    );
}

#[test]
fn an_empty_check_request_is_denied_by_name() {
    let Some(grpcurl) = component::require(component::grpcurl()) else {
        return;
    };
    let (server, _) = serve("grpc-empty", &json!({}));
    let at = server.address.to_string();
    for asked in ["{}", r#"{ "attributes": {} }"#] {
        let answer: Value =
            serde_json::from_str(&call(&grpcurl, &["-d", asked, &at, CHECK])).unwrap();
        assert_eq!(answer["status"]["code"], 7, "{answer}");
        let reason = answer["dynamicMetadata"]["portcullis"]["reason"]
            .as_str()
            .unwrap();
        assert!(
            ["invalid_request", "unknown_destination"].contains(&reason),
            "{answer}"
        );
    }
}

#[test]
fn a_unix_socket_serves_grpcurl_and_envoy_alike() {
    let Some(executable) = envoy() else { return };
    // The path of a unix socket has to fit into 107 octets; a target folder need not.
    let socket = std::env::temp_dir().join(format!("portcullis-{}.sock", std::process::id()));
    let config = json!({ "listeners": [{ "address": format!("unix:{}", socket.display()) }] });
    let (server, folder) = serve("grpc-unix", &config);
    let listener = Listener::http("web")
        .extension("portcullis.workload", "shop/web")
        .filter(ExtAuthz::default().http());
    let front = Front::start(
        &executable,
        &folder,
        Service::Unix(socket.clone()),
        vec![listener],
    );
    let client = Client::plain(front.address("web"));
    assert_eq!(client.send(&Exchange::get("/open")).unwrap().status, 200);
    assert_eq!(client.send(&Exchange::get("/closed")).unwrap().status, 403);
    assert_eq!(front.envoy.counter("ext_authz.error").unwrap(), 0);
    if let Some(grpcurl) = component::require(component::grpcurl()) {
        let path = socket.to_string_lossy();
        // C-core clients and this one send the socket's path as :authority.
        let services = call(&grpcurl, &["-unix", &path, "list"]);
        assert!(
            services.contains("envoy.service.auth.v3.Authorization"),
            "{services}"
        );
    }
    drop(server);
    let _gone = std::fs::remove_file(socket);
}
