//! Roles hold exactly the rights that are used: each service does all its work against a real API server as its own service
//! account, and the server's audit log is held against the roles that the chart made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kube::Client;
use portcullis_tests::component::{self, kube_api, require, run_folder};
use portcullis_tests::kube_api::KubeApi;
use portcullis_tests::ports::free_address;
use portcullis_tests::process::Daemon;
use serde_json::{Value, json};

use super::applied::{Mode, apply, served};
use super::helm::{NAMESPACE, documents, find, helm};
use super::walkthroughs::istio;

const LIMIT: Duration = Duration::from_secs(90);

/// A right: API group, resource with its subresource, verb, and which object, where only some.
type Right = (String, String, String, Option<String>);

#[test]
fn roles_hold_the_verbs_that_are_used_and_no_others() {
    let (Some(helm), Some(server), Some(definitions)) = (
        helm(),
        require(kube_api()),
        require(component::definitions()),
    ) else {
        return;
    };
    let Some(istio) = istio() else { return };
    let folder = run_folder("chart-roles");
    let log = folder.join("audit.log");
    let flags = audit(&folder, &log);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut server = KubeApi::start_with(&server, &folder.join("api"), &flags)
        .unwrap_or_else(|cause| panic!("{cause}"));
    let objects = helm.objects("rights", "ca: {enabled: true}");
    let others = documents(&fs::read_to_string(definitions).unwrap());
    let gateways = others
        .into_iter()
        .filter(|one| one["spec"]["group"] == "gateway.networking.k8s.io");
    let definitions: Vec<Value> = istio.into_iter().chain(gateways).collect();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stage = Stage {
        folder: &folder,
        objects: &objects,
    };
    runtime.block_on(async {
        let client = server.client().await.unwrap();
        prepare(&client, &definitions, &objects).await;
        let mut services = vec![
            stage.authz(&client, &server).await,
            stage.admission(&client, &server).await,
            stage.ca(&client, &server).await,
        ];
        for service in &mut services {
            service.ready();
        }
        write_and_see(&client, "first").await;
        // After a gap everything is listed anew.
        server.restart().unwrap_or_else(|cause| panic!("{cause}"));
        let client = server.client().await.unwrap();
        write_and_see(&client, "second").await;
        for service in &mut services {
            service.ready();
        }
        // The webhook's authority has a successor by now, or soon.
        let replaced = within(async || {
            let all = used(&log);
            let by = all.get("portcullis-admission")?;
            by.iter()
                .any(|right| right.1 == "secrets" && right.2 == "update")
                .then_some(())
        });
        assert!(
            replaced.await.is_some(),
            "the webhook's authority is replaced"
        );
    });
    drop(server);

    let used = used(&log);
    for (component, account) in [
        ("authz", "portcullis-authz"),
        ("admission", "portcullis-admission"),
        ("ca", "portcullis-ca"),
    ] {
        let used = used
            .get(account)
            .unwrap_or_else(|| panic!("`{account}` did nothing"));
        let granted = granted(&objects, account);
        assert!(granted.len() > 5, "{component}: {granted:?}");
        let covered = |(group, resource, verb, name): &Right, right: &Right| {
            (group, resource, verb) == (&right.0, &right.1, &right.2)
                && right
                    .3
                    .as_ref()
                    .is_none_or(|only| name.as_ref() == Some(only))
        };
        let missing: Vec<&Right> = used
            .iter()
            .filter(|one| !granted.iter().any(|right| covered(one, right)))
            .collect();
        assert!(
            missing.is_empty(),
            "{component} uses what it has no right to: {missing:#?}"
        );
        let superfluous: Vec<&Right> = granted
            .iter()
            .filter(|right| !used.iter().any(|one| covered(one, right)))
            .collect();
        assert!(
            superfluous.is_empty(),
            "{component} has rights that it never uses: {superfluous:#?}"
        );
    }
}

/// Flags that have the server write down who did what.
fn audit(folder: &Path, log: &Path) -> Vec<String> {
    let policy = folder.join("audit-policy.yaml");
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
    fs::write(&policy, text).unwrap();
    fs::create_dir_all(folder.join("api")).unwrap();
    vec![
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", log.display()),
    ]
}

/// Kinds, namespaces, accounts and roles.
async fn prepare(client: &Client, definitions: &[Value], objects: &[Value]) {
    let own = objects
        .iter()
        .filter(|one| one["kind"] == "CustomResourceDefinition");
    let all: Vec<&Value> = definitions.iter().chain(own).collect();
    for definition in &all {
        apply(client, definition, Mode::Real).await.unwrap();
    }
    for definition in &all {
        served(client, definition).await;
    }
    for name in [NAMESPACE, "istio-system"] {
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        apply(client, &namespace, Mode::Real).await.unwrap();
    }
    let mesh = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "istio", "namespace": "istio-system" },
        "data": { "mesh": "trustDomain: cluster.local" },
    });
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-1" } });
    for object in [&mesh, &node] {
        apply(client, object, Mode::Real).await.unwrap();
    }
    let kinds = [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        // Our own namespace is not asked about, where the policies of this test are.
        "ValidatingWebhookConfiguration",
    ];
    for object in objects
        .iter()
        .filter(|one| kinds.contains(&one["kind"].as_str().unwrap()))
    {
        apply(client, object, Mode::Real).await.unwrap();
    }
}

/// Policies of every kind, and an identity: each gets a status.
async fn write_and_see(client: &Client, name: &str) {
    let object = |api_version: &str, kind: &str, spec: Value| {
        json!({
            "apiVersion": api_version, "kind": kind, "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec,
        })
    };
    let security = "security.istio.io/v1";
    let own = "portcullis.dev/v1alpha1";
    let selector = json!({ "matchLabels": { "app": name } });
    let mut identity = object(
        "spire.spiffe.io/v1alpha1",
        "ClusterSPIFFEID",
        json!({
            "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}",
            "podSelector": selector,
        }),
    );
    identity["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("namespace");
    let objects = [
        object(
            security,
            "AuthorizationPolicy",
            json!({ "selector": selector, "action": "DENY", "rules": [{}] }),
        ),
        object(
            security,
            "PeerAuthentication",
            json!({ "selector": selector, "mtls": { "mode": "STRICT" } }),
        ),
        object(
            security,
            "RequestAuthentication",
            json!({ "selector": selector, "jwtRules": [] }),
        ),
        object(
            own,
            "CedarPolicy",
            json!({ "selector": selector, "policies": "forbid(principal, action, resource);" }),
        ),
        object(
            own,
            "PolicyTest",
            json!({ "cases": [{
                "name": "nobody reaches nowhere",
                "request": { "attributes": {
                    "destination": { "address": { "socketAddress": { "address": "10.9.9.9", "portValue": 80 } } },
                    "request": { "http": { "method": "GET", "path": "/", "host": "x" } },
                } },
                "decision": "deny", "reason": "unknown_destination",
            }] }),
        ),
        identity,
    ];
    for object in &objects {
        // The server may have just started.
        let applied = within(async || apply(client, object, Mode::Real).await.ok()).await;
        assert!(
            applied.is_some(),
            "{:?}",
            apply(client, object, Mode::Real).await
        );
    }
    for object in &objects {
        let seen = within(async || {
            let found = apply(client, object, Mode::DryRun).await.ok()?;
            found
                .get("status")
                .filter(|status| status.as_object().is_some_and(|fields| !fields.is_empty()))
                .cloned()
        })
        .await;
        assert!(seen.is_some(), "{} `{name}` has a status", object["kind"]);
    }
}

async fn within<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
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
struct Stage<'a> {
    folder: &'a Path,
    objects: &'a [Value],
}

struct Service {
    daemon: Daemon,
    management: String,
}

impl Stage<'_> {
    /// portcullis.yaml of the component, as the chart has it.
    fn config(&self, component: &str) -> Value {
        let map = find(self.objects, &format!("ConfigMap/portcullis-{component}"));
        documents(map["data"]["portcullis.yaml"].as_str().unwrap()).remove(0)
    }

    async fn authz(&self, client: &Client, server: &KubeApi) -> Service {
        let mut config = self.config("authz");
        let kubeconfig = self.kubeconfig(client, server, "portcullis-authz").await;
        let management = free_address().unwrap().to_string();
        config["listeners"][0]["address"] = json!(free_address().unwrap().to_string());
        config["management"]["address"] = json!(management);
        config["kubernetes"]["kubeconfig"] = json!(kubeconfig);
        self.start("authz", &["authz", "serve"], &config, management)
    }

    async fn admission(&self, client: &Client, server: &KubeApi) -> Service {
        let mut config = self.config("admission");
        let kubeconfig = self
            .kubeconfig(client, server, "portcullis-admission")
            .await;
        let management = free_address().unwrap().to_string();
        config["admission"]["listen"] = json!(free_address().unwrap().to_string());
        config["admission"]["management"] = json!(management);
        // So that its authority is replaced while we look.
        config["admission"]["propagation"] = json!("1s");
        config["admission"]["certificate"]["secret"]["authority_ttl"] = json!("20s");
        config["admission"]["certificate"]["secret"]["certificate_ttl"] = json!("5s");
        config["admission"]["certificate"]["secret"]["lead"] = json!("2s");
        config["kubernetes"] = json!({ "kubeconfig": kubeconfig });
        self.start("admission", &["admission", "serve"], &config, management)
    }

    async fn ca(&self, client: &Client, server: &KubeApi) -> Service {
        let mut config = self.config("ca");
        let kubeconfig = self.kubeconfig(client, server, "portcullis-ca").await;
        let management = free_address().unwrap().to_string();
        // A unix socket's path is short.
        config["ca"]["data"] = json!("ca");
        config["ca"]["socket"] = json!("workload.sock");
        config["ca"]["management"]["address"] = json!(management);
        config["ca"]["kubernetes"]["kubeconfig"] = json!(kubeconfig);
        config["ca"]["kubernetes"]["node"] = json!("node-1");
        self.start("ca", &["ca", "serve"], &config, management)
    }

    fn start(&self, name: &str, words: &[&str], config: &Value, management: String) -> Service {
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
    fn ready(&mut self) {
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
fn used(log: &Path) -> BTreeMap<String, BTreeSet<Right>> {
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

/// What the roles that are bound to the service account hold.
fn granted(objects: &[Value], account: &str) -> BTreeSet<Right> {
    let mut granted = BTreeSet::new();
    let bindings = objects.iter().filter(|one| {
        one["subjects"]
            .as_array()
            .is_some_and(|all| all.iter().any(|subject| subject["name"] == account))
    });
    for binding in bindings {
        let role = &binding["roleRef"];
        let role = format!(
            "{}/{}",
            role["kind"].as_str().unwrap(),
            role["name"].as_str().unwrap()
        );
        let texts = |value: &Value| -> Vec<String> {
            let all = value.as_array().into_iter().flatten();
            all.map(|one| one.as_str().unwrap().to_owned()).collect()
        };
        for rule in find(objects, &role)["rules"].as_array().unwrap() {
            let mut names: Vec<Option<String>> = texts(&rule["resourceNames"])
                .into_iter()
                .map(Some)
                .collect();
            if names.is_empty() {
                names.push(None);
            }
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        assert!(
                            ![&group, &resource, &verb]
                                .iter()
                                .any(|word| word.contains('*')),
                            "{role}"
                        );
                        for name in &names {
                            granted.insert((
                                group.clone(),
                                resource.clone(),
                                verb.clone(),
                                name.clone(),
                            ));
                        }
                    }
                }
            }
        }
    }
    granted
}
