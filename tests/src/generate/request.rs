//! Random requests and connections.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::pools::{ADDRESSES, HEADERS, RAW_PATHS, URIS};
use crate::naive::{Facts, Http};

pub(super) fn facts() -> impl Strategy<Value = Facts> {
    let address = || weighted(0.97, select(ADDRESSES));
    (
        peer(),
        address(),
        address(),
        address(),
        select(vec![8080, 8080, 9000, 80, 0, 65535]).prop_map(Some),
        weighted(
            0.5,
            select(vec!["example.com", "API.example.com", "foo.svc"]),
        ),
        weighted(0.75, http()),
        weighted(0.5, payload()),
        metadata(),
    )
        .prop_map(
            |(peer, source, remote, destination, port, sni, http, jwt, metadata)| {
                let read = |address: Option<&str>| address.and_then(|text| text.parse().ok());
                Facts {
                    source_ip: read(source),
                    remote_ip: read(remote),
                    destination_ip: read(destination),
                    destination_port: port,
                    sni: sni.filter(|_| peer.tls).map(str::to_owned),
                    jwt: jwt.filter(|_| http.is_some()),
                    http,
                    metadata,
                    ..peer
                }
            },
        )
}

/// TLS and the certificate.
fn peer() -> impl Strategy<Value = Facts> {
    let certificate = (
        prop_oneof![
            1 => Just(Vec::new()),
            8 => select(URIS).prop_map(|uri| vec![uri.to_owned()]),
            1 => vec(select(URIS).prop_map(str::to_owned), 2),
        ],
        subsequence(vec!["client.foo.example", "x/ns/foo/sa/a"], 0..=1),
        weighted(0.15, select(vec!["CN=client-a", "CN=x/ns/foo/y"])),
    )
        .prop_map(|(uri_sans, dns_sans, subject)| Facts {
            tls: true,
            uri_sans,
            dns_sans: dns_sans.into_iter().map(str::to_owned).collect(),
            subject: subject.map(str::to_owned),
            ..Facts::default()
        });
    prop_oneof![
        1 => any::<bool>().prop_map(|tls| Facts { tls, ..Facts::default() }),
        7 => certificate,
    ]
}

fn http() -> impl Strategy<Value = Http> {
    (
        select(vec!["GET", "GET", "POST", "DELETE", "OPTIONS"]),
        select(vec![
            "example.com",
            "EXAMPLE.com",
            "example.com:8080",
            "api.example.com",
            "[2001:db8::1]:80",
            "foo.svc",
        ]),
        select(RAW_PATHS),
        vec(select(HEADERS), 0..5),
    )
        .prop_map(|(method, host, path, headers)| Http {
            method: method.to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
}

/// Claims, each absent or one of a few values, odd ones among them.
fn payload() -> impl Strategy<Value = Value> {
    let claim = |values: Vec<Value>| weighted(0.6, select(values));
    (
        claim(vec![
            json!("iss1"),
            json!("iss2"),
            json!("https://idp.example/a"),
            json!(""),
        ]),
        claim(vec![json!("sub1"), json!("sub2"), json!(""), json!(5)]),
        claim(vec![json!("p1"), json!(["p1", "v1"]), json!([])]),
        claim(vec![
            json!(["g1", "admin"]),
            json!("g1"),
            json!([["g1"]]),
            json!(["v1", 7]),
        ]),
        claim(vec![
            json!({"b": "c"}),
            json!({"b": ["c", "v1"]}),
            json!({"b": {"c": "v1"}}),
            json!("c"),
        ]),
        claim(vec![
            json!("read admin"),
            json!("read"),
            json!(" "),
            json!(["read"]),
        ]),
        claim(vec![json!(5), json!(true), json!("5"), json!(null)]),
        claim(vec![json!("v1 v2"), json!("v1")]),
        claim(vec![json!("v1")]),
    )
        .prop_map(|(iss, sub, aud, groups, a, scope, num, team, odd)| {
            let claims = [
                ("iss", iss),
                ("sub", sub),
                ("aud", aud.clone()),
                ("azp", aud),
                ("groups", groups),
                ("a", a),
                ("scope", scope),
                ("num", num),
                ("team.x", team),
                ("a]b", odd),
            ];
            claims
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect::<Map<_, _>>()
                .into()
        })
}

fn metadata() -> impl Strategy<Value = BTreeMap<String, Value>> {
    let value = select(vec![
        json!({"k": "v1"}),
        json!({"k": ["v1", "v2"]}),
        json!({"k": 5, "list": ["v1", 5], "a][b": "v1"}),
        json!({"k": {"k": "v1"}}),
    ]);
    proptest::collection::btree_map(
        select(vec![
            "envoy.filters.http.x".to_owned(),
            "envoy.filters.network.y".to_owned(),
        ]),
        value,
        0..2,
    )
}
