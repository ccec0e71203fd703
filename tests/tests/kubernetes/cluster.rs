//! The API server of these tests: one for all that only need objects, one of its own for whoever breaks it.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use portcullis_policy::document::{self, Node, SourceText};
use portcullis_tests::component::{self, kube_api, run_folder, workspace};
use portcullis_tests::kube_api::KubeApi;
use serde_json::{Map, Value, json};

/// A debug build on a busy machine needs a while.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A running API server.
pub struct Cluster {
    pub server: KubeApi,
}

/// The one that tests share, with the definitions of Istio, of the Gateway API and our own; `None` where these tests are
/// skipped. Each test makes namespaces of its own, and nobody breaks it.
pub fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    let started = || {
        // A runtime of its own: the caller's may be this thread's.
        let starting = std::thread::spawn(|| {
            let cluster = start("kubernetes-shared", &[])?;
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let client = cluster.client().await;
                define(&client, &definitions()?).await;
                Some(())
            })?;
            Some(cluster)
        });
        starting.join().unwrap()
    };
    SHARED.get_or_init(started).as_ref()
}

/// One of the test's own, without any definitions; `None` where these tests are skipped.
pub fn start(name: &str, flags: &[&str]) -> Option<Cluster> {
    let executable = component::require(kube_api())?;
    let folder = run_folder(name);
    let server = KubeApi::start_with(&executable, &folder, flags);
    let server = server.unwrap_or_else(|cause| panic!("{cause}"));
    Some(Cluster { server })
}

impl Cluster {
    /// A client of the administrator, on the caller's runtime.
    pub async fn client(&self) -> Client {
        self.server.client().await.unwrap()
    }
}

/// Every definition; `None` where Istio's are not there.
pub fn definitions() -> Option<Vec<Value>> {
    let mut all = istio()?;
    all.extend(others());
    Some(all)
}

/// Istio's own definitions, which are no part of the project.
pub fn istio() -> Option<Vec<Value>> {
    const FILE: &str = "shared/corpora/istio/crds/kubernetes/customresourcedefinitions.gen.yaml";
    let workspace = workspace();
    let mut folders = workspace.ancestors();
    let Some(file) = folders.find_map(|folder| {
        let file = folder.join(FILE);
        file.is_file().then_some(file)
    }) else {
        let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!ci, "`{FILE}` is missing");
        eprintln!(
            "\n==== SKIPPED, NOT PASSED ====\n`{FILE}` is in no folder above the project\n====\n"
        );
        return None;
    };
    Some(yaml(&file))
}

/// Kinds of the Gateway API, as far as a server needs them to keep objects, and our own as they are shipped.
pub fn others() -> Vec<Value> {
    let kind = |group: &str, version: &str, kind: &str, plural: &str, scope: &str| {
        let free = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{plural}.{group}"),
                "annotations": { "api-approved.kubernetes.io": "unapproved, experimental-only" },
            },
            "spec": {
                "group": group, "scope": scope,
                "names": { "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase() },
                "versions": [{
                    "name": version, "served": true, "storage": true, "subresources": { "status": {} },
                    "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": free, "status": free } } },
                }],
            },
        })
    };
    let gateway = "gateway.networking.k8s.io";
    let mut all = vec![
        kind(gateway, "v1", "Gateway", "gateways", "Namespaced"),
        kind(gateway, "v1", "GatewayClass", "gatewayclasses", "Cluster"),
    ];
    all.extend(portcullis_source::crd::definitions().unwrap());
    all
}

/// Applies definitions and waits until their kinds are served.
pub async fn define(client: &Client, definitions: &[Value]) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("tests").force();
    for definition in definitions {
        let name = definition["metadata"]["name"].as_str().unwrap();
        api.patch(name, &params, &Patch::Apply(definition))
            .await
            .unwrap();
    }
    for definition in definitions {
        let name = definition["metadata"]["name"].as_str().unwrap();
        until(name, async || {
            let found = api.get(name).await.unwrap();
            let conditions = found.status.and_then(|status| status.conditions);
            let conditions = conditions.unwrap_or_default();
            conditions
                .iter()
                .any(|c| c.type_ == "Established" && c.status == "True")
        })
        .await;
    }
}

/// Every document of a YAML file.
pub fn yaml(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    yaml_text(&file.display().to_string(), &text)
}

/// Every document of a YAML text.
pub fn yaml_text(name: &str, text: &str) -> Vec<Value> {
    let source = SourceText {
        file: name.into(),
        bytes: text.as_bytes().into(),
    };
    let documents = document::parse(&source).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    let documents = documents.iter().map(value);
    documents.filter(|document| !document.is_null()).collect()
}

fn value(node: &Node) -> Value {
    use portcullis_policy::document::Value as Is;
    match &node.value {
        Is::Null => Value::Null,
        Is::Bool(is, _) => json!(is),
        Is::Integer(number, _) => json!(i64::try_from(*number).unwrap()),
        Is::Float(text) => json!(text.parse::<f64>().unwrap()),
        Is::String(text, _) => json!(text),
        Is::Sequence(items) => items.iter().map(value).collect(),
        Is::Mapping(entries) => {
            let entries = entries.iter();
            let entries = entries.map(|entry| (entry.key.clone(), value(&entry.value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}

/// A namespace that no other test has: one that is deleted takes seconds to go.
pub async fn namespace(client: &Client, prefix: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::SeqCst));
    make_namespace(client, &name).await;
    name
}

/// This namespace.
pub async fn make_namespace(client: &Client, name: &str) {
    let object = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    let api: Api<Namespace> = Api::all(client.clone());
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        Err(Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("{error}"),
    }
}

/// The API of `manifest`'s kind, in its namespace.
pub fn api(client: &Client, manifest: &Value) -> Api<DynamicObject> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (version, kind) = (text(&manifest["apiVersion"]), text(&manifest["kind"]));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let lower = kind.to_lowercase();
    let plural = match lower.strip_suffix('y') {
        Some(stem) if !lower.ends_with("ay") => format!("{stem}ies"),
        _ if lower.ends_with('s') => format!("{lower}es"),
        _ => format!("{lower}s"),
    };
    let kind = GroupVersionKind::gvk(group, version, &kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, &plural);
    match manifest["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Applies a manifest as `kubectl apply --server-side` does.
pub async fn apply(client: &Client, manifest: &Value) -> Result<DynamicObject, Error> {
    let name = manifest["metadata"]["name"].as_str().unwrap();
    let params = PatchParams::apply("tests").force();
    api(client, manifest)
        .patch(name, &params, &Patch::Apply(manifest))
        .await
}

/// Writes a manifest's `status`, as controllers do.
pub async fn apply_status(client: &Client, manifest: &Value) -> Result<DynamicObject, Error> {
    let name = manifest["metadata"]["name"].as_str().unwrap();
    let params = PatchParams::apply("tests").force();
    api(client, manifest)
        .patch_status(name, &params, &Patch::Apply(manifest))
        .await
}

/// Deletes what a manifest names, at once.
pub async fn delete(client: &Client, manifest: &Value) {
    let name = manifest["metadata"]["name"].as_str().unwrap();
    let params = DeleteParams::default().grace_period(0);
    api(client, manifest).delete(name, &params).await.unwrap();
}

/// A running pod with the label `app: name` and this address.
pub async fn pod(client: &Client, namespace: &str, name: &str, address: &str) {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app": name } },
        "spec": { "containers": [{ "name": "c", "image": "c", "ports": [{ "containerPort": 8080 }] }] },
    });
    // A namespace's default service account comes a moment after it.
    until("the pod is taken", async || {
        apply(client, &object).await.is_ok()
    })
    .await;
    let status = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace },
        "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] },
    });
    apply_status(client, &status).await.unwrap();
}

/// Waits until `holds`.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
