//! Random manifests.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::pools::{
    ACCOUNTS, BLOCKS, HOSTS, ISSUERS, METHODS, NAMESPACES, PATHS, PORTS, PRINCIPALS, SNI,
    TEMPLATES, TRUST_DOMAINS, WORDS,
};
use super::{field, pattern};

/// A few policies of every kind, each with a name of its own.
pub(super) fn policies(refers: f64) -> impl Strategy<Value = Vec<Value>> {
    (
        vec(authorization(refers), 0..8),
        prop_oneof![3 => Just(Vec::new()), 1 => vec(peer(), 1..5)],
        prop_oneof![5 => Just(Vec::new()), 1 => vec(request(refers), 1..3)],
    )
        .prop_map(|(authorization, peer, request)| {
            let names = ["p", "p-a", "p.a", "a", "p0", "z", "a-0", "0"];
            let mut all = Vec::new();
            for (kind, list) in [authorization, peer, request].into_iter().enumerate() {
                for (index, mut policy) in list.into_iter().enumerate() {
                    policy["metadata"]["name"] = json!(names[(index + kind) % names.len()]);
                    all.push(policy);
                }
            }
            all
        })
}

fn namespace() -> impl Strategy<Value = &'static str> {
    select(vec![
        "foo", "foo", "foo", "foo", "bar", "root-ns", "root-ns",
    ])
}

/// `None` is no selector; an empty one selects all.
fn selector() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        6 => Just(None),
        2 => subsequence(vec![("app", "web"), ("version", "v1"), ("tier", "")], 1..=2)
            .prop_map(|labels| Some(labels.into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect::<Map<_, _>>()))
            .prop_map(|labels| labels.map(|labels| json!({"matchLabels": labels}))),
        1 => Just(Some(json!({"matchLabels": {"app": "other"}}))),
    ]
}

fn target_refs() -> impl Strategy<Value = Value> {
    let one = select(vec![
        ("gateway.networking.k8s.io", "Gateway", "gw", ""),
        ("gateway.networking.k8s.io", "Gateway", "other", ""),
        ("gateway.networking.k8s.io", "Gateway", "gw", "bar"),
        (
            "gateway.networking.k8s.io",
            "GatewayClass",
            "istio-waypoint",
            "",
        ),
        ("gateway.networking.k8s.io", "GatewayClass", "istio", ""),
        ("", "Service", "svc", ""),
        ("core", "Service", "svc", ""),
        ("", "Service", "other", ""),
        ("networking.istio.io", "ServiceEntry", "svc", ""),
    ])
    .prop_map(|(group, kind, name, namespace)| {
        let mut reference = json!({"kind": kind, "name": name, "group": group});
        if !namespace.is_empty() {
            reference["namespace"] = json!(namespace);
        }
        reference
    });
    vec(one, 1..3).prop_map(Value::from)
}

fn authorization(refers: f64) -> impl Strategy<Value = Value> {
    let action = prop_oneof![
        2 => Just(None),
        4 => Just(Some("ALLOW")),
        5 => Just(Some("DENY")),
        2 => Just(Some("AUDIT")),
        2 => Just(Some("CUSTOM")),
    ];
    let rules = prop_oneof![
        1 => Just(None),
        1 => Just(Some(Vec::new())),
        18 => vec(prop_oneof![1 => Just(json!({})), 12 => rule()], 1..4).prop_map(Some),
        // enough that rule[10] comes before rule[2]
        1 => rule().prop_map(|rule| {
            let mut rules = vec![json!({"to": [{"operation": {"ports": ["1"]}}]}); 12];
            rules[2] = rule.clone();
            rules[10] = rule;
            Some(rules)
        }),
    ];
    (
        namespace(),
        action,
        select(vec!["authz", "b-authz", "unknown"]),
        selector(),
        weighted(refers, target_refs()),
        weighted(0.3, select(vec!["true", "1", "T", "false", "yes"])),
        rules,
    )
        .prop_map(
            |(namespace, action, provider, selector, target_refs, dry_run, rules)| {
                let mut spec = Map::new();
                if let Some(action) = action {
                    spec.insert("action".to_owned(), json!(action));
                }
                if action == Some("CUSTOM") {
                    spec.insert("provider".to_owned(), json!({"name": provider}));
                }
                match (selector, target_refs) {
                    (_, Some(target_refs)) => {
                        spec.insert("targetRefs".to_owned(), target_refs);
                    }
                    (Some(selector), None) => {
                        spec.insert("selector".to_owned(), selector);
                    }
                    (None, None) => {}
                }
                if let Some(rules) = rules {
                    spec.insert("rules".to_owned(), Value::from(rules));
                }
                let mut metadata = json!({"namespace": namespace});
                // what Istio makes of a CUSTOM policy on trial is a mistake of its own
                if let Some(dry_run) = dry_run.filter(|_| action != Some("CUSTOM")) {
                    metadata["annotations"] = json!({"istio.io/dry-run": dry_run});
                }
                json!({
                    "apiVersion": "security.istio.io/v1",
                    "kind": "AuthorizationPolicy",
                    "metadata": metadata,
                    "spec": spec,
                })
            },
        )
}

fn rule() -> impl Strategy<Value = Value> {
    (
        prop_oneof![2 => Just(None), 1 => Just(Some(Vec::new())), 9 => vec(source(), 1..3).prop_map(Some)],
        prop_oneof![3 => Just(None), 1 => Just(Some(Vec::new())), 8 => vec(operation(), 1..3).prop_map(Some)],
        prop_oneof![3 => Just(None), 2 => vec(condition(), 1..3).prop_map(Some)],
    )
        .prop_map(|(from, to, when)| {
            let wrapped = |entries: Vec<Value>, name: &str| -> Value {
                entries.into_iter().map(|entry| json!({name: entry})).collect()
            };
            let mut rule = Map::new();
            if let Some(from) = from {
                rule.insert("from".to_owned(), wrapped(from, "source"));
            }
            if let Some(to) = to {
                rule.insert("to".to_owned(), wrapped(to, "operation"));
            }
            if let Some(when) = when {
                rule.insert("when".to_owned(), Value::from(when));
            }
            Value::Object(rule)
        })
}

/// An object of the fields that are there.
fn object(fields: Vec<(&str, Option<Vec<String>>)>) -> Value {
    fields
        .into_iter()
        .filter_map(|(name, values)| Some((name.to_owned(), json!(values?))))
        .collect::<Map<_, _>>()
        .into()
}

fn source() -> impl Strategy<Value = Value> {
    let often = 0.22;
    let seldom = 0.07;
    (
        (field(PRINCIPALS, often), field(PRINCIPALS, seldom)),
        (field(NAMESPACES, often), field(NAMESPACES, seldom)),
        (plain(ACCOUNTS, 0.15), plain(ACCOUNTS, seldom)),
        (field(TRUST_DOMAINS, 0.15), field(TRUST_DOMAINS, seldom)),
        (issuers(0.1), issuers(seldom)),
        (plain(BLOCKS, 0.2), plain(BLOCKS, seldom)),
        (plain(BLOCKS, 0.12), plain(BLOCKS, seldom)),
    )
        .prop_map(
            |(principals, namespaces, accounts, domains, issuers, blocks, remote)| {
                object(vec![
                    ("principals", principals.0),
                    ("notPrincipals", principals.1),
                    ("namespaces", namespaces.0),
                    ("notNamespaces", namespaces.1),
                    ("serviceAccounts", accounts.0),
                    ("notServiceAccounts", accounts.1),
                    ("trustDomains", domains.0),
                    ("notTrustDomains", domains.1),
                    ("requestPrincipals", issuers.0),
                    ("notRequestPrincipals", issuers.1),
                    ("ipBlocks", blocks.0),
                    ("notIpBlocks", blocks.1),
                    ("remoteIpBlocks", remote.0),
                    ("notRemoteIpBlocks", remote.1),
                ])
            },
        )
}

/// Values as they stand in the pool.
fn plain(
    pool: &'static [&'static str],
    probability: f64,
) -> impl Strategy<Value = Option<Vec<String>>> {
    weighted(probability, vec(select(pool).prop_map(str::to_owned), 1..4))
}

fn issuers(probability: f64) -> impl Strategy<Value = Option<Vec<String>>> {
    let one = prop_oneof![select(ISSUERS).prop_map(str::to_owned), pattern(ISSUERS)];
    weighted(probability, vec(one, 1..3))
}

fn paths(probability: f64) -> impl Strategy<Value = Option<Vec<String>>> {
    let one = prop_oneof![
        2 => pattern(PATHS),
        1 => select(TEMPLATES).prop_map(str::to_owned),
    ];
    weighted(probability, vec(one, 1..4))
}

fn operation() -> impl Strategy<Value = Value> {
    (
        (field(HOSTS, 0.25), field(HOSTS, 0.1)),
        (field(METHODS, 0.3), field(METHODS, 0.1)),
        (paths(0.4), paths(0.1)),
        (plain(PORTS, 0.25), plain(PORTS, 0.1)),
    )
        .prop_map(|(hosts, methods, paths, ports)| {
            object(vec![
                ("hosts", hosts.0),
                ("notHosts", hosts.1),
                ("methods", methods.0),
                ("notMethods", methods.1),
                ("paths", paths.0),
                ("notPaths", paths.1),
                ("ports", ports.0),
                ("notPorts", ports.1),
            ])
        })
}

fn condition() -> impl Strategy<Value = Value> {
    let keyed = |keys: &'static [&'static str], pool: &'static [&'static str], wild: bool| {
        let values = move || {
            vec(
                if wild {
                    pattern(pool).boxed()
                } else {
                    select(pool).prop_map(str::to_owned).boxed()
                },
                0..3,
            )
        };
        (select(keys), values(), values()).prop_map(|(key, values, not_values)| {
            let mut condition = json!({"key": key});
            // one list at least, sometimes both, seldom neither
            if !values.is_empty() || not_values.is_empty() {
                condition["values"] = json!(values);
            }
            if !not_values.is_empty() {
                condition["notValues"] = json!(not_values);
            }
            condition
        })
    };
    prop_oneof![
        2 => keyed(&["source.ip", "remote.ip", "destination.ip"], BLOCKS, false),
        1 => keyed(&["destination.port"], PORTS, false),
        1 => keyed(&["connection.sni"], SNI, true),
        1 => keyed(&["source.principal"], PRINCIPALS, true),
        1 => keyed(&["source.namespace"], NAMESPACES, true),
        1 => keyed(&["source.serviceAccount"], ACCOUNTS, false),
        1 => keyed(&["source.trustDomain"], TRUST_DOMAINS, true),
        1 => keyed(&["request.auth.principal"], ISSUERS, false),
        4 => keyed(
            &[
                "request.headers[x-m]",
                "request.headers[X-M]",
                "request.headers[accept]",
                "request.headers[cookie]",
                "request.headers[authorization]",
                "request.headers",
                "request.headers[:method]",
            ],
            WORDS,
            true,
        ),
        1 => keyed(&["request.headers[:path]"], PATHS, true),
        1 => keyed(&["request.headers[:authority]", "request.headers[host]"], HOSTS, true),
        1 => keyed(&["request.headers[:scheme]"], &["http", "https"], true),
        4 => keyed(
            &[
                "request.auth.audiences",
                "request.auth.presenter",
                "request.auth.claims[groups]",
                "request.auth.claims[a][b]",
                "request.auth.claims[a][b][c]",
                "request.auth.claims[a]b]",
                "request.auth.claims[team.x]",
                "request.auth.claims[scope]",
                "request.auth.claims[num]",
                "request.auth.claims[iss]",
                "request.auth.claims",
            ],
            WORDS,
            true,
        ),
        2 => keyed(
            &[
                "experimental.envoy.filters.http.x[k]",
                "experimental.envoy.filters.http.x[a][b]",
                "experimental.envoy.filters.http.x[list]",
                "experimental.envoy.filters.http.x",
                "experimental.envoy.filters.network.y[k]",
            ],
            &["v1", "[v1]", "v2", "[v]", "[*]", "[v*]", "5"],
            true,
        ),
        1 => keyed(&["destination.labels[app]", "source.uid", "request.header[x-m]"], WORDS, true),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    let mode = || {
        prop_oneof![
            1 => Just(None),
            1 => Just(Some("UNSET")),
            1 => Just(Some("DISABLE")),
            2 => Just(Some("PERMISSIVE")),
            4 => Just(Some("STRICT")),
        ]
    };
    let mtls = |mode: Option<&str>| mode.map_or_else(|| json!({}), |mode| json!({"mode": mode}));
    (
        namespace(),
        selector(),
        mode(),
        proptest::collection::btree_map(select(vec!["8080", "9000"]), mode(), 0..3),
        select(vec![
            None,
            Some("2024-01-01T00:00:00Z"),
            Some("2024-01-02T00:00:00Z"),
        ]),
    )
        .prop_map(move |(namespace, selector, mode, ports, created)| {
            let mut spec = Map::new();
            if let Some(mode) = mode {
                spec.insert("mtls".to_owned(), mtls(Some(mode)));
            }
            if let Some(selector) = selector {
                spec.insert("selector".to_owned(), selector);
                if !ports.is_empty() {
                    let ports: Map<_, _> = ports
                        .into_iter()
                        .map(|(port, mode)| (port.to_owned(), mtls(mode)))
                        .collect();
                    spec.insert("portLevelMtls".to_owned(), ports.into());
                }
            }
            let mut metadata = json!({"namespace": namespace});
            if let Some(created) = created {
                metadata["creationTimestamp"] = json!(created);
            }
            json!({
                "apiVersion": "security.istio.io/v1",
                "kind": "PeerAuthentication",
                "metadata": metadata,
                "spec": spec,
            })
        })
}

fn request(refers: f64) -> impl Strategy<Value = Value> {
    let rule = select(vec![
        json!({"issuer": "iss1"}),
        json!({"issuer": "iss1", "fromHeaders": [{"name": "x-token"}]}),
        json!({"issuer": "iss1", "fromHeaders": [{"name": "X-Token", "prefix": "Jwt "}]}),
        json!({"issuer": "iss1", "fromParams": ["token"]}),
        json!({"issuer": "iss1", "fromCookies": ["a"]}),
        json!({"issuer": "iss1", "spaceDelimitedClaims": ["team.x"]}),
    ]);
    (
        namespace(),
        selector(),
        weighted(refers, target_refs()),
        vec(rule, 0..3),
    )
        .prop_map(|(namespace, selector, target_refs, rules)| {
            let mut spec = Map::new();
            match (selector, target_refs) {
                (_, Some(target_refs)) => {
                    spec.insert("targetRefs".to_owned(), target_refs);
                }
                (Some(selector), None) => {
                    spec.insert("selector".to_owned(), selector);
                }
                (None, None) => {}
            }
            spec.insert("jwtRules".to_owned(), Value::from(rules));
            json!({
                "apiVersion": "security.istio.io/v1",
                "kind": "RequestAuthentication",
                "metadata": {"namespace": namespace},
                "spec": spec,
            })
        })
}
