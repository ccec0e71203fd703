//! A real API server takes what the chart renders, as shipped.

use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use portcullis_tests::component::{self, kube_api, require, run_folder};
use portcullis_tests::kube_api::KubeApi;
use serde_json::{Value, json};

use super::helm::{NAMESPACE, documents, helm, named};
use super::matrix::MATRIX;

const LIMIT: Duration = Duration::from_secs(240);

/// The server that these tests share, with the kinds of others in it.
pub struct Stage {
    server: KubeApi,
    runtime: tokio::runtime::Runtime,
}

/// It, if it can be had.
pub fn stage() -> Option<&'static Stage> {
    static STAGE: LazyLock<Option<Stage>> = LazyLock::new(start);
    STAGE.as_ref()
}

fn start() -> Option<Stage> {
    let (executable, definitions) = (require(kube_api())?, require(component::definitions())?);
    let folder = run_folder("chart-api");
    let server = KubeApi::start(&executable, &folder).unwrap_or_else(|cause| panic!("{cause}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let stage = Stage { server, runtime };
    let definitions = documents(&std::fs::read_to_string(definitions).unwrap());
    stage.runtime.block_on(async {
        let client = &stage.server.client().await.unwrap();
        for name in [NAMESPACE, "shop", "bank"] {
            apply(
                client,
                &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
                Mode::Real,
            )
            .await
            .unwrap();
        }
        for definition in &definitions {
            apply(client, definition, Mode::Real).await.unwrap();
        }
        for definition in definitions
            .iter()
            .filter(|one| one["kind"] == "CustomResourceDefinition")
        {
            served(client, definition).await;
        }
    });
    Some(stage)
}

impl Stage {
    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        self.server.kubeconfig()
    }

    /// The server for this test alone, as long as what is returned lives.
    pub fn alone(&'static self) -> Alone {
        static ONE: Mutex<()> = Mutex::new(());
        let guard = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Alone {
            stage: self,
            _guard: guard,
        }
    }

    /// Runs `work` against the server.
    pub fn run<T>(&'static self, work: impl AsyncFnOnce(&Client) -> T) -> T {
        self.alone().run(work)
    }
}

/// The server, and nobody else at it.
pub struct Alone {
    stage: &'static Stage,
    _guard: MutexGuard<'static, ()>,
}

impl Alone {
    /// Runs `work` against the server.
    pub fn run<T>(&self, work: impl AsyncFnOnce(&Client) -> T) -> T {
        self.stage.runtime.block_on(async {
            let client = self.stage.server.client().await.unwrap();
            let done = tokio::time::timeout(LIMIT, work(&client)).await;
            done.expect("in time")
        })
    }
}

/// Whether it stays.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Real,
    DryRun,
}

/// Server-side apply of one object; nothing unknown and nothing twice is let through.
pub async fn apply(client: &Client, object: &Value, mode: Mode) -> Result<Value, String> {
    let what = named(object);
    let api_version = object["apiVersion"].as_str().unwrap();
    let kind = object["kind"].as_str().unwrap();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let discovered = kube::discovery::pinned_kind(client, &gvk).await;
    let (resource, capabilities) = discovered.map_err(|cause| format!("{what}: {cause}"))?;
    let api: Api<DynamicObject> = api(client, object, &resource, &capabilities);
    let mut params = PatchParams::apply("helm").force();
    params.dry_run = mode == Mode::DryRun;
    params.field_validation = Some(kube::api::ValidationDirective::Strict);
    let name = object["metadata"]["name"].as_str().unwrap();
    let applied = api.patch(name, &params, &Patch::Apply(object)).await;
    let applied = applied.map_err(|cause| format!("{what}: {cause}"))?;
    Ok(serde_json::to_value(applied).unwrap())
}

fn api(
    client: &Client,
    object: &Value,
    resource: &ApiResource,
    capabilities: &kube::discovery::ApiCapabilities,
) -> Api<DynamicObject> {
    match capabilities.scope {
        kube::discovery::Scope::Cluster => Api::all_with(client.clone(), resource),
        kube::discovery::Scope::Namespaced => {
            let namespace = object["metadata"]["namespace"]
                .as_str()
                .unwrap_or("default");
            Api::namespaced_with(client.clone(), namespace, resource)
        }
    }
}

/// Waits until the kind that `definition` defines can be asked for.
pub async fn served(client: &Client, definition: &Value) {
    let spec = &definition["spec"];
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let versions = spec["versions"].as_array().unwrap();
    let version = versions.iter().rfind(|one| one["served"] == true).unwrap();
    let gvk = GroupVersionKind::gvk(
        &word(&spec["group"]),
        &word(&version["name"]),
        &word(&spec["names"]["kind"]),
    );
    for _ in 0..600 {
        if kube::discovery::pinned_kind(client, &gvk).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not served: {gvk:?}");
}

#[test]
fn everything_rendered_is_taken_as_it_is() {
    let Some(helm) = helm() else { return };
    let Some(stage) = stage() else { return };
    for (name, values) in MATRIX {
        let objects = helm.objects(&format!("applied-{name}"), values);
        let refused: Vec<String> = stage.run(async |client| {
            let mut refused = Vec::new();
            for object in &objects {
                refused.extend(apply(client, object, Mode::DryRun).await.err());
            }
            refused
        });
        assert!(refused.is_empty(), "{name}: {refused:#?}");
    }
    // Nothing unknown goes through.
    let odd = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "odd", "namespace": "shop" }, "dta": {},
    });
    let refused = stage.run(async |client| apply(client, &odd, Mode::DryRun).await);
    assert!(refused.is_err_and(|said| said.contains("dta")));
}

#[test]
fn a_sidecar_joins_a_deployment_by_the_patch_that_is_shipped() {
    let Some(helm) = helm() else { return };
    let Some(stage) = stage() else { return };
    let values = MATRIX
        .iter()
        .find(|(name, _)| *name == "sidecar")
        .unwrap()
        .1;
    let objects = helm.objects("sidecar-patch", values);
    let map = objects
        .iter()
        .find(|one| {
            named(one) == "ConfigMap/portcullis-sidecar" && one["metadata"]["namespace"] == "shop"
        })
        .unwrap();
    let patch = documents(map["data"]["sidecar.yaml"].as_str().unwrap()).remove(0);
    let labels = json!({ "app": "web" });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "shop" },
        "spec": {
            "replicas": 0, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": {
                "serviceAccountName": "web",
                "containers": [{ "name": "web", "image": "web:1", "volumeMounts": [{ "name": "own", "mountPath": "/own" }] }],
                "volumes": [{ "name": "own", "emptyDir": {} }],
            } },
        },
    });
    let patched = stage.run(async |client| {
        apply(client, &deployment, Mode::Real).await.unwrap();
        let api: Api<k8s_openapi::api::apps::v1::Deployment> =
            Api::namespaced(client.clone(), "shop");
        api.patch("web", &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .unwrap()
    });
    let pod = patched.spec.template.spec.unwrap();
    assert_eq!(
        pod.containers.len(),
        1,
        "the workload's own container is as it was"
    );
    let sidecar = &pod.init_containers.unwrap()[0];
    assert_eq!(
        sidecar.restart_policy.as_deref(),
        Some("Always"),
        "it runs as long as the pod"
    );
    let volumes: Vec<String> = pod
        .volumes
        .unwrap()
        .into_iter()
        .map(|volume| volume.name)
        .collect();
    for name in ["own", "portcullis-config", "portcullis-policies"] {
        assert!(volumes.contains(&name.to_owned()), "{name}: {volumes:?}");
    }
}
