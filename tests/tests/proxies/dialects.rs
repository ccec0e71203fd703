//! Every dialect, asked by hand: what is whole is decided, what is not is refused.

use std::net::SocketAddr;

use portcullis_tests::component::run_folder;
use portcullis_tests::portcullis::Server;
use portcullis_tests::ports::free_address;
use serde_json::{Value, json};

use crate::bad_input::{CLOSE, ask, statuses};
use crate::proxy::Kind;
use crate::stage::{PORTCULLIS, WEB};

/// A whole check of `GET /a` in each dialect, without the end of its head: request line and headers.
fn usual(kind: Kind) -> (&'static str, Vec<(&'static str, &'static str)>) {
    match kind {
        Kind::Envoy => ("/authz/a", vec![("Host", "a")]),
        Kind::IngressNginx => (
            "/",
            vec![
                ("Host", "p"),
                ("X-Original-Method", "GET"),
                ("X-Original-URL", "http://a/a"),
            ],
        ),
        Kind::Traefik | Kind::Caddy => (
            "/",
            vec![
                ("Host", "p"),
                ("X-Forwarded-Method", "GET"),
                ("X-Forwarded-Uri", "/a"),
                ("X-Forwarded-Host", "a"),
            ],
        ),
        _ => (
            "/",
            vec![
                ("Host", "a"),
                ("X-Original-Method", "GET"),
                ("X-Original-URI", "/a"),
            ],
        ),
    }
}

#[test]
fn every_dialect_refuses_what_is_doubled_foreign_or_too_long() {
    let kinds: Vec<(Kind, SocketAddr)> = Kind::ALL
        .into_iter()
        .filter(|kind| *kind != Kind::EnvoyGrpc)
        .map(|kind| (kind, free_address().unwrap()))
        .collect();
    let listeners: Vec<Value> = kinds
        .iter()
        .map(|(kind, address)| {
            let mut listener = kind.listener(*address);
            listener["debug_headers"] = json!(true);
            listener
        })
        .collect();
    let config = json!({ "limits": { "header_bytes": 16384 }, "listeners": listeners });
    let folder = run_folder("http-dialects");
    let server = Server::start(PORTCULLIS.as_ref(), &folder, &[("web.yaml", WEB)], &config)
        .unwrap_or_else(|cause| panic!("{cause}"));
    let mut wrong = Vec::new();
    for (kind, address) in &kinds {
        let (target, headers) = usual(*kind);
        let certificate = match kind {
            Kind::IngressNginx => "SSL-Client-Cert",
            Kind::Traefik => "X-Forwarded-Tls-Client-Cert",
            Kind::Envoy => "X-Forwarded-Client-Cert",
            _ => "X-Client-Cert",
        };
        let foreign = match kind {
            Kind::Traefik | Kind::Caddy => ("X-Original-URI", "/a"),
            _ => ("X-Forwarded-Uri", "/a"),
        };
        let other_identity = match kind {
            Kind::Envoy => ("X-Client-Cert", "MII="),
            _ => ("X-Forwarded-Client-Cert", "URI=spiffe://a/b"),
        };
        let long = "a".repeat(20_000);
        let send = |line: &str, headers: &[(&str, &str)]| {
            let mut head = format!("{line}\r\n");
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            ask(*address, head + CLOSE)
        };
        let line = format!("GET {target} HTTP/1.1");
        let with = |more: &[(&'static str, &'static str)]| [&headers, more].concat();
        let without = |name: &str| -> Vec<_> {
            let kept = headers.iter().filter(|(known, _)| *known != name);
            kept.copied().collect()
        };
        // As it should be, and by an old client: decided.
        for line in [line.clone(), format!("GET {target} HTTP/1.0")] {
            let said = send(&line, &headers);
            if statuses(&said) != ["200"] {
                wrong.push(format!("{kind:?} {line}: {said}"));
            }
        }
        let mut refused = vec![
            (
                "two identities",
                send(&line, &with(&[(certificate, "nonsense"), other_identity])),
            ),
            ("another identity", send(&line, &with(&[other_identity]))),
            (
                "an identity twice",
                send(&line, &with(&[(certificate, "a"), (certificate, "b")])),
            ),
            (
                "a broken identity",
                send(&line, &with(&[(certificate, "=\"")])),
            ),
            ("another dialect", send(&line, &with(&[foreign]))),
            ("two hosts", send(&line, &with(&[("Host", "b")]))),
            (
                "a long header",
                send(
                    &line,
                    &[headers.as_slice(), &[("X-Long", long.as_str())]].concat(),
                ),
            ),
            (
                "a long line",
                send(
                    &format!("GET {target}?{} HTTP/1.1", "a".repeat(70_000)),
                    &headers,
                ),
            ),
            ("no HTTP", send("HELLO", &headers)),
        ];
        for (name, value) in &headers {
            // The Host of the check is its own business, where another header names the client's.
            if *name == "Host" && *value == "p" {
                continue;
            }
            refused.push(("one is missing", send(&line, &without(name))));
            let mut empty = without(name);
            empty.push((name, ""));
            refused.push(("one is empty", send(&line, &empty)));
            refused.push(("one is there twice", send(&line, &with(&[(name, value)]))));
            let mut odd = without(name);
            odd.push((name, "\u{1}"));
            refused.push(("one has a control character", send(&line, &odd)));
        }
        if *kind == Kind::Envoy {
            refused.push((
                "absolute form",
                send("GET http://a/authz/a HTTP/1.1", &headers),
            ));
            refused.push(("authority form", send("CONNECT a:80 HTTP/1.1", &headers)));
        }
        for (what, said) in refused {
            let found = statuses(&said);
            if found.len() != 1 || !found[0].starts_with('4') {
                wrong.push(format!("{kind:?}: {what}: {found:?}"));
            }
            if found == ["403"] && !said.contains("x-portcullis-reason: ") {
                wrong.push(format!("{kind:?}: {what}: without a reason"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!server.log_end().contains("panicked"));
}
