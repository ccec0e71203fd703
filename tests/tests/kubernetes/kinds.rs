//! Our own kinds on a real API server: what their definitions refuse and show, and `kubectl portcullis` against it.

#[path = "kinds/access.rs"]
mod access;
#[path = "kinds/ambient.rs"]
mod ambient;
#[path = "kinds/corpora.rs"]
mod corpora;
#[path = "kinds/plugin.rs"]
mod plugin;

use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::{Client, Error};
use portcullis_policy::document::SourceText;
use portcullis_policy::resource;
use portcullis_tests::process;
use serde_json::{Value, json};

use crate::cluster;

const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");
const CEDAR: &str = "permit (principal, action, resource);";

fn object(kind: &str, namespace: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "portcullis.dev/v1alpha1", "kind": kind,
        "metadata": { "name": "a", "namespace": namespace },
        "spec": spec,
    })
}

fn case(name: &str, more: Value) -> Value {
    let mut case = json!({ "name": name, "decision": "deny", "reason": "no_allow_matched" });
    let fields = case.as_object_mut().unwrap();
    for (key, value) in more.as_object().unwrap() {
        fields.insert(key.clone(), value.clone());
    }
    fields.retain(|_, value| value != "absent");
    case
}

fn api(client: &Client, manifest: &Value) -> Api<DynamicObject> {
    cluster::api(client, manifest)
}

/// What the API server says to its creation, which stays without effect.
async fn tried(client: &Client, manifest: &Value) -> Result<DynamicObject, String> {
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let object = serde_json::from_value(manifest.clone()).unwrap();
    match api(client, manifest).create(&params, &object).await {
        Ok(created) => Ok(created),
        Err(Error::Api(status)) => Err(status.message.clone()),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn the_command_prints_what_is_installed() {
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(PORTCULLIS);
        let output = process::run(command.args(args), cluster::LIMIT).unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let list: Value = serde_json::from_str(&run(&["crds", "--output", "json"])).unwrap();
    assert_eq!(list, portcullis_source::crd::list().unwrap());
    assert_eq!(run(&["crds"]), portcullis_source::crd::yaml().unwrap());
}

#[tokio::test]
async fn schema_and_rules_refuse_what_the_engine_refuses() {
    let Some(cluster) = cluster::shared() else {
        return;
    };
    let client = cluster.client().await;
    let ns = cluster::namespace(&client, "kinds").await;
    let cedar = |spec: Value| object("CedarPolicy", &ns, spec);
    let test = |cases: Value| object("PolicyTest", &ns, json!({ "cases": cases }));
    let request = json!({ "attributes": { "request": { "http": { "method": "GET" } } } });
    let labels = json!({ "matchLabels": { "app": "web" } });
    let target = json!([{ "kind": "Service", "name": "web" }]);
    let refused = [
        (cedar(json!({})), "policies"),
        (cedar(json!({ "policies": "" })), "policies"),
        (cedar(json!({ "policies": "x".repeat(65_537) })), "policies"),
        (
            cedar(json!({ "policies": CEDAR, "selector": labels, "targetRefs": target })),
            "only one of targetRefs or selector can be set",
        ),
        (
            cedar(json!({ "policies": CEDAR, "selector": { "matchLabels": { "app": "w*" } } })),
            "wildcard not allowed in label value match",
        ),
        (
            cedar(json!({ "policies": CEDAR, "selector": { "matchLabels": { "a*": "w" } } })),
            "wildcard not allowed in label key match",
        ),
        (
            cedar(json!({ "policies": CEDAR, "selector": { "matchLabels": { "": "w" } } })),
            "key must not be empty",
        ),
        (
            cedar(
                json!({ "policies": CEDAR, "selector": { "matchLabels": { "a": "w".repeat(64) } } }),
            ),
            "63",
        ),
        (
            cedar(
                json!({ "policies": CEDAR, "targetRefs": vec![json!({ "kind": "Service", "name": "w" }); 17] }),
            ),
            "16",
        ),
        (
            cedar(json!({ "policies": CEDAR, "targetRefs": [{ "kind": "Pod", "name": "w" }] })),
            "a target is a Service",
        ),
        (
            cedar(json!({ "policies": CEDAR, "targetRefs": [{ "kind": "Gateway", "name": "w" }] })),
            "a target is a Service",
        ),
        (
            cedar(json!({ "policies": CEDAR, "targetRefs": [{ "kind": "Service", "name": "" }] })),
            "name",
        ),
        (
            cedar(
                json!({ "policies": CEDAR, "targetRefs": [{ "kind": "Service", "name": "w", "namespace": "o" }] }),
            ),
            "cross namespace referencing",
        ),
        (test(json!([])), "cases"),
        (
            test(json!([case("a", json!({}))])),
            "either `request`, or `like` and `change`",
        ),
        (
            test(json!([case(
                "a",
                json!({ "request": request, "like": "b", "change": {} })
            )])),
            "either `request`, or `like` and `change`",
        ),
        (
            test(json!([case("a", json!({ "like": "b" }))])),
            "either `request`",
        ),
        (
            test(json!([case(" ", json!({ "request": request }))])),
            "name",
        ),
        (
            test(json!([
                case("a", json!({ "request": request })),
                case("a", json!({ "request": request }))
            ])),
            "Duplicate value",
        ),
        (
            test(json!([case(
                "a",
                json!({ "request": request, "decision": "allow" })
            )])),
            "the reason does not go with the decision",
        ),
        (
            test(json!([case(
                "a",
                json!({ "request": request, "reason": "because" })
            )])),
            "Unsupported value",
        ),
        (
            test(json!([case(
                "a",
                json!({ "request": request, "target": "side" })
            )])),
            "Unsupported value",
        ),
        (
            test(json!([case("a", json!({ "request": [] }))])),
            "request",
        ),
        (
            test(json!([case(
                "a",
                json!({ "request": request, "dry_run": { "decision": "deny", "reason": "allowed_by" } })
            )])),
            "the reason does not go with the decision",
        ),
    ];
    for (manifest, words) in &refused {
        let answer = tried(&client, manifest).await;
        let message = answer
            .err()
            .unwrap_or_else(|| panic!("accepted: {manifest:.200}"));
        assert!(message.contains(words), "{words}: {message:.600}");
        // The webhook, a file: the same verdict.
        assert!(errors(manifest).next().is_some(), "{manifest:.300}");
    }
    let accepted = [
        cedar(json!({ "policies": CEDAR })),
        cedar(json!({ "policies": CEDAR, "selector": labels })),
        cedar(json!({ "policies": CEDAR, "selector": { "matchLabels": {} }, "targetRefs": null })),
        cedar(json!({ "policies": CEDAR, "targetRefs": [
            { "group": "", "kind": "Service", "name": "a" }, { "group": "networking.istio.io", "kind": "ServiceEntry", "name": "a" },
            { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "a" },
            { "group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "a" },
        ] })),
        test(json!([
            case(
                "a",
                json!({ "request": request, "target": "waypoint", "path": "normalised", "explain": true })
            ),
            case(
                "b",
                json!({ "like": "a", "change": { "attributes": { "request": null, "source": {} } } })
            ),
            case(
                "c",
                json!({
                    "request": request, "decision": "allow", "reason": "allowed_by", "policies": ["a/b#c"], "audit": [],
                    "provider": "p", "dry_run": { "decision": "deny", "reason": "denied_by", "shadow": { "deny": "a/b#c" } },
                })
            ),
        ])),
    ];
    for manifest in &accepted {
        let created = tried(&client, manifest).await;
        let created = created.unwrap_or_else(|message| panic!("{message}\n{manifest}"));
        let stored = serde_json::to_value(&created).unwrap();
        let found: Vec<String> = errors(&stored).collect();
        assert!(found.is_empty(), "{found:?}");
        // A null of a merge patch means something: it is kept.
        if manifest["kind"] == "PolicyTest" {
            assert_eq!(stored["spec"], manifest["spec"]);
        }
    }
    // A misspelt field never arrives.
    let created = tried(
        &client,
        &cedar(json!({ "policies": CEDAR, "selectors": labels })),
    )
    .await;
    let stored = serde_json::to_value(created.unwrap()).unwrap();
    assert_eq!(stored["spec"], json!({ "policies": CEDAR }));
    // SPIRE's manifests apply unchanged.
    let spire = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID", "metadata": { "name": "a" },
        "spec": {
            "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}",
            "podSelector": { "matchLabels": { "a": "b" }, "matchExpressions": [{ "key": "a", "operator": "In", "values": ["b"] }] },
            "namespaceSelector": { "matchExpressions": [{ "key": "a", "operator": "Exists" }] },
            "dnsNameTemplates": ["a.b"], "workloadSelectorTemplates": ["k8s:ns:a"], "ttl": "1h", "jwtTtl": "5m",
            "federatesWith": ["td2"], "hint": "h", "admin": true, "downstream": true, "autoPopulateDNSNames": true,
            "className": "c", "fallback": true,
        },
    });
    let created = tried(&client, &spire).await;
    let stored = serde_json::to_value(created.unwrap()).unwrap();
    assert_eq!(stored["spec"], spire["spec"]);
}

/// What the engine has against an object, in words.
fn errors(manifest: &Value) -> impl Iterator<Item = String> {
    let read = resource::read(&SourceText {
        file: "object.json".into(),
        bytes: manifest.to_string().into_bytes().into(),
    });
    let found = read.diagnostics.into_iter();
    found
        .filter(|diagnostic| diagnostic.is_error())
        .map(|diagnostic| format!("{} {}", diagnostic.code, diagnostic.message))
}

/// Every combination of some values, right and wrong: what the server takes, the engine reads.
#[tokio::test]
async fn what_the_schema_accepts_the_engine_reads() {
    let Some(cluster) = cluster::shared() else {
        return;
    };
    let client = cluster.client().await;
    let ns = cluster::namespace(&client, "kinds").await;
    let mut tries = Vec::new();
    let selectors = [
        json!(null),
        json!({}),
        json!({ "matchLabels": { "a": "b", "c/d": "" } }),
        json!({ "matchLabels": { "a": "*" } }),
        json!({ "matchLabels": { "a": null } }),
        json!([]),
    ];
    let targets = [
        json!(null),
        json!([]),
        json!([{ "kind": "Service", "name": "a", "group": "core" }]),
        json!([{ "kind": "Gateway", "name": "a", "group": "gateway.networking.k8s.io" }]),
        json!([{ "kind": "Gateway", "name": "a", "group": "networking.istio.io" }]),
        json!([{ "kind": "service", "name": "a" }]),
    ];
    let texts = [
        json!(CEDAR),
        json!("no Cedar"),
        json!("\u{e9}\n"),
        json!(7),
        json!(null),
    ];
    for selector in &selectors {
        for target in &targets {
            for text in &texts {
                let spec = json!({ "selector": selector, "targetRefs": target, "policies": text });
                tries.push(object("CedarPolicy", &ns, spec));
            }
        }
    }
    let requests = [
        json!({ "request": {} }),
        json!({ "request": null }),
        json!({ "request": { "a": [1.5, null, { "b": true }] } }),
        json!({ "like": "first", "change": { "a": 1 } }),
        json!({ "like": "", "change": { "a": 1 } }),
        json!({ "request": { "a": 1 }, "change": null }),
    ];
    let wanted = [
        json!({}),
        json!({ "reason": "allowed_by", "decision": "allow" }),
        json!({ "reason": "allowed_by" }),
        json!({ "decision": "absent" }),
        json!({ "policies": ["a"], "audit": null, "provider": "", "explain": false }),
        json!({ "policies": "a" }),
        json!({ "dry_run": { "decision": "allow", "reason": "no_allow_policy", "policies": [], "shadow": {} } }),
        json!({ "dry_run": {} }),
        json!({ "target": "auto", "path": "raw" }),
    ];
    for request in &requests {
        for wanted in &wanted {
            let mut more = request.as_object().unwrap().clone();
            more.extend(wanted.as_object().unwrap().clone());
            let cases = json!([
                case("first", json!({ "request": {} })),
                case("second", Value::Object(more))
            ]);
            tries.push(object("PolicyTest", &ns, json!({ "cases": cases })));
        }
    }
    let (mut accepted, mut refused) = (0, 0);
    for manifest in &tries {
        match tried(&client, manifest).await {
            Err(_) => refused += 1,
            Ok(stored) => {
                accepted += 1;
                let stored = serde_json::to_value(stored).unwrap();
                let found: Vec<String> = errors(&stored)
                    // No schema sees another case.
                    .filter(|found| !found.starts_with("PC0703 "))
                    .collect();
                assert!(found.is_empty(), "{found:?}\n{manifest}");
            }
        }
    }
    assert!(
        accepted > 40 && refused > 40,
        "{accepted} accepted, {refused} refused"
    );
}

#[tokio::test]
async fn columns_show_what_became_of_an_object() {
    let Some(cluster) = cluster::shared() else {
        return;
    };
    let client = cluster.client().await;
    let ns = cluster::namespace(&client, "kinds").await;
    let mut policy = object("CedarPolicy", &ns, json!({ "policies": CEDAR }));
    cluster::apply(&client, &policy).await.unwrap();
    let condition = |name: &str, status: &str, reason: &str| {
        json!({
            "type": name, "status": status, "reason": reason, "message": "in force on 3 workloads",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let status = json!({
        "observedGeneration": 1, "workloads": 3,
        "conditions": [condition("Accepted", "True", "Accepted"), condition("Enforced", "False", "DryRun")],
    });
    policy.as_object_mut().unwrap().remove("spec");
    policy["status"] = status.clone();
    let written = cluster::apply_status(&client, &policy).await.unwrap();
    assert_eq!(written.data["status"], status);
    let path = format!("/apis/portcullis.dev/v1alpha1/namespaces/{ns}/cedarpolicies");
    let mut request = kube::core::Request::new(path)
        .list(&ListParams::default())
        .unwrap();
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    request
        .headers_mut()
        .insert("accept", table.parse().unwrap());
    let table: Value = client.request(request).await.unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap();
    let shown: Vec<(&str, String)> = columns
        .iter()
        .zip(table["rows"][0]["cells"].as_array().unwrap())
        .map(|(column, cell)| (column["name"].as_str().unwrap(), cell.to_string()))
        .collect();
    let names: Vec<&str> = shown.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        ["Name", "Accepted", "Enforced", "Workloads", "Reason", "Age"]
    );
    let cell = |name: &str| &shown.iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!(cell("Accepted"), "\"True\"");
    assert_eq!(cell("Enforced"), "\"False\"");
    assert_eq!(cell("Workloads"), "3");
}
