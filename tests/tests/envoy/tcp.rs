//! Policies over TCP: the network filter asks with what a connection has, and a denial closes it.

use portcullis_tests::client::Client;
use portcullis_tests::component::run_folder;
use portcullis_tests::envoy::config::{ExtAuthz, Listener, Service};
use portcullis_tests::portcullis::Server;
use serde_json::json;

use crate::setting::{Front, Identities, PORTCULLIS, envoy, pod};

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";

const POLICIES: &str = r#"
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: identity, namespace: shop },
  spec: { selector: { matchLabels: { app: db } },
          rules: [ { from: [ { source: { principals: [ cluster.local/ns/shop/sa/client ] } } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: sni, namespace: shop },
  spec: { selector: { matchLabels: { app: named } },
          rules: [ { when: [ { key: connection.sni, values: [ db.shop.example ] } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: web, namespace: shop },
  spec: { selector: { matchLabels: { app: web } },
          rules: [ { from: [ { source: { principals: [ cluster.local/ns/shop/sa/client ] } } ],
                     to: [ { operation: { methods: [ GET ] } } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: address, namespace: shop },
  spec: { selector: { matchLabels: { app: cache } }, action: DENY,
          rules: [ { from: [ { source: { ipBlocks: [ 127.6.0.0/16 ] } } ] } ] } }
"#;

#[test]
fn identity_address_and_server_name_decide() {
    let Some(executable) = envoy() else { return };
    let folder = run_folder("tcp");
    let pods: Vec<String> = ["db", "named", "web", "cache"]
        .iter()
        .map(|app| pod("shop", app))
        .collect();
    let pods = pods.join("---\n");
    let manifests = [("policies.yaml", POLICIES), ("pods.yaml", pods.as_str())];
    let server = Server::start(PORTCULLIS.as_ref(), &folder, &manifests, &json!({}))
        .unwrap_or_else(|cause| panic!("{cause}"));
    let identities = Identities::new();
    let before = |app: &str| {
        let workload = ("x-portcullis-workload".to_owned(), format!("shop/{app}"));
        let settings = ExtAuthz {
            metadata: vec![workload],
            ..ExtAuthz::default()
        };
        Listener::tcp(app).filter(settings.network())
    };
    let listeners = vec![
        before("db").tls(&identities.authority, &identities.server),
        before("named").tls(&identities.authority, &identities.server),
        before("web").tls(&identities.authority, &identities.server),
        before("cache"),
    ];
    let front = Front::start(
        &executable,
        &folder,
        Service::Tcp(server.address),
        listeners,
    );
    let echoed = |client: &Client| client.echo("ping").unwrap();

    let at = front.address("db");
    assert_eq!(echoed(&identities.workload(at, CLIENT)), "ping");
    assert_eq!(echoed(&identities.workload(at, OTHER)), "");
    assert_eq!(echoed(&identities.anonymous(at)), "");

    let mut client = identities.anonymous(front.address("named"));
    client.sni = Some("db.shop.example".into());
    assert_eq!(echoed(&client), "ping");
    client.sni = Some("web.shop.example".into());
    assert_eq!(echoed(&client), "");

    // An ALLOW rule with an HTTP field is dropped on TCP, and its policy still closes the port.
    assert_eq!(
        echoed(&identities.workload(front.address("web"), CLIENT)),
        ""
    );

    let mut client = Client::plain(front.address("cache"));
    client.source = Some("127.5.0.1".parse().unwrap());
    assert_eq!(echoed(&client), "ping");
    client.source = Some("127.6.0.1".parse().unwrap());
    assert_eq!(echoed(&client), "");
    assert_eq!(front.envoy.counter("authorization.error").unwrap(), 0);
}

#[test]
fn the_destination_is_found_by_its_address_where_nothing_names_it() {
    let Some(executable) = envoy() else { return };
    let folder = run_folder("tcp-destination");
    let address = portcullis_tests::ports::free_address().unwrap();
    let workload = json!({ "namespace": "shop", "name": "db", "labels": { "app": "db" }, "addresses": [address.ip()] });
    let config = json!({ "workloads": [workload] });
    let server = Server::start(
        PORTCULLIS.as_ref(),
        &folder,
        &[("policies.yaml", POLICIES)],
        &config,
    )
    .unwrap_or_else(|cause| panic!("{cause}"));
    let identities = Identities::new();
    let listeners = vec![
        Listener::tcp("db")
            .tls(&identities.authority, &identities.server)
            .filter(ExtAuthz::default().network()),
    ];
    let front = Front::start(
        &executable,
        &folder,
        Service::Tcp(server.address),
        listeners,
    );
    let at = front.address("db");
    assert_eq!(
        identities.workload(at, CLIENT).echo("ping").unwrap(),
        "ping"
    );
    assert_eq!(identities.workload(at, OTHER).echo("ping").unwrap(), "");
}
