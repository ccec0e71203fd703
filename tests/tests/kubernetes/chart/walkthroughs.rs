//! What docs/tasks/cluster-proxies.md has people apply is taken by a real API server with each project's own definitions, and
//! fits what the chart makes.

use std::fs;

use portcullis_tests::component::workspace;
use serde_json::{Value, json};

use super::applied::{Mode, apply, stage};
use super::helm::{documents, find, helm};

const SNIPPETS: [&str; 5] = [
    "istio/portcullis.yaml",
    "envoy-gateway/portcullis.yaml",
    "contour/portcullis.yaml",
    "ingress-nginx/ingress.yaml",
    "traefik/kubernetes.yaml",
];

fn snippet(name: &str) -> String {
    fs::read_to_string(workspace().join("deploy/proxies").join(name)).unwrap()
}

#[test]
fn every_snippet_is_taken_by_an_api_server_with_its_projects_definitions() {
    let Some(stage) = stage() else { return };
    let istio = istio();
    for name in SNIPPETS {
        let objects = documents(&snippet(name));
        assert!(!objects.is_empty(), "{name}");
        if name.starts_with("istio/") && istio.is_none() {
            continue;
        }
        let refused: Vec<String> = stage.run(async |client| {
            if name.starts_with("istio/") {
                let policies = "authorizationpolicies.security.istio.io";
                let all = istio.iter().flatten();
                let definition = all.clone().find(|one| one["metadata"]["name"] == policies);
                let definition = definition.unwrap();
                apply(client, definition, Mode::Real).await.unwrap();
                super::applied::served(client, definition).await;
                let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "istio-system" } });
                apply(client, &namespace, Mode::Real).await.unwrap();
            }
            let mut refused = Vec::new();
            for object in &objects {
                refused.extend(apply(client, object, Mode::DryRun).await.err());
            }
            refused
        });
        assert!(refused.is_empty(), "{name}: {refused:#?}");
    }
}

/// Istio's definitions, which are no part of the project.
pub fn istio() -> Option<Vec<Value>> {
    const FILE: &str = "shared/corpora/istio/crds/kubernetes/customresourcedefinitions.gen.yaml";
    let folder = workspace();
    let file = folder
        .ancestors()
        .map(|folder| folder.join(FILE))
        .find(|file| file.is_file());
    let Some(file) = file else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "`{FILE}` is missing"
        );
        eprintln!(
            "\n==== SKIPPED, NOT PASSED ====\n`{FILE}` is in no folder above the project\n====\n"
        );
        return None;
    };
    Some(documents(&fs::read_to_string(file).unwrap()))
}

/// Every text of an object.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, found)),
        Value::Array(items) => items.iter().for_each(|value| texts(value, found)),
        _ => {}
    }
}

#[test]
fn snippets_name_the_service_and_the_ports_that_the_chart_makes() {
    let Some(helm) = helm() else { return };
    let page = fs::read_to_string(workspace().join("docs/tasks/cluster-proxies.md")).unwrap();
    let block = page
        .split("file=ingress-nginx/values.yaml\n")
        .nth(1)
        .unwrap();
    let values = block.split("```").next().unwrap();
    let http = helm.objects("walkthrough-http", values);
    let grpc = helm.objects("walkthrough-grpc", "{}");
    for (objects, port, snippets) in [(&grpc, 9191, &SNIPPETS[..3]), (&http, 9192, &SNIPPETS[3..])]
    {
        let service = find(objects, "Service/portcullis");
        assert_eq!(service["metadata"]["namespace"], "portcullis-system");
        assert_eq!(service["spec"]["ports"][0]["port"], port);
        for name in snippets {
            let text = snippet(name);
            let mut words = Vec::new();
            documents(&text)
                .iter()
                .for_each(|object| texts(object, &mut words));
            let told = words.iter().any(|word| {
                word.contains("portcullis.portcullis-system.svc") || word == "portcullis-system"
            });
            assert!(told, "{name} names the service");
            assert!(text.contains(&port.to_string()), "{name} names port {port}");
        }
    }
    // The page's own listener is the one of its values.
    let block = page
        .split("file=ingress-nginx/portcullis.yaml\n")
        .nth(1)
        .unwrap();
    let shown = documents(block.split("```").next().unwrap()).remove(0);
    let config = find(&http, "ConfigMap/portcullis-authz")["data"]["portcullis.yaml"]
        .as_str()
        .unwrap();
    assert_eq!(shown["listeners"], documents(config)[0]["listeners"]);
}

#[test]
fn traefiks_resources_say_what_its_files_say() {
    let file = documents(&snippet("traefik/portcullis.yml")).remove(0);
    let resources = documents(&snippet("traefik/kubernetes.yaml"));
    let middlewares = file["http"]["middlewares"].as_object().unwrap();
    assert_eq!(middlewares.len(), 4);
    for (name, middleware) in middlewares {
        let mut wanted = middleware.clone();
        match name.as_str() {
            "portcullis" => {
                let chain = wanted["chain"]["middlewares"].as_array_mut().unwrap();
                chain
                    .iter_mut()
                    .for_each(|one| *one = json!({ "name": one }));
            }
            "portcullis-ask" => {
                wanted["forwardAuth"]["address"] =
                    json!("http://portcullis.portcullis-system.svc.cluster.local:9192/");
            }
            _ => {}
        }
        assert_eq!(
            find(&resources, &format!("Middleware/{name}"))["spec"],
            wanted,
            "{name}"
        );
    }
    let kind = &file["tls"]["options"]["default"]["clientAuth"]["clientAuthType"];
    assert_eq!(
        find(&resources, "TLSOption/default")["spec"]["clientAuth"]["clientAuthType"],
        *kind
    );
}

#[test]
fn nothing_needs_an_envoy_filter() {
    let kind = ["Envoy", "Filter"].concat();
    let mut folders = vec![workspace().join("deploy"), workspace().join("docs/tasks")];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                !text.contains(&format!("kind: {kind}")),
                "{}",
                path.display()
            );
            read += 1;
        }
    }
    assert!(read > 40, "{read}");
}
