//! Random objects of every kind that a webhook judges: right ones, and right ones of which a few places were made wrong.
//!
//! They shrink to a short right object with one wrong place.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

/// An object without a namespace: `apiVersion`, `kind`, `metadata.name`, perhaps labels and annotations, `spec`.
pub fn object() -> impl Strategy<Value = Value> {
    let mistakes = prop_oneof![5 => 0..=0_usize, 4 => 1..=1_usize, 1 => 2..=2_usize];
    let mistakes = mistakes.prop_flat_map(|count| vec(mistake(), count));
    (right(), mistakes).prop_map(|(mut object, mistakes)| {
        for mistake in &mistakes {
            mistake.make(&mut object);
        }
        object
    })
}

/// One that is right, or nearly: its values come from pools that hold odd ones, too.
fn right() -> impl Strategy<Value = Value> {
    let security = "security.istio.io/v1";
    let own = "portcullis.dev/v1alpha1";
    let spec = prop_oneof![
        6 => authorization_policy().prop_map(move |s| (security, "AuthorizationPolicy", s)),
        2 => peer_authentication().prop_map(move |s| (security, "PeerAuthentication", s)),
        2 => request_authentication().prop_map(move |s| (security, "RequestAuthentication", s)),
        2 => cedar_policy().prop_map(move |s| (own, "CedarPolicy", s)),
        2 => policy_test().prop_map(move |s| (own, "PolicyTest", s)),
    ];
    let annotations = select(vec![
        json!(null),
        json!(null),
        json!(null),
        json!({ "istio.io/dry-run": "true" }),
        json!({ "istio.io/dry-run": "yes" }),
        json!({ "note": "a\nb" }),
    ]);
    (spec, annotations).prop_map(|((version, kind, spec), annotations)| {
        let mut metadata = json!({ "name": "candidate" });
        if !annotations.is_null() {
            metadata["annotations"] = annotations;
        }
        json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec })
    })
}

/// Fields that are there or not.
fn fields(of: Vec<(&'static str, f64, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    of.into_iter()
        .fold(Just(Map::new()).boxed(), |map, (name, chance, value)| {
            (map, weighted(chance, value))
                .prop_map(move |(mut map, value)| {
                    map.extend(value.map(|value| (name.to_owned(), value)));
                    map
                })
                .boxed()
        })
        .prop_map(Value::Object)
        .boxed()
}

/// Pools begin with what is right: their first values come most.
fn one_of(values: &[Value]) -> BoxedStrategy<Value> {
    let values = values.to_vec();
    vec(0..values.len(), 6)
        .prop_map(|draws| draws.into_iter().min().unwrap_or_default())
        .prop_map(move |at| values[at].clone())
        .boxed()
}

fn text(values: &'static [&'static str]) -> BoxedStrategy<Value> {
    let values: Vec<Value> = values.iter().map(|&value| Value::from(value)).collect();
    one_of(&values)
}

fn list(of: BoxedStrategy<Value>, most: usize) -> BoxedStrategy<Value> {
    vec(of, 1..=most).prop_map(Value::Array).boxed()
}

fn texts(values: &'static [&'static str]) -> BoxedStrategy<Value> {
    list(text(values), 3)
}

fn selector() -> BoxedStrategy<Value> {
    one_of(&[
        json!({ "matchLabels": { "app": "web" } }),
        json!({ "matchLabels": { "app": "web" } }),
        json!({ "matchLabels": { "app": "nobody" } }),
        json!({ "matchLabels": {} }),
        json!({ "matchLabels": { "app": "*" } }),
        json!({ "matchLabels": { "": "web" } }),
        json!({}),
    ])
}

fn target_refs() -> BoxedStrategy<Value> {
    let reference = one_of(&[
        json!({ "kind": "Service", "name": "web" }),
        json!({ "kind": "Service", "group": "", "name": "nobody" }),
        json!({ "kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "edge" }),
        json!({ "kind": "GatewayClass", "group": "gateway.networking.k8s.io", "name": "istio-waypoint" }),
        json!({ "kind": "ServiceEntry", "group": "networking.istio.io", "name": "far" }),
        json!({ "kind": "Pod", "name": "web" }),
        json!({ "kind": "Service", "name": "web", "namespace": "other" }),
        json!({ "name": "web" }),
    ]);
    list(reference, 2)
}

/// What a policy attaches to.
fn attached() -> Vec<(&'static str, f64, BoxedStrategy<Value>)> {
    vec![
        ("selector", 0.4, selector()),
        ("targetRefs", 0.15, target_refs()),
    ]
}

fn authorization_policy() -> BoxedStrategy<Value> {
    const PRINCIPALS: &[&str] = &[
        "cluster.local/ns/shop/sa/web",
        "cluster.local/ns/shop/*",
        "*/sa/web",
        "*",
        "spiffe://cluster.local/ns/shop/sa/web",
        "*web*",
        "other.org/ns/a/sa/b",
        "",
    ];
    const BLOCKS: &[&str] = &[
        "10.0.0.0/8",
        "10.0.0.1",
        "fe80::/10",
        "::1",
        "10.0.0.0/33",
        "10.0.0",
        "",
        "x/8",
        "10.0.0.1/8",
    ];
    const NAMESPACES: &[&str] = &["shop", "other", "sh*", "*", "*o*", ""];
    const HOSTS: &[&str] = &["web", "web:8080", "*.shop.svc", "*", "a.*", ""];
    const PATHS: &[&str] = &[
        "/a",
        "/a/*",
        "*/b",
        "*",
        "/{*}/b",
        "/{**}",
        "/{**}/{*}",
        "/{*",
        "/a{*}",
        "",
        "/a*b",
        "/{**}/x/{**}",
    ];
    const METHODS: &[&str] = &["GET", "get", "*", "POST", "GE*", ""];
    const PORTS: &[&str] = &["80", "8080", "0", "65536", "http", "080", "*", "-1", ""];
    let source = fields(vec![
        ("principals", 0.5, texts(PRINCIPALS)),
        ("notPrincipals", 0.15, texts(PRINCIPALS)),
        (
            "requestPrincipals",
            0.15,
            texts(&["issuer/subject", "*", "issuer/*", "*/subject", ""]),
        ),
        ("namespaces", 0.2, texts(NAMESPACES)),
        ("notNamespaces", 0.1, texts(NAMESPACES)),
        ("ipBlocks", 0.2, texts(BLOCKS)),
        ("notIpBlocks", 0.1, texts(BLOCKS)),
        ("remoteIpBlocks", 0.1, texts(BLOCKS)),
        (
            "serviceAccounts",
            0.1,
            texts(&["shop/web", "web", "a/b/c", "*", ""]),
        ),
    ]);
    let operation = fields(vec![
        ("hosts", 0.2, texts(HOSTS)),
        ("notHosts", 0.1, texts(HOSTS)),
        ("ports", 0.3, texts(PORTS)),
        ("notPorts", 0.1, texts(PORTS)),
        ("methods", 0.3, texts(METHODS)),
        ("notMethods", 0.1, texts(METHODS)),
        ("paths", 0.4, texts(PATHS)),
        ("notPaths", 0.1, texts(PATHS)),
    ]);
    let when = fields(vec![
        (
            "key",
            0.95,
            text(&[
                "request.headers[x-a]",
                "source.namespace",
                "source.principal",
                "request.auth.claims[group]",
                "request.auth.principal",
                "connection.sni",
                "source.serviceAccount",
                "source.ip",
                "destination.port",
                "remote.ip",
                "destination.ip",
                "request.auth.claims[a][b]",
                "experimental.envoy.filters.network.mysql_proxy[a]",
                "request.headers[]",
                "request.header[x-a]",
                "source.uid",
                "",
            ]),
        ),
        (
            "values",
            0.8,
            texts(&["a", "a*", "*", "80", "10.0.0.0/8", "shop/web", "http", ""]),
        ),
        ("notValues", 0.2, texts(&["a", "*", "10.0.0.1", "x", ""])),
    ]);
    let from = list(fields(vec![("source", 0.97, source)]), 2);
    let to = list(fields(vec![("operation", 0.97, operation)]), 2);
    let rule = fields(vec![
        ("from", 0.5, from),
        ("to", 0.5, to),
        ("when", 0.3, list(when, 2)),
    ]);
    let mut all = attached();
    all.extend([
        (
            "action",
            0.7,
            text(&["ALLOW", "DENY", "AUDIT", "CUSTOM", "DENY", "Allow", ""]),
        ),
        (
            "provider",
            0.1,
            one_of(&[json!({ "name": "ext" }), json!({ "name": "" }), json!({})]),
        ),
        ("rules", 0.85, list(rule, 3)),
    ]);
    fields(all)
}

fn mtls() -> BoxedStrategy<Value> {
    one_of(&[
        json!({ "mode": "STRICT" }),
        json!({ "mode": "PERMISSIVE" }),
        json!({ "mode": "DISABLE" }),
        json!({ "mode": "UNSET" }),
        json!({ "mode": "strict" }),
        json!({}),
    ])
}

fn peer_authentication() -> BoxedStrategy<Value> {
    let ports = (text(&["80", "8080", "0", "65536", "http"]), mtls()).prop_map(|(port, mtls)| {
        let mut map = Map::new();
        map.insert(port.as_str().unwrap_or_default().to_owned(), mtls);
        Value::Object(map)
    });
    fields(vec![
        ("selector", 0.6, selector()),
        ("mtls", 0.7, mtls()),
        ("portLevelMtls", 0.3, ports.boxed()),
    ])
}

fn request_authentication() -> BoxedStrategy<Value> {
    const KEY: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let header = one_of(&[
        json!({ "name": "authorization", "prefix": "Bearer " }),
        json!({ "name": "x-token" }),
        json!({ "name": "" }),
        json!({ "prefix": "Bearer " }),
    ]);
    let rule = fields(vec![
        (
            "issuer",
            0.95,
            text(&["https://issuer.example", "issuer", ""]),
        ),
        ("audiences", 0.3, texts(&["shop", "web", ""])),
        (
            "jwks",
            0.5,
            one_of(&[json!(KEY), json!("{}"), json!("keys"), json!("")]),
        ),
        (
            "jwksUri",
            0.3,
            text(&[
                "https://issuer.example/keys",
                "http://issuer.example/keys",
                "issuer",
                "ftp://a",
                "",
            ]),
        ),
        ("fromHeaders", 0.3, list(header, 2)),
        ("fromParams", 0.2, texts(&["token", ""])),
        ("fromCookies", 0.1, texts(&["session", ""])),
        (
            "outputPayloadToHeader",
            0.2,
            text(&["x-payload", "not a header", ""]),
        ),
        (
            "forwardOriginalToken",
            0.2,
            one_of(&[json!(true), json!(false)]),
        ),
        ("timeout", 0.1, text(&["5s", "1h", "5", "0s", "-1s", ""])),
        (
            "outputClaimToHeaders",
            0.15,
            one_of(&[
                json!([{ "header": "x-group", "claim": "group" }]),
                json!([{ "header": "", "claim": "group" }]),
                json!([{ "header": "x-group" }]),
            ]),
        ),
    ]);
    let mut all = attached();
    all.push(("jwtRules", 0.9, list(rule, 2)));
    fields(all)
}

fn cedar_policy() -> BoxedStrategy<Value> {
    let mut all = attached();
    all.push((
        "policies",
        0.95,
        text(&[
            "permit (principal, action, resource);",
            "forbid (principal, action == Action::\"http\", resource) when { context.http.method == \"GET\" };",
            "@id(\"a\") permit (principal, action, resource); @id(\"a\") permit (principal, action, resource);",
            "permit (principal, action, resource) when { context.nothing };",
            "permit (principal, action, resource) when { principal.nothing == 1 };",
            "permit (principal in Group::\"a\", action, resource);",
            "permit (principal, action, resource)",
            "permit",
            "// nothing",
            "",
        ]),
    ));
    fields(all)
}

fn policy_test() -> BoxedStrategy<Value> {
    let request = one_of(&[
        json!({ "attributes": {
            "destination": { "address": { "socketAddress": { "address": "10.1.0.1", "portValue": 8080 } } },
            "request": { "http": { "method": "GET", "path": "/", "host": "web" } },
        } }),
        json!({ "attributes": { "destination": { "address": { "socketAddress": { "address": "10.1.0.1" } } } } }),
        json!({ "attributes": {} }),
        json!({ "attributes": { "request": { "http": { "method": 1 } } } }),
        json!({ "surprise": {} }),
        json!({}),
    ]);
    let outcome = one_of(&[
        json!({ "decision": "deny", "reason": "denied_by" }),
        json!({ "decision": "allow", "reason": "no_allow_policy" }),
        json!({ "decision": "deny", "reason": "unknown_destination" }),
        json!({ "decision": "allow", "reason": "denied_by" }),
        json!({ "decision": "ALLOW", "reason": "allowed_by" }),
        json!({ "decision": "perhaps" }),
        json!({ "reason": "because" }),
    ]);
    let name = select(vec!["a", "b", "a case", "another", ""]).prop_map(Value::from);
    let case = fields(vec![
        ("name", 0.97, name.boxed()),
        ("request", 0.95, request),
        ("like", 0.05, text(&["a", "nothing"])),
        (
            "policies",
            0.2,
            texts(&["shop/web#rule[0]", "shop/web", ""]),
        ),
        ("surprise", 0.02, text(&["a"])),
    ]);
    let case = (case, outcome).prop_map(|(mut case, outcome)| {
        if let (Some(case), Value::Object(outcome)) = (case.as_object_mut(), outcome) {
            case.extend(outcome);
        }
        case
    });
    let case = case.boxed();
    fields(vec![("cases", 0.95, list(case, 2))])
}

/// One place that is made wrong.
#[derive(Clone, Debug)]
struct Mistake {
    place: Index,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// The place is gone.
    Remove,
    /// Another value stands there.
    Put(Value),
    /// Its key is written otherwise.
    Rename(fn(&str) -> String),
    /// Something nobody knows stands beside it.
    Add,
    /// It stands there twice.
    Repeat,
}

fn mistake() -> impl Strategy<Value = Mistake> {
    let renamed: [fn(&str) -> String; 4] = [
        |key| key.to_uppercase(),
        |key| {
            let snake = key.chars().flat_map(|c| match c.is_ascii_uppercase() {
                true => vec!['_', c.to_ascii_lowercase()],
                false => vec![c],
            });
            snake.collect()
        },
        |key| format!("{key}s"),
        |key| key.chars().skip(1).collect(),
    ];
    let values = [
        json!(null),
        json!({}),
        json!([]),
        json!(""),
        json!(7),
        json!(-1.5),
        json!(true),
        json!("x"),
        json!([null]),
        json!([[]]),
        json!([{}]),
        json!({ "a": null }),
        json!("\u{0}"),
        json!(" "),
    ];
    let what = prop_oneof![
        2 => Just(What::Remove),
        5 => select(values.to_vec()).prop_map(What::Put),
        2 => select(renamed.to_vec()).prop_map(What::Rename),
        2 => Just(What::Add),
        1 => Just(What::Repeat),
    ];
    (any::<Index>(), what).prop_map(|(place, what)| Mistake { place, what })
}

impl Mistake {
    /// Makes it, somewhere in the spec, or to the spec as a whole.
    fn make(&self, object: &mut Value) {
        let mut places = vec!["/spec".to_owned()];
        below(&object["spec"], "/spec", &mut places);
        let place = self.place.get(&places);
        let Some((parent, last)) = place.rsplit_once('/') else {
            return;
        };
        let last = last.replace("~1", "/").replace("~0", "~");
        match object.pointer_mut(parent) {
            Some(Value::Object(map)) => match &self.what {
                What::Remove => drop(map.remove(&last)),
                What::Put(value) => drop(map.insert(last, value.clone())),
                What::Rename(rename) => {
                    if let Some(value) = map.remove(&last) {
                        map.insert(rename(&last), value);
                    }
                }
                What::Add | What::Repeat => {
                    drop(map.insert("surprise".to_owned(), json!({ "a": [1] })))
                }
            },
            Some(Value::Array(items)) => {
                let Ok(at) = last.parse::<usize>() else {
                    return;
                };
                match &self.what {
                    What::Remove => drop(items.remove(at)),
                    What::Put(value) => items[at] = value.clone(),
                    What::Rename(_) | What::Repeat => items.push(items[at].clone()),
                    What::Add => items.push(json!({ "surprise": {} })),
                }
            }
            _ => {}
        }
    }
}

/// JSON pointers to everything below a place.
fn below(value: &Value, at: &str, places: &mut Vec<String>) {
    let mut go = |key: &str, value: &Value| {
        let place = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        places.push(place.clone());
        below(value, &place, places);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| go(key, value)),
        Value::Array(items) => {
            for (at, value) in items.iter().enumerate() {
                go(&at.to_string(), value);
            }
        }
        _ => {}
    }
}
