//! Policies over HTTP: each fact that Envoy carries decides, and its neighbour that differs in one thing does not.

use std::net::SocketAddr;
use std::time::Duration;

use portcullis_tests::authority::Names;
use portcullis_tests::client::{Answer, Client, Exchange};
use portcullis_tests::component::run_folder;
use portcullis_tests::envoy::config::{ExtAuthz, Listener, Service, jwt_authn};
use portcullis_tests::portcullis::Server;
use portcullis_tests::process::poll;
use portcullis_tests::token::Signer;
use serde_json::{Value, json};

use crate::setting::{Front, Identities, PORTCULLIS, envoy, pod};

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";

const POLICIES: &str = r#"
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: identity, namespace: shop },
  spec: { selector: { matchLabels: { app: identity } },
          rules: [ { from: [ { source: { principals: [ cluster.local/ns/shop/sa/client ] } } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: direct, namespace: shop },
  spec: { selector: { matchLabels: { app: direct } },
          rules: [ { from: [ { source: { ipBlocks: [ 127.1.0.0/16 ] } } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: remote, namespace: shop },
  spec: { selector: { matchLabels: { app: remote } },
          rules: [ { from: [ { source: { remoteIpBlocks: [ 203.0.113.0/24 ] } } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: role, namespace: shop },
  spec: { selector: { matchLabels: { app: role } },
          rules: [ { when: [ { key: "request.headers[x-role]", values: [ admin ] } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: tag, namespace: shop },
  spec: { selector: { matchLabels: { app: tag } }, action: DENY,
          rules: [ { when: [ { key: "request.headers[x-tag]", values: [ blocked ] } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: sni, namespace: shop },
  spec: { selector: { matchLabels: { app: sni } },
          rules: [ { when: [ { key: connection.sni, values: [ web.shop.example ] } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: { name: token, namespace: shop },
  spec: { selector: { matchLabels: { app: token } }, jwtRules: [ { issuer: issuer } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: token, namespace: shop },
  spec: { selector: { matchLabels: { app: token } },
          rules: [ { from: [ { source: { requestPrincipals: [ issuer/alice ] } } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: public, namespace: shop },
  spec: { selector: { matchLabels: { app: path } },
          rules: [ { to: [ { operation: { methods: [ GET ], paths: [ /public/* ] } } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy,
  metadata: { name: try, namespace: shop, annotations: { istio.io/dry-run: "true" } },
  spec: { selector: { matchLabels: { app: path } }, action: DENY,
          rules: [ { to: [ { operation: { paths: [ /public/old ] } } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: { name: strict, namespace: shop },
  spec: { selector: { matchLabels: { app: strict } }, mtls: { mode: STRICT } } }
"#;

const APPS: [&str; 10] = [
    "identity", "direct", "remote", "role", "tag", "sni", "token", "path", "strict", "free",
];

/// Portcullis over [`POLICIES`] with a pod for each of [`APPS`], and Envoy before it.
struct Stage {
    identities: Identities,
    front: Front,
    _server: Server,
}

impl Stage {
    /// Each listener is before the workload that its name begins with: `role`, `role-merged`.
    fn start(name: &str, listeners: impl FnOnce(&Identities) -> Vec<Listener>) -> Option<Self> {
        let executable = envoy()?;
        let folder = run_folder(name);
        let pods: Vec<String> = APPS.iter().map(|app| pod("shop", app)).collect();
        let pods = pods.join("---\n");
        let manifests = [("policies.yaml", POLICIES), ("pods.yaml", pods.as_str())];
        let config = json!({ "listener": { "debug_headers": true } });
        let server = Server::start(PORTCULLIS.as_ref(), &folder, &manifests, &config)
            .unwrap_or_else(|cause| panic!("{cause}"));
        let identities = Identities::new();
        let listeners = listeners(&identities);
        let front = Front::start(
            &executable,
            &folder,
            Service::Tcp(server.address),
            listeners,
        );
        Some(Self {
            identities,
            front,
            _server: server,
        })
    }

    fn at(&self, listener: &str) -> SocketAddr {
        self.front.address(listener)
    }
}

/// An HTTP listener before a workload.
fn before(name: &str) -> Listener {
    let app = name.split('-').next().unwrap();
    Listener::http(name)
        .normalisation("BASE")
        .extension("portcullis.workload", &format!("shop/{app}"))
}

fn from(mut client: Client, source: &str) -> Client {
    client.source = Some(source.parse().unwrap());
    client
}

fn verdict(answer: &Answer) -> (u16, &str, &str) {
    let header = |name| answer.header(name).unwrap_or("");
    (
        answer.status,
        header("x-portcullis-reason"),
        header("x-portcullis-policy"),
    )
}

#[track_caller]
fn check(client: &Client, exchange: &Exchange, expected: (u16, &str, &str)) {
    let answer = client.send(exchange).unwrap();
    assert_eq!(verdict(&answer), expected, "{exchange:?} from {client:?}");
}

#[test]
fn the_peers_identity_decides() {
    let Some(stage) = Stage::start("http-identity", |identities| {
        let tls = |name| before(name).tls(&identities.authority, &identities.server);
        let thrifty = ExtAuthz {
            certificate: false,
            ..ExtAuthz::default()
        };
        vec![
            tls("identity").filter(ExtAuthz::default().http()),
            tls("identity-thrifty").filter(thrifty.http()),
            before("identity-plain").filter(ExtAuthz::default().http()),
            tls("strict").filter(ExtAuthz::default().http()),
            before("strict-plain").filter(ExtAuthz::default().http()),
            before("free-plain").filter(ExtAuthz::default().http()),
        ]
    }) else {
        return;
    };
    let get = Exchange::get("/");
    let allowed = (200, "allowed_by", "shop/identity#rule[0]");
    let refused = (403, "no_allow_matched", "");
    for listener in ["identity", "identity-thrifty"] {
        let at = stage.at(listener);
        check(&stage.identities.workload(at, CLIENT), &get, allowed);
        check(
            &stage
                .identities
                .workload(at, "spiffe://cluster.local/ns/shop/sa/client2"),
            &get,
            refused,
        );
        check(
            &stage
                .identities
                .workload(at, "spiffe://other.domain/ns/shop/sa/client"),
            &get,
            refused,
        );
        check(&stage.identities.anonymous(at), &get, refused);
    }
    check(&Client::plain(stage.at("identity-plain")), &get, refused);

    // Envoy's own RBAC tries every URI of the certificate; source.principal alone carries the first.
    let names = Names {
        uris: vec!["spiffe://a/ns/x/sa/y".into(), CLIENT.into()],
        ..Names::default()
    };
    check(
        &stage.identities.client(stage.at("identity"), &names),
        &get,
        allowed,
    );
    check(
        &stage
            .identities
            .client(stage.at("identity-thrifty"), &names),
        &get,
        refused,
    );

    check(
        &stage.identities.workload(stage.at("strict"), CLIENT),
        &get,
        (200, "no_allow_policy", ""),
    );
    check(
        &Client::plain(stage.at("strict-plain")),
        &get,
        (403, "mtls_required", "shop/strict"),
    );
    check(
        &Client::plain(stage.at("free-plain")),
        &get,
        (200, "no_allow_policy", ""),
    );
}

#[test]
fn direct_and_remote_address_decide_apart() {
    let Some(stage) = Stage::start("http-address", |_| {
        let behind_one_proxy = |name| {
            before(name)
                .manager("use_remote_address", json!(true))
                .manager("xff_num_trusted_hops", json!(1))
        };
        let silent = ExtAuthz {
            remote_address: false,
            ..ExtAuthz::default()
        };
        vec![
            behind_one_proxy("direct").filter(ExtAuthz::default().http()),
            behind_one_proxy("remote").filter(ExtAuthz::default().http()),
            behind_one_proxy("remote-silent").filter(silent.http()),
        ]
    }) else {
        return;
    };
    let through = |address| Exchange::get("/").header("x-forwarded-for", address);
    let direct = Client::plain(stage.at("direct"));
    check(
        &from(direct.clone(), "127.1.2.3"),
        &through("203.0.113.7"),
        (200, "allowed_by", "shop/direct#rule[0]"),
    );
    check(
        &from(direct, "127.2.2.3"),
        &through("127.1.2.3"),
        (403, "no_allow_matched", ""),
    );

    let remote = Client::plain(stage.at("remote"));
    check(
        &remote,
        &through("203.0.113.7"),
        (200, "allowed_by", "shop/remote#rule[0]"),
    );
    check(
        &remote,
        &through("198.51.100.1"),
        (403, "no_allow_matched", ""),
    );
    check(&remote, &Exchange::get("/"), (403, "no_allow_matched", ""));
    // The client wrote the first entry itself: only the last is what the trusted proxy saw.
    check(
        &remote,
        &through("203.0.113.7, 198.51.100.1"),
        (403, "no_allow_matched", ""),
    );

    let silent = Client::plain(stage.at("remote-silent"));
    check(
        &silent,
        &through("203.0.113.7"),
        (403, "remote_address_unknown", ""),
    );
}

#[test]
fn repeated_headers_are_matched_one_by_one_where_envoy_carries_them_so() {
    let Some(stage) = Stage::start("http-headers", |_| {
        let merged = ExtAuthz {
            raw_headers: false,
            ..ExtAuthz::default()
        };
        let mut listeners = Vec::new();
        for app in ["role", "tag"] {
            listeners.push(before(app).filter(ExtAuthz::default().http()));
            listeners.push(before(&format!("{app}-merged")).filter(merged.http()));
        }
        listeners
    }) else {
        return;
    };
    let client = |listener| Client::plain(stage.at(listener));
    let role = |values: &[&str]| {
        values.iter().fold(Exchange::get("/"), |exchange, value| {
            exchange.header("X-Role", value)
        })
    };
    let allowed = (200, "allowed_by", "shop/role#rule[0]");
    let refused = (403, "no_allow_matched", "");
    for listener in ["role", "role-merged"] {
        check(&client(listener), &role(&["admin"]), allowed);
        check(&client(listener), &role(&["administrator"]), refused);
        check(&client(listener), &role(&[]), refused);
    }
    check(&client("role"), &role(&["user", "admin"]), allowed);
    check(&client("role"), &role(&["user,admin"]), refused);
    // Merged, both look the same: the closed answer holds for either.
    check(&client("role-merged"), &role(&["user", "admin"]), refused);
    check(&client("role-merged"), &role(&["user,admin"]), refused);

    let tag = |values: &[&str]| {
        values.iter().fold(Exchange::get("/"), |exchange, value| {
            exchange.header("x-tag", value)
        })
    };
    let denied = (403, "denied_by", "shop/tag#rule[0]");
    for listener in ["tag", "tag-merged"] {
        check(&client(listener), &tag(&["fine", "blocked"]), denied);
        check(
            &client(listener),
            &tag(&["fine", "unblocked"]),
            (200, "no_allow_policy", ""),
        );
    }
    check(
        &client("tag"),
        &tag(&["fine,blocked"]),
        (200, "no_allow_policy", ""),
    );
    check(&client("tag-merged"), &tag(&["fine,blocked"]), denied);
}

#[test]
fn the_server_name_decides() {
    let Some(stage) = Stage::start("http-sni", |identities| {
        vec![
            before("sni")
                .tls(&identities.authority, &identities.server)
                .filter(ExtAuthz::default().http()),
        ]
    }) else {
        return;
    };
    let named = |sni: &str| {
        let mut client = stage.identities.anonymous(stage.at("sni"));
        client.sni = Some(sni.into());
        client
    };
    let allowed = (200, "allowed_by", "shop/sni#rule[0]");
    check(&named("web.shop.example"), &Exchange::get("/"), allowed);
    check(&named("WEB.shop.example"), &Exchange::get("/"), allowed);
    check(
        &named("api.shop.example"),
        &Exchange::get("/"),
        (403, "no_allow_matched", ""),
    );
    // The host header is not the server name.
    let host = Exchange::get("/").host("web.shop.example");
    check(
        &stage.identities.anonymous(stage.at("sni")),
        &host,
        (403, "no_allow_matched", ""),
    );
}

#[test]
fn a_token_that_envoy_verified_decides_and_one_that_nobody_did_is_refused() {
    let signer = Signer::new().unwrap();
    let jwks = signer.jwks();
    let Some(stage) = Stage::start("http-token", |_| {
        vec![
            before("token")
                .filter(jwt_authn(&jwks))
                .filter(ExtAuthz::default().http()),
            before("token-unverified").filter(ExtAuthz::default().http()),
        ]
    }) else {
        return;
    };
    let bearing = |signer: &Signer, subject: &str| {
        let token = signer
            .sign(&json!({ "iss": "issuer", "sub": subject }))
            .unwrap();
        Exchange::get("/").header("authorization", &format!("Bearer {token}"))
    };
    let client = Client::plain(stage.at("token"));
    check(
        &client,
        &bearing(&signer, "alice"),
        (200, "allowed_by", "shop/token#rule[0]"),
    );
    check(
        &client,
        &bearing(&signer, "mallory"),
        (403, "no_allow_matched", ""),
    );
    check(&client, &Exchange::get("/"), (403, "no_allow_matched", ""));
    // Signed with another key: Envoy itself answers, nobody is asked.
    check(
        &client,
        &bearing(&Signer::new().unwrap(), "alice"),
        (401, "", ""),
    );

    let client = Client::plain(stage.at("token-unverified"));
    check(
        &client,
        &bearing(&signer, "alice"),
        (401, "token_unverified", "shop/token"),
    );
    check(&client, &Exchange::get("/"), (403, "no_allow_matched", ""));
}

#[test]
fn the_normalised_path_decides_and_the_decision_is_in_the_access_log() {
    let Some(stage) = Stage::start("http-path", |_| {
        vec![
            before("path").filter(ExtAuthz::default().http()),
            Listener::http("nowhere")
                .extension("portcullis.workload", "shop/nobody")
                .filter(ExtAuthz::default().http()),
        ]
    }) else {
        return;
    };
    let client = Client::plain(stage.at("path"));
    let allowed = (200, "allowed_by", "shop/public#rule[0]");
    let refused = (403, "no_allow_matched", "");
    check(&client, &Exchange::get("/public/x"), allowed);
    check(&client, &Exchange::get("/admin/../public/x?q=1"), allowed);
    check(&client, &Exchange::get("/public/../admin"), refused);
    check(&client, &Exchange::get("/public/%2e%2e/admin"), refused);
    check(&client, &Exchange::get("/public/x").method("POST"), refused);
    check(&client, &Exchange::get("/admin#/public/x"), refused);
    check(
        &client,
        &Exchange::get("/public/old").header("x-mark", "tried"),
        allowed,
    );
    check(
        &Client::plain(stage.at("nowhere")),
        &Exchange::get("/"),
        (403, "unknown_destination", ""),
    );

    let logged: Value = poll(Duration::from_secs(10), || {
        let lines = stage.front.envoy.access_log().ok()?;
        lines.into_iter().find(|line| line["mark"] == "tried")
    })
    .expect("the access log has the request");
    let decision = &logged["http"]["portcullis"];
    assert_eq!(decision["decision"], "allow", "{logged}");
    assert_eq!(decision["policies"], json!(["shop/public#rule[0]"]));
    assert_eq!(decision["dry_run"]["decision"], "deny");
    assert_eq!(decision["dry_run"]["shadow"]["deny"], "shop/try#rule[0]");
}
