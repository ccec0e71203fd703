//! Allowed, denied, and everything a client may forge, through each proxy and beside it.

use portcullis_tests::client::{Client, Exchange};

use crate::proxy::Kind;
use crate::stage::{ALICE, Stage};

const POLICIES: &str = r#"
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: admin, namespace: shop },
  spec: { action: DENY, rules: [ { to: [ { operation: { paths: [ /admin* ] } } ] } ] } }
---
{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: web, namespace: shop },
  spec: { rules: [
    { to: [ { operation: { methods: [ GET ], notPaths: [ /alice*, /near*, /client*, /tag*, /host*, /https*, /port* ] } } ] },
    { from: [ { source: { principals: [ cluster.local/ns/shop/sa/alice ] } } ], to: [ { operation: { paths: [ /alice* ] } } ] },
    { from: [ { source: { ipBlocks: [ 127.1.0.0/16 ] } } ], to: [ { operation: { paths: [ /near* ] } } ] },
    { from: [ { source: { remoteIpBlocks: [ 127.1.0.0/16 ] } } ], to: [ { operation: { paths: [ /client* ] } } ] },
    { to: [ { operation: { paths: [ /tag* ] } } ], when: [ { key: "request.headers[x-tag]", values: [ good ] } ] },
    { to: [ { operation: { paths: [ /host* ], hosts: [ shop.example ] } } ] },
    { to: [ { operation: { paths: [ /port* ], ports: [ "8080" ] } } ] } ] } }
"#;

/// Spellings of a path that DENY `/admin*` must hold for, where the mesh decodes and merges slashes.
const SPELLINGS: [&str; 33] = [
    "/admin",
    "/admin/",
    "/admin?x=1",
    "/admin;x",
    "/a/../admin",
    "/a/../admin/b",
    "/admin%2f",
    "//admin",
    "///admin",
    "/a/..;x/admin",
    "/%61dmin",
    "/%61%64min",
    "/a%2f..%2fadmin",
    "/a%2F..%2Fadmin",
    "/%2fadmin",
    "/a/%2e%2e/admin",
    "/a/%2E%2E%2fadmin",
    "/./admin",
    "\\admin",
    "/\\admin",
    "/a\\..\\admin",
    "/a%5c..%5cadmin",
    "http://example.com/admin",
    "http://example.com//admin",
    "/a/b/../../admin",
    "/a/../../admin",
    "/a/.%2e/admin",
    "/a%2f%2e%2e%2fadmin",
    "/%2e/admin",
    "/a/..%2fadmin",
    "/a/..%5cadmin",
    "/%5cadmin",
    "/a\\../admin",
];

/// Everything that says who somebody is or what is asked, as a client might send it.
fn forged(exchange: Exchange) -> Exchange {
    let alice = "spiffe://cluster.local/ns/shop/sa/alice";
    [
        ("X-Forwarded-Client-Cert", &*format!("URI={alice}")),
        (
            "X-Forwarded-Client-Cert",
            &format!("By=spiffe://a/b;URI={alice}"),
        ),
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Uri", "/public"),
        ("X-Original-URI", "/public"),
        ("X-Original-URL", "http://example.com/public"),
        ("X-Original-Method", "GET"),
        ("X-Forwarded-For", "127.1.2.3"),
        ("X-Real-IP", "127.1.9.9"),
        ("X-Forwarded-Host", "shop.example"),
        ("Forwarded", "for=127.1.9.9;host=shop.example"),
        ("X-Portcullis-Workload", "shop/other"),
        ("X-Portcullis-Target", "ztunnel"),
        ("X-Portcullis-Direct-Address", "127.1.2.3"),
        ("X-Portcullis-Remote-Address", "127.1.2.3"),
        ("X-Portcullis-Decision", "allow"),
    ]
    .into_iter()
    .fold(exchange, |exchange, (name, value)| {
        exchange.header(name, value)
    })
}

/// The same with a certificate of somebody else in every header that carries one.
fn with_certificate(exchange: Exchange, pem: &str) -> Exchange {
    let escaped: String = pem.bytes().map(|octet| format!("%{octet:02X}")).collect();
    let bare: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    [
        ("X-Client-Cert", bare.as_str()),
        ("X-SSL-Client-Cert", &escaped),
        ("SSL-Client-Cert", &escaped),
        ("SSL-Client-Verify", "SUCCESS"),
        ("X-Forwarded-TLS-Client-Cert", &bare),
        ("Client-Cert", &format!(":{bare}:")),
    ]
    .into_iter()
    .fold(exchange, |exchange, (name, value)| {
        exchange.header(name, value)
    })
}

#[test]
fn every_proxy_passes_what_is_allowed_and_nothing_else() {
    let stage = Stage::start("proxies-verdicts", "DECODE_AND_MERGE_SLASHES", POLICIES);
    let alices = stage
        .authority
        .leaf(&portcullis_tests::authority::Names::spiffe(ALICE))
        .unwrap()
        .certificate;
    let mut wrong = Vec::new();
    for proxy in &stage.proxies {
        let name = proxy.kind.name();
        let plain = Client::plain(proxy.plain);
        let near = Client {
            source: Some("127.1.2.3".parse().unwrap()),
            ..plain.clone()
        };
        let alice = stage.tls(proxy.tls, Some(ALICE));
        let bob = stage.tls(proxy.tls, Some("spiffe://cluster.local/ns/shop/sa/bob"));
        let nobody = stage.tls(proxy.tls, None);
        let mut check = |client: &Client, what: &str, exchange: Exchange, allowed: bool| {
            let status = client.send(&exchange).map(|answer| answer.status);
            let right = match (allowed, &status) {
                (true, Ok(200)) | (false, Ok(400..=404)) => true,
                // A connection that is closed is no answer, and certainly no allow.
                (false, Err(_)) => true,
                _ => false,
            };
            if !right {
                wrong.push(format!(
                    "{name}: {what} {} {}: {status:?}",
                    exchange.method, exchange.path
                ));
            }
        };
        for (path, allowed) in [("/public", true), ("/admin", false), ("/a//b/..", true)] {
            check(&plain, "plain", Exchange::get(path), allowed);
            check(&nobody, "over TLS", Exchange::get(path), allowed);
            check(&plain, "forged", forged(Exchange::get(path)), allowed);
            check(
                &plain,
                "forged",
                with_certificate(forged(Exchange::get(path)), &alices),
                allowed,
            );
        }
        check(
            &plain,
            "method",
            Exchange::get("/public").method("POST"),
            false,
        );
        check(
            &plain,
            "method",
            forged(Exchange::get("/public").method("DELETE")),
            false,
        );
        check(&alice, "her certificate", Exchange::get("/alice"), true);
        check(
            &alice,
            "her certificate",
            forged(Exchange::get("/alice")),
            true,
        );
        for client in [&bob, &nobody, &plain] {
            check(client, "no alice", Exchange::get("/alice"), false);
            check(client, "no alice", forged(Exchange::get("/alice")), false);
            check(
                client,
                "no alice",
                with_certificate(Exchange::get("/alice"), &alices),
                false,
            );
        }
        for path in ["/near", "/client"] {
            check(&near, "from 127.1.2.3", Exchange::get(path), true);
            check(&plain, "from 127.0.0.1", Exchange::get(path), false);
            // Even what a trusted proxy would have said.
            check(&plain, "from 127.0.0.1", forged(Exchange::get(path)), false);
        }
        check(
            &plain,
            "tag",
            Exchange::get("/tag").header("X-Tag", "good"),
            true,
        );
        check(
            &plain,
            "tag",
            Exchange::get("/tag").header("X-Tag", "bad"),
            false,
        );
        check(
            &plain,
            "host",
            Exchange::get("/host").host("shop.example"),
            true,
        );
        check(
            &plain,
            "host",
            Exchange::get("/host").host("SHOP.example"),
            true,
        );
        check(&plain, "host", forged(Exchange::get("/host")), false);
        // Over gRPC the port is the one that the client connected to, not one that is configured.
        let known = proxy.kind != Kind::EnvoyGrpc;
        check(&plain, "port", Exchange::get("/port"), known);
        for spelling in SPELLINGS {
            check(&plain, "spelling", Exchange::get(spelling), false);
            check(
                &plain,
                "spelling, forged",
                forged(Exchange::get(spelling)),
                false,
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_a_client_forges_does_not_reach_the_workload_either() {
    let stage = Stage::start("proxies-forged", "BASE", POLICIES);
    for proxy in &stage.proxies {
        // Its annotations are about what is asked, not about what goes on; and over gRPC no header is asked about.
        if matches!(proxy.kind, Kind::IngressNginx | Kind::EnvoyGrpc) {
            continue;
        }
        let exchange = with_certificate(forged(Exchange::get("/public")), "secret");
        let answer = Client::plain(proxy.plain).send(&exchange).unwrap();
        assert_eq!(answer.status, 200, "{}", proxy.kind.name());
        let head = answer.body.to_ascii_lowercase();
        assert!(head.starts_with("get /public"), "{head}");
        for forged in [
            "alice",
            "secret",
            "127.1.2.3",
            "127.1.9.9",
            "/other",
            "ssl-client",
            "x-portcullis",
            "example.com/public",
        ] {
            // X-Forwarded-For is a list: Envoy adds to what a client began.
            let kept = proxy.kind == Kind::Envoy && forged == "127.1.2.3";
            assert!(
                kept || !head.contains(forged),
                "{}: `{forged}` in\n{head}",
                proxy.kind.name()
            );
        }
    }
}

#[test]
fn whoever_asks_beside_the_proxy_is_not_believed() {
    let stage = Stage::start("proxies-direct", "BASE", POLICIES);
    let alices = stage
        .authority
        .leaf(&portcullis_tests::authority::Names::spiffe(ALICE))
        .unwrap()
        .certificate;
    for (kind, address) in &stage.asked {
        let (path, exchange) = match kind {
            // Who asks over gRPC is told apart by mutual TLS; see `serving`.
            Kind::EnvoyGrpc => continue,
            Kind::Envoy => ("/authz/alice", Exchange::get("/authz/alice")),
            Kind::IngressNginx => (
                "/",
                Exchange::get("/")
                    .header("X-Original-Method", "GET")
                    .header("X-Original-URL", "http://example.com/alice"),
            ),
            Kind::Traefik | Kind::Caddy => (
                "/",
                Exchange::get("/")
                    .header("X-Forwarded-Method", "GET")
                    .header("X-Forwarded-Uri", "/alice")
                    .header("X-Forwarded-Host", "example.com"),
            ),
            _ => (
                "/",
                Exchange::get("/")
                    .header("X-Original-Method", "GET")
                    .header("X-Original-URI", "/alice"),
            ),
        };
        let bare: String = alices
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        let identified = match kind {
            Kind::Envoy => exchange
                .clone()
                .header("X-Forwarded-Client-Cert", &format!("URI={ALICE}")),
            Kind::IngressNginx => exchange.clone().header("SSL-Client-Cert", &bare),
            Kind::Traefik => exchange
                .clone()
                .header("X-Forwarded-TLS-Client-Cert", &bare),
            _ => exchange.clone().header("X-Client-Cert", &bare),
        };
        let mut client = Client::plain(*address);
        let status = |client: &Client, exchange: &Exchange| client.send(exchange).unwrap().status;
        // From a trusted peer it is Alice: the header is read, and right.
        assert_eq!(status(&client, &identified), 200, "{kind:?} {path}");
        assert_eq!(status(&client, &exchange), 403, "{kind:?}");
        client.source = Some("127.0.0.2".parse().unwrap());
        assert_eq!(status(&client, &identified), 403, "{kind:?}");
        assert_eq!(status(&client, &exchange), 403, "{kind:?}");
    }
    let log = stage.server.log_end();
    assert!(log.contains("untrusted_identity_source"), "{log}");
}
