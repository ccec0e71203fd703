//! The policies that are served and the request that they are asked about: those of
//! `cargo bench -p portcullis-policy`, one of which applies.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use envoy_types::ext_authz::v3::pb::CheckRequest;
use envoy_types::pb::envoy::config::core::v3::address::Address as Kind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use serde_json::json;

const INVENTORY: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web}
status: {podIP: 10.0.0.1, phase: Running}
";

fn policy(text: &mut String, i: usize) {
    let applies = i == 0;
    let (account, path, block) = match applies {
        true => (
            "client".to_owned(),
            "/api/*".to_owned(),
            "10.9.0.0/16".to_owned(),
        ),
        false => (
            format!("client-{i}"),
            format!("/api/v{i}/*"),
            format!("10.{}.0.0/16", i % 200),
        ),
    };
    let action = match !applies && i.is_multiple_of(10) {
        true => "DENY",
        false => "ALLOW",
    };
    // Writing into a text does not fail.
    let _ = write!(
        text,
        "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p{i:05}, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  action: {action}
  rules:
  - from:
    - source:
        principals: [\"cluster.local/ns/front/sa/{account}\"]
        ipBlocks: [\"{block}\"]
    to:
    - operation:
        methods: [GET, POST]
        paths: [\"{path}\"]
        ports: [\"8080\"]
"
    );
}

/// Writes `count` policies and a configuration with a gRPC and an HTTP listener into `folder`.
///
/// With `logged`, decisions are counted, and this share of the allows is written to a decision log.
pub fn write(folder: &Path, count: usize, logged: Option<&str>) -> anyhow::Result<PathBuf> {
    let mut text = INVENTORY.to_owned();
    for i in 0..count {
        policy(&mut text, i);
    }
    // For the HTTP listener, where nobody says who the client is.
    text.push_str(
        "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: plain, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{to: [{operation: {methods: [GET], paths: [\"/plain/*\"]}}]}]
",
    );
    std::fs::write(folder.join("policies.yaml"), text)?;
    let mut config = json!({
        "policies": ["policies.yaml"],
        "listeners": [
            { "address": "127.0.0.1:0" },
            { "address": "127.0.0.2:0", "dialect": "traefik", "workload": "shop/web-1" },
        ],
        "log": { "format": "json", "level": "portcullis_authz::server=info,warn" },
    });
    if let (Some(share), Some(config)) = (logged, config.as_object_mut()) {
        config.insert("management".into(), json!({ "address": "127.0.0.1:0" }));
        let log = json!({ "output": "file", "file": "decisions.log", "allows": share });
        config.insert("decision_log".into(), log);
    }
    let file = folder.join("portcullis.yaml");
    std::fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
    Ok(file)
}

/// Digits of a path that differ from request to request.
pub const DIGITS: &str = "0000000000";

fn at(address: &str, port: u32, principal: &str) -> Peer {
    Peer {
        address: Some(Address {
            address: Some(Kind::SocketAddress(SocketAddress {
                address: address.to_owned(),
                port_specifier: Some(PortSpecifier::PortValue(port)),
                ..SocketAddress::default()
            })),
        }),
        principal: principal.to_owned(),
        ..Peer::default()
    }
}

/// A request that is allowed, whatever the digits in its path.
pub fn request() -> CheckRequest {
    let headers = (0..10).map(|i| (format!("x-header-{i}"), "value".to_owned()));
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(at(
                "10.9.1.1",
                40000,
                "spiffe://cluster.local/ns/front/sa/client",
            )),
            destination: Some(at("10.0.0.1", 8080, "")),
            request: Some(Request {
                http: Some(HttpRequest {
                    method: "GET".to_owned(),
                    path: format!("/api/items/{DIGITS}"),
                    host: "shop.example.com".to_owned(),
                    scheme: "https".to_owned(),
                    headers: headers.collect(),
                    ..HttpRequest::default()
                }),
                ..Request::default()
            }),
            ..AttributeContext::default()
        }),
    }
}
