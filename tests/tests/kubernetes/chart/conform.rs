//! kubeconform holds what the chart renders against the schemas of a real API server.
//!
//! kubeconform's own schemas come from the internet, made from a published document; these are made from what the server of
//! our tests itself serves under `/openapi/v3`, with the kinds of others installed as their projects ship them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kube::Client;
use portcullis_tests::component::{self, require, run_folder};
use portcullis_tests::process;
use serde_json::{Map, Value, json};

use super::applied::stage;
use super::helm::helm;
use super::matrix::MATRIX;

#[test]
fn everything_rendered_conforms_strictly() {
    let (Some(helm), Some(kubeconform)) = (helm(), require(component::kubeconform())) else {
        return;
    };
    let Some(stage) = stage() else { return };
    let folder = run_folder("chart-schemas");
    let rendered: Vec<Value> = MATRIX
        .iter()
        .flat_map(|(name, values)| helm.objects(&format!("kinds-{name}"), values))
        .collect();
    let words = |object: &Value| {
        let word = |key: &str| object[key].as_str().unwrap().to_owned();
        (word("apiVersion"), word("kind"))
    };
    let wanted: BTreeSet<(String, String)> = rendered.iter().map(words).collect();
    assert!(wanted.len() > 15, "{wanted:?}");
    stage.run(async |client| schemas(client, &folder, &wanted).await);
    for (name, values) in MATRIX {
        let text = helm.template(&format!("conform-{name}"), values).unwrap();
        let said = judge(&kubeconform, &folder, &text);
        let bad = said["resources"].as_array().cloned().unwrap_or_default();
        assert!(bad.is_empty(), "{name}: {bad:#?}");
        let summary = &said["summary"];
        let valid = summary["valid"].as_u64().unwrap();
        assert!(valid >= 4, "{name}: {summary}");
        for none in ["invalid", "errors", "skipped"] {
            assert_eq!(summary[none], 0, "{name}: {summary}");
        }
    }
    // It sees a misspelt key, a wrong type and an unknown kind.
    for bad in [
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {prots: []}",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: two, selector: {}, template: {}}",
        "apiVersion: apps/v1\nkind: Deploymint\nmetadata: {name: a}",
        "apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {name: a}\nspec: {selector: {}, endpints: []}",
    ] {
        let said = judge(&kubeconform, &folder, bad);
        let summary = &said["summary"];
        assert_eq!(summary["valid"], 0, "{bad}: {said}");
    }
}

fn judge(kubeconform: &Path, schemas: &Path, manifests: &str) -> Value {
    let location = schemas.join("{{.ResourceKind}}{{.KindSuffix}}.json");
    let mut command = Command::new(kubeconform);
    command
        .args(["-strict", "-summary", "-output", "json", "-schema-location"])
        .arg(location)
        .arg("-");
    let output =
        process::run_with_input(&mut command, manifests.as_bytes(), Duration::from_secs(60))
            .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said)
        .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Writes a JSON schema for each of these kinds, under the names that kubeconform forms.
async fn schemas(client: &Client, folder: &Path, wanted: &BTreeSet<(String, String)>) {
    let index: Value = get(client, "/openapi/v3").await;
    for api_version in wanted
        .iter()
        .map(|(api_version, _)| api_version)
        .collect::<BTreeSet<_>>()
    {
        let path = match api_version.contains('/') {
            true => format!("apis/{api_version}"),
            false => format!("api/{api_version}"),
        };
        let url = index["paths"][&path]["serverRelativeURL"].as_str();
        let url = url.unwrap_or_else(|| panic!("the server does not serve `{api_version}`"));
        let document: Value = get(client, url).await;
        let all = document["components"]["schemas"].as_object().unwrap();
        let mut definitions: Map<String, Value> = all.clone();
        definitions.values_mut().for_each(strict);
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        for (_, kind) in wanted.iter().filter(|(other, _)| other == api_version) {
            let names = all.iter().filter(|(_, schema)| {
                let of = schema["x-kubernetes-group-version-kind"]
                    .as_array()
                    .into_iter()
                    .flatten();
                of.into_iter().any(|one| {
                    one["group"] == group && one["version"] == version && one["kind"] == *kind
                })
            });
            let names: Vec<&String> = names.map(|(name, _)| name).collect();
            let [name] = names.as_slice() else {
                panic!("{api_version} {kind}: {names:?}");
            };
            // kubeconform: the group up to its first dot, then the version.
            let suffix = match group.split('.').next().unwrap() {
                "" => format!("-{version}"),
                short => format!("-{short}-{version}"),
            };
            let schema =
                json!({ "$ref": format!("#/definitions/{name}"), "definitions": definitions });
            let file = format!("{}{suffix}.json", kind.to_lowercase());
            fs::write(folder.join(file), schema.to_string()).unwrap();
        }
    }
}

async fn get(client: &Client, path: &str) -> Value {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    client
        .request(request)
        .await
        .unwrap_or_else(|cause| panic!("{path}: {cause}"))
}

/// References lead into `definitions`, and an object has no other properties than those that are named.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get_mut("$ref") {
                *target = target.replace("#/components/schemas/", "#/definitions/");
            }
            let free =
                fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            let named = fields.get("properties").is_some_and(|one| one.is_object());
            // A property may itself be called `properties`.
            let is_schema = fields.get("type").is_none_or(Value::is_string);
            if named && is_schema && !free && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
                fields.remove("type");
            }
            fields.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => {}
    }
}
