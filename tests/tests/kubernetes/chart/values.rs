//! values.yaml, its schema and its README say the same, and what is misspelt is refused.

use std::collections::BTreeSet;
use std::fs;

use portcullis_tests::component::workspace;
use serde_json::Value;

use super::helm::{documents, helm};

fn chart(file: &str) -> String {
    fs::read_to_string(workspace().join("deploy/chart").join(file)).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&chart("values.schema.json")).unwrap()
}

#[test]
fn what_is_misspelt_or_of_another_type_is_refused() {
    let Some(helm) = helm() else { return };
    for (values, said) in [
        ("authz: {replcas: 3}", "replcas"),
        ("autz: {}", "autz"),
        ("authz: {mode: replicaset}", "/authz/mode"),
        ("authz: {replicas: two}", "/authz/replicas"),
        ("authz: {replicas: -1}", "/authz/replicas"),
        ("authz: {listeners: []}", "/authz/listeners"),
        ("authz: {listeners: [{name: grpc}]}", "port"),
        (
            "authz: {listeners: [{name: a-name-that-is-too-long, port: 1}]}",
            "/authz/listeners/0/name",
        ),
        (
            "authz: {listeners: [{name: grpc, port: 70000}]}",
            "/authz/listeners/0/port",
        ),
        (
            "authz: {listeners: [{name: grpc, port: 1, settings: {pth: raw}}]}",
            "pth",
        ),
        // It is made from `port`.
        (
            "authz: {listeners: [{name: grpc, port: 1, settings: {address: '[::]:1'}}]}",
            "address",
        ),
        ("authz: {config: {decision_lg: {}}}", "decision_lg"),
        ("authz: {config: {management: {}}}", "management"),
        ("authz: {policies: {readme.md: ''}}", "readme.md"),
        ("authz: {resources: {requets: {}}}", "requets"),
        (
            "authz: {sidecar: {workloads: [{namespace: shop}]}}",
            "serviceAccount",
        ),
        (
            "authz: {workloadAPI: {mount: socket}}",
            "/authz/workloadAPI/mount",
        ),
        ("authz: {drainSeconds: 10s}", "/authz/drainSeconds"),
        ("admission: {replicas: 1.5}", "/admission/replicas"),
        ("ca: {config: {data: /tmp}}", "data"),
        ("ca: {hostPid: true}", "hostPid"),
        ("ca: {persistence: {size: big}}", "/ca/persistence/size"),
        (
            "ca: {trustDomain: 'spiffe://corp.example'}",
            "/ca/trustDomain",
        ),
        ("image: {digest: latest}", "/image/digest"),
        ("image: {repository: 'x@sha256:1'}", "/image/repository"),
        ("runAsUser: 0", "/runAsUser"),
        ("bindAddress: localhost", "/bindAddress"),
        (
            "networkPolicy: {apiServer: {cidrs: [10.0.0.1]}}",
            "/networkPolicy/apiServer/cidrs/0",
        ),
        ("serviceMonitor: {interval: 30}", "/serviceMonitor/interval"),
        ("labels: {team: 7}", "/labels/team"),
        // Two would be two authorities on one volume.
        ("ca: {replicas: 2}", "replicas"),
        (
            "ca: {persistence: {accessMode: ReadWriteMany}}",
            "/ca/persistence/accessMode",
        ),
        // No node could be drained.
        (
            "authz: {podDisruptionBudget: {maxUnavailable: 0}}",
            "/authz/podDisruptionBudget/maxUnavailable",
        ),
        (
            "admission: {podDisruptionBudget: {maxUnavailable: 0%}}",
            "/admission/podDisruptionBudget/maxUnavailable",
        ),
        // Everybody, as a NetworkPolicy reads it.
        ("networkPolicy: {proxies: []}", "/networkPolicy/proxies"),
        (
            "networkPolicy: {monitoring: []}",
            "/networkPolicy/monitoring",
        ),
        ("networkPolicy: {dnsPorts: []}", "/networkPolicy/dnsPorts"),
    ] {
        let refused = helm.template("misspelt", values);
        let refused = refused.err().unwrap_or_else(|| panic!("taken: {values}"));
        assert!(refused.contains(said), "{values}: {refused}");
        assert!(refused.contains("schema"), "{values}: {refused}");
    }
}

/// Paths of all values, leaves and empty mappings; lists are leaves.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                paths(value, &path, found);
            }
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

/// The same of a schema: what it says nothing more of is a leaf.
fn described(schema: &Value, at: &Value, path: &str, found: &mut BTreeSet<String>) {
    let at = match at["$ref"].as_str() {
        Some(name) => &schema["$defs"][name.strip_prefix("#/$defs/").unwrap()],
        None => at,
    };
    if at["type"] == "object" && at.get("properties").is_some() {
        assert_eq!(
            at["additionalProperties"],
            Value::Bool(false),
            "`{path}` is closed"
        );
    }
    // Keys of portcullis.yaml, and what Kubernetes defines.
    let free = ["config", "settings", "resources", "requests", "limits"];
    let name = path.rsplit('.').next().unwrap();
    match at["properties"].as_object() {
        Some(fields) if !free.contains(&name) && path != "kubernetes" => {
            for (name, field) in fields {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                described(schema, field, &path, found);
            }
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

#[test]
fn the_schema_names_exactly_the_values_that_there_are() {
    let values = documents(&chart("values.yaml")).remove(0);
    let mut there = BTreeSet::new();
    paths(&values, "", &mut there);
    // Of CPU and memory the schema says `resources`.
    let cut = |path: &String| match path.split_once(".resources.") {
        Some((before, _)) => format!("{before}.resources"),
        // Nor of what these hold.
        None => {
            let whole = ["dashboards.labels", "ca.kubernetes.settings"];
            let whole = whole.iter().find(|whole| path.starts_with(**whole));
            whole.map_or_else(|| path.clone(), |whole| (*whole).to_owned())
        }
    };
    let there: BTreeSet<String> = there.iter().map(cut).collect();
    let schema = schema();
    let mut named = BTreeSet::new();
    described(&schema, &schema, "", &mut named);
    // Helm's own.
    assert!(named.remove("global"));
    let missing: Vec<_> = there.difference(&named).collect();
    assert!(
        missing.is_empty(),
        "values that the schema does not name: {missing:?}"
    );
    let extra: Vec<_> = named.difference(&there).collect();
    assert!(
        extra.is_empty(),
        "the schema names what is no value: {extra:?}"
    );
}

/// Keys below `section` of portcullis.yaml, without those of keys.
fn keys(section: &str) -> BTreeSet<String> {
    // The reference is made from the reader's own table.
    let reference =
        fs::read_to_string(workspace().join("docs/reference/configuration.md")).unwrap();
    let rows = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let keys = rows.filter_map(|key| key.strip_prefix(section));
    let own = keys.filter(|key| !key.is_empty() && !key.contains(['.', '[', '{']));
    own.map(str::to_owned).collect()
}

fn properties(schema: &Value, pointer: &str) -> BTreeSet<String> {
    let at = schema
        .pointer(pointer)
        .unwrap_or_else(|| panic!("{pointer}"));
    at["properties"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

#[test]
fn the_schema_knows_every_key_of_the_configuration() {
    let schema = schema();
    let authz = properties(&schema, "/properties/authz/properties/config");
    let wanted = keys("");
    // What the chart itself writes, or another part of it.
    let own = [
        "admission",
        "ca",
        "kubernetes",
        "listeners",
        "log",
        "management",
        "mesh",
        "policies",
    ];
    let mut all: BTreeSet<String> = authz;
    all.extend(own.map(str::to_owned));
    assert_eq!(all, wanted, "`authz.config`");

    let followed = properties(&schema, "/properties/kubernetes");
    let mut wanted = keys("kubernetes.");
    for own in ["kubeconfig", "context", "lease_namespace"] {
        assert!(wanted.remove(own), "{own}");
    }
    assert_eq!(followed, wanted, "`kubernetes`");

    let listener = properties(
        &schema,
        "/properties/authz/properties/listeners/items/properties/settings",
    );
    let mut wanted = keys("listeners[].");
    assert!(wanted.remove("address"));
    assert_eq!(listener, wanted, "`authz.listeners[].settings`");

    let ca = properties(&schema, "/properties/ca/properties/config");
    let own = [
        "data",
        "management",
        "passphrase_file",
        "socket",
        "trust_domain",
        "upstream",
        "kubernetes",
    ];
    let wanted = keys("ca.");
    let wanted: BTreeSet<String> = wanted
        .into_iter()
        .filter(|key| !own.contains(&&**key))
        .collect();
    assert_eq!(ca, wanted, "`ca.config`");

    let admission = properties(&schema, "/properties/admission/properties/config");
    let mut wanted = keys("admission.");
    for own in [
        "listen",
        "management",
        "namespace",
        "service",
        "webhook_configuration",
    ] {
        assert!(wanted.remove(own), "{own}");
    }
    assert_eq!(admission, wanted, "`admission.config`");

    let cluster = properties(
        &schema,
        "/properties/ca/properties/kubernetes/properties/settings",
    );
    let mut wanted = keys("ca.kubernetes.");
    // The pod is in the cluster and on the node that it is about.
    for own in ["kubeconfig", "context", "node", "proc_root"] {
        assert!(wanted.remove(own), "{own}");
    }
    assert_eq!(cluster, wanted, "`ca.kubernetes.settings`");
}

/// One row: the value, what it is unless told otherwise, what it means.
fn rows() -> Vec<[String; 3]> {
    let mut rows = Vec::new();
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut comment: Vec<String> = Vec::new();
    let text = chart("values.yaml");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim_start();
        if let Some(words) = line.strip_prefix("# ") {
            comment.push(words.to_owned());
            continue;
        }
        let said = std::mem::take(&mut comment).join(" ");
        if line.is_empty() {
            continue;
        }
        let (key, value) = line
            .split_once(':')
            .unwrap_or_else(|| panic!("no key: {line}"));
        while above.last().is_some_and(|(column, _)| *column >= indent) {
            above.pop();
        }
        let path = above.iter().map(|(_, key)| key.as_str()).chain([key]);
        let path = path.collect::<Vec<_>>().join(".");
        let value = value.trim();
        // What is deeper than one that says something is its value.
        let mut below = Vec::new();
        if value.is_empty() && !said.is_empty() && key != "enabled" {
            let deeper = |next: &&str| {
                next.len() - next.trim_start().len() > indent && !next.trim_start().starts_with('#')
            };
            while let Some(next) = lines.next_if(|next| deeper(next)) {
                below.push(next.trim());
            }
        }
        match (value, below.is_empty()) {
            ("", true) => above.push((indent, key.to_owned())),
            ("", false) => rows.push([path, below.join(" "), said]),
            _ => rows.push([path, value.to_owned(), said]),
        }
    }
    rows
}

#[test]
fn the_readme_lists_every_value() {
    let rows = rows();
    assert!(rows.len() > 100, "{}", rows.len());
    let mut table = String::from("| value | default | meaning |\n|---|---|---|\n");
    for [path, default, meaning] in &rows {
        assert!(!meaning.is_empty(), "values.yaml says what `{path}` means");
        table.push_str(&format!("| `{path}` | `{default}` | {meaning} |\n"));
    }
    let readme = chart("README.md");
    let start = readme.find("| value | default |").unwrap_or(readme.len());
    let wanted = format!("{}{table}", &readme[..start]);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(workspace().join("deploy/chart/README.md"), wanted).unwrap();
        return;
    }
    assert!(
        readme == wanted,
        "README.md is made of values.yaml: run `UPDATE_DOCS=1 cargo test -p portcullis-tests --test kubernetes readme`"
    );
}
