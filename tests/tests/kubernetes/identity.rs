//! Identities for pods: the attestor `k8s` before a real API server, and callers in control groups as a kubelet names them.

#[path = "identity/callers.rs"]
mod callers;
#[path = "identity/entries.rs"]
mod entries;
#[path = "identity/pods.rs"]
mod pods;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use portcullis_tests::kube_api::KubeApi;
use portcullis_tests::ports::free_address;
use portcullis_tests::workload::served::Served;
use serde_json::{Value, json};
use spiffe::{WorkloadApiClient, WorkloadApiError};

const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");
const LIMIT: Duration = Duration::from_secs(60);
const NODE: &str = "n1";

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limited = tokio::time::timeout(LIMIT, future).await;
    limited.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

/// Waits until `done` says something.
async fn until<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = done().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

async fn namespace(client: &Client, name: &str, labels: Value) {
    let object = json!({ "metadata": { "name": name, "labels": labels } });
    let api: Api<Namespace> = Api::all(client.clone());
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    until("the default service account", async || {
        accounts.get_opt("default").await.unwrap()
    })
    .await;
}

async fn service_account(client: &Client, namespace: &str, name: &str) {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let object = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// Creates a pod on [`NODE`]; returns its UID. It has no status until [`runs`] gives it one.
async fn pod(client: &Client, namespace: &str, name: &str, account: &str, labels: Value) -> String {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let object = json!({
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "nodeName": NODE, "serviceAccountName": account,
            "containers": [{ "name": "main", "image": "registry.example/web:1" }],
        },
    });
    let object = serde_json::from_value(object).unwrap();
    let created = api.create(&PostParams::default(), &object).await.unwrap();
    created.metadata.uid.unwrap()
}

/// What the kubelet would say of the pod.
async fn runs(client: &Client, namespace: &str, name: &str, phase: &str, container: &str) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let status = json!({ "status": { "phase": phase, "containerStatuses": [{
        "name": "main", "ready": true, "restartCount": 0, "started": true,
        "image": "registry.example/web:1", "imageID": "registry.example/web@sha256:0cfd",
        "containerID": format!("containerd://{container}"),
    }] } });
    let patch = Patch::Merge(status);
    api.patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

async fn label(client: &Client, namespace: &str, name: &str, labels: Value) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
    api.patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Deletes a pod as a node does that is done with it.
async fn delete(client: &Client, namespace: &str, name: &str) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = DeleteParams::default().grace_period(0);
    api.delete(name, &params).await.unwrap();
}

/// 64 hexadecimal digits.
fn container(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

/// The certificate authority beside a node's pods.
struct Authority {
    server: Served,
    management: String,
}

impl Authority {
    /// Starts one in `folder`, which follows the cluster of `kubeconfig`; `more` are further keys of `ca.kubernetes`.
    fn start(folder: &Path, kubeconfig: &Path, more: &Value) -> Self {
        let management = free_address().unwrap().to_string();
        let mut kubernetes = json!({ "kubeconfig": kubeconfig, "node": NODE });
        for (key, value) in more.as_object().unwrap() {
            kubernetes[key] = value.clone();
        }
        let config = json!({ "ca": {
            "kubernetes": kubernetes,
            "management": { "address": management },
        } });
        fs::write(folder.join("portcullis.yaml"), config.to_string()).unwrap();
        let arguments = ["--config", "portcullis.yaml"];
        let server = Served::start(Path::new(PORTCULLIS), folder, &arguments, &[]).unwrap();
        Self { server, management }
    }

    /// What `/readyz` says: whether it is ready, and the page.
    fn readiness(&self) -> (bool, Value) {
        use std::io::{Read as _, Write as _};
        // It listens a moment after the workload socket does.
        let connect = || std::net::TcpStream::connect(&self.management).ok();
        let mut stream = portcullis_tests::process::poll(LIMIT, connect).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let request = "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let page = serde_json::from_str(body.trim()).unwrap();
        (head.starts_with("HTTP/1.1 200"), page)
    }

    async fn ready(&self) {
        until("the authority knows its pods", async || {
            self.readiness().0.then_some(())
        })
        .await;
    }

    /// Registers an identity.
    fn entry(&self, path: &str, selectors: &[&str]) {
        let id = format!("spiffe://example.org{path}");
        let mut arguments = vec!["ca", "entry", "create", "--spiffe-id", &id];
        for selector in selectors {
            arguments.extend(["--selector", selector]);
        }
        self.server.ok(&arguments).unwrap();
    }
}

async fn connect(authority: &Authority) -> WorkloadApiClient {
    let address = format!("unix:{}", authority.server.socket().display());
    WorkloadApiClient::connect_to(&address).await.unwrap()
}

/// The identity of this process, asked for once; or what it was told.
async fn asked(authority: &Authority) -> Result<String, String> {
    let client = connect(authority).await;
    let svid = within("an answer", client.fetch_x509_svid()).await;
    svid.map(|svid| svid.spiffe_id().to_string())
        .map_err(|error| match error {
            WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => {
                format!("denied: {error}")
            }
            other => other.to_string(),
        })
}

/// A kubeconfig of the service account, which has no rights but those that somebody gives it.
async fn kubeconfig_of(api: &KubeApi, namespace: &str, account: &str, folder: &Path) -> PathBuf {
    let client = api.client().await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let request = json!({ "spec": { "audiences": [], "expirationSeconds": 3600 } });
    let request: TokenRequest = serde_json::from_value(request).unwrap();
    let token = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .unwrap();
    let token = token.status.unwrap().token;
    let admin = kube::config::Kubeconfig::read_from(api.kubeconfig()).unwrap();
    let mut own = serde_json::to_value(&admin).unwrap();
    for user in own["users"].as_array_mut().unwrap() {
        user["user"] = json!({ "token": token });
    }
    let path = folder.join(format!("{account}.kubeconfig"));
    fs::write(&path, own.to_string()).unwrap();
    path
}
