//! A server that writes down who did what, and the services as their own service accounts before it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kube::Client;
use portcullis_tests::authority::{Authority, Names};
use portcullis_tests::kube_api::KubeApi;
use portcullis_tests::ports::free_address;
use portcullis_tests::process::Daemon;
use serde_json::{Value, json};

use super::helm::{NAMESPACE, documents, find};

const LIMIT: Duration = Duration::from_secs(90);

/// A right: API group, resource with its subresource, verb, and which object, where only some.
pub type Right = (String, String, String, Option<String>);

/// Flags that have the server write down who did what.
pub fn audit(folder: &Path, log: &Path) -> Vec<String> {
    let policy = folder.join("audit-policy.yaml");
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
    fs::write(&policy, text).unwrap();
    fs::create_dir_all(folder.join("api")).unwrap();
    vec![
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", log.display()),
    ]
}

pub async fn within<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let start = std::time::Instant::now();
    while start.elapsed() < LIMIT {
        if let Some(found) = look().await {
            return Some(found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

/// What services are started with.
pub struct Stage<'a> {
    pub folder: &'a Path,
    pub name: &'a str,
    pub objects: &'a [Value],
}

pub struct Service {
    daemon: Daemon,
    management: String,
}

impl Stage<'_> {
    /// portcullis.yaml of the component, as the chart has it.
    fn config(&self, component: &str) -> Value {
        let map = format!("ConfigMap/{}-{component}", self.name);
        let map = find(self.objects, &map);
        documents(map["data"]["portcullis.yaml"].as_str().unwrap()).remove(0)
    }

    pub async fn authz(&self, client: &Client, server: &KubeApi) -> Service {
        let account = format!("{}-authz", self.name);
        let kubeconfig = self.kubeconfig(client, server, &account).await;
        self.serve("authz", kubeconfig)
    }

    /// Beside a workload, with the rights of the workload's own account.
    pub async fn sidecar(&self, client: &Client, server: &KubeApi) -> Service {
        let kubeconfig = self.kubeconfig(client, server, "beside").await;
        self.serve("sidecar", kubeconfig)
    }

    fn serve(&self, component: &str, kubeconfig: PathBuf) -> Service {
        let mut config = self.config(component);
        let management = free_address().unwrap().to_string();
        config["listeners"][0]["address"] = json!(free_address().unwrap().to_string());
        config["management"]["address"] = json!(management);
        config["kubernetes"]["kubeconfig"] = json!(kubeconfig);
        self.start(component, &["authz", "serve"], &config, management)
    }

    pub async fn admission(&self, client: &Client, server: &KubeApi) -> Service {
        let mut config = self.config("admission");
        let account = format!("{}-admission", self.name);
        let kubeconfig = self.kubeconfig(client, server, &account).await;
        let management = free_address().unwrap().to_string();
        let admission = &mut config["admission"];
        admission["listen"] = json!(free_address().unwrap().to_string());
        admission["management"] = json!(management);
        // So that its authority is replaced while we look.
        admission["propagation"] = json!("1s");
        if let Some(secret) = admission["certificate"].get_mut("secret") {
            secret["authority_ttl"] = json!("20s");
            secret["certificate_ttl"] = json!("5s");
            secret["lead"] = json!("2s");
        }
        if let Some(files) = admission["certificate"].get_mut("files") {
            let authority = Authority::new().unwrap();
            let names = Names {
                dns: vec![format!("{account}.{NAMESPACE}.svc")],
                ..Names::default()
            };
            let leaf = authority.leaf(&names).unwrap();
            let write = |what: &str, text: &str| {
                let name = format!("{account}.{what}");
                fs::write(self.folder.join(&name), text).unwrap();
                json!(name)
            };
            files["certificate"] = write("crt", &leaf.certificate);
            files["key"] = write("key", &leaf.key);
            if files.get("authorities").is_some() {
                files["authorities"] = write("ca", authority.certificate());
            }
        }
        config["kubernetes"] = json!({ "kubeconfig": kubeconfig });
        self.start("admission", &["admission", "serve"], &config, management)
    }

    pub async fn ca(&self, client: &Client, server: &KubeApi) -> Service {
        let mut config = self.config("ca");
        let account = format!("{}-ca", self.name);
        let kubeconfig = self.kubeconfig(client, server, &account).await;
        let management = free_address().unwrap().to_string();
        // A unix socket's path is short.
        config["ca"]["data"] = json!(format!("{}-ca", self.name));
        config["ca"]["socket"] = json!(format!("{}.sock", self.name));
        config["ca"]["management"]["address"] = json!(management);
        config["ca"]["kubernetes"]["kubeconfig"] = json!(kubeconfig);
        config["ca"]["kubernetes"]["node"] = json!("node-1");
        self.start("ca", &["ca", "serve"], &config, management)
    }

    fn start(&self, name: &str, words: &[&str], config: &Value, management: String) -> Service {
        let name = format!("{}-{name}", self.name);
        let file = self.folder.join(format!("{name}.yaml"));
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis-e2e"));
        command
            .args(words)
            .args(["--config", &format!("{name}.yaml")])
            .current_dir(self.folder);
        let log = self.folder.join(format!("{name}.log"));
        let daemon = Daemon::start(&mut command, &log).unwrap();
        Service { daemon, management }
    }

    /// A kubeconfig for the service account.
    async fn kubeconfig(&self, client: &Client, server: &KubeApi, account: &str) -> PathBuf {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token");
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 3600 } });
        let request = http::Request::post(path).header("content-type", "application/json");
        let answer: Value = client
            .request(request.body(body.to_string().into_bytes()).unwrap())
            .await
            .unwrap();
        let token = answer["status"]["token"].as_str().unwrap();
        let authority = self.folder.join("api/ca.crt");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u", "namespace": NAMESPACE } }],
            "clusters": [{ "name": "c", "cluster": { "server": format!("https://{}", server.address()), "certificate-authority": authority } }],
            "users": [{ "name": "u", "user": { "token": token } }],
        });
        let file = self.folder.join(format!("{account}.kubeconfig"));
        fs::write(&file, config.to_string()).unwrap();
        file
    }
}

impl Service {
    /// Waits until it says that it is ready.
    pub fn ready(&mut self) {
        let address = self.management.clone();
        self.daemon
            .wait_until(LIMIT, || is_ready(&address))
            .unwrap();
    }
}

fn is_ready(address: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return false;
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    asked.is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

/// What each service account did, as the server wrote it down. What needs no right of one's own is left out.
pub fn used(log: &Path) -> BTreeMap<String, BTreeSet<Right>> {
    let mut used: BTreeMap<String, BTreeSet<Right>> = BTreeMap::new();
    let prefix = format!("system:serviceaccount:{NAMESPACE}:");
    for line in fs::read_to_string(log).unwrap().lines() {
        // The last line of a server that was killed may be half.
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let Some(account) = event["user"]["username"]
            .as_str()
            .and_then(|name| name.strip_prefix(&prefix))
        else {
            continue;
        };
        let object = &event["objectRef"];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let resource = match word(&object["subresource"]) {
            sub if sub.is_empty() => word(&object["resource"]),
            sub => format!("{}/{sub}", word(&object["resource"])),
        };
        // Discovery, `/version`, `/readyz`.
        if resource.is_empty() {
            continue;
        }
        let name = object["name"].as_str().map(str::to_owned);
        let right = (
            word(&object["apiGroup"]),
            resource,
            word(&event["verb"]),
            name,
        );
        used.entry(account.to_owned()).or_default().insert(right);
    }
    used
}
