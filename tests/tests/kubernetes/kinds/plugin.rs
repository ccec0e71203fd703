//! `kubectl portcullis`: the built binary under that name, against the API server.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, PostParams};
use portcullis_tests::component::run_folder;
use portcullis_tests::process;
use serde_json::{Value, json};

use super::PORTCULLIS;
use crate::cluster;

pub struct Plugin {
    folder: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Plugin {
    /// The binary under its other name, for one namespace.
    pub fn new(name: &str, cluster: &cluster::Cluster, namespace: &str) -> Self {
        let folder = run_folder(name);
        symlink(PORTCULLIS, folder.join("kubectl-portcullis")).unwrap();
        Self {
            folder,
            kubeconfig: cluster.server.kubeconfig(),
            namespace: namespace.to_owned(),
        }
    }

    /// Exit code, standard output, standard error.
    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(self.folder.join("kubectl-portcullis"));
        command
            .args(args)
            .args(["--namespace", &self.namespace, "--kubeconfig"])
            .arg(&self.kubeconfig)
            .current_dir(&self.folder)
            .env_remove("KUBECONFIG")
            .env_remove("PORTCULLIS_CONFIG");
        let output = process::run(&mut command, cluster::LIMIT * 2).unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    fn write(&self, file: &str, documents: &[Value]) -> &str {
        let items: Vec<String> = documents.iter().map(Value::to_string).collect();
        std::fs::write(self.folder.join(file), items.join("\n---\n")).unwrap();
        "done"
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explains_and_checks_against_the_live_cluster() {
    let Some(cluster) = cluster::shared() else {
        return;
    };
    let client = cluster.client().await;
    let namespace = cluster::namespace(&client, "plugin").await;
    let plugin = Plugin::new("kubectl-plugin", cluster, &namespace);
    cluster::pod(&client, &namespace, "web", "10.77.0.1").await;
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))
    .unwrap();
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    services
        .create(&PostParams::default(), &service)
        .await
        .unwrap();
    let template = json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": "c", "ports": [{ "containerPort": 8080 }] }] },
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": namespace },
        "spec": { "selector": { "matchLabels": { "app": "web" } }, "template": template },
    });
    cluster::apply(&client, &deployment).await.unwrap();
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "name": "orders", "namespace": namespace },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "rules": [{
                "from": [{ "source": { "principals": [format!("cluster.local/ns/{namespace}/sa/default")] } }],
                "to": [{ "operation": { "methods": ["GET"], "paths": ["/orders"], "ports": ["8080"] } }],
            }],
        },
    });
    cluster::apply(&client, &policy).await.unwrap();
    let test = json!({
        "apiVersion": "portcullis.dev/v1alpha1", "kind": "PolicyTest",
        "metadata": { "name": "orders", "namespace": namespace },
        "spec": { "cases": [{
            "name": "the cart reads orders",
            "request": { "attributes": {
                "source": { "principal": format!("spiffe://cluster.local/ns/{namespace}/sa/default"),
                    "address": { "socketAddress": { "address": "10.1.1.1", "portValue": 40000 } } },
                "destination": { "address": { "socketAddress": { "address": "10.77.0.1", "portValue": 8080 } } },
                "request": { "http": { "method": "GET", "path": "/orders", "host": "web" } },
                "contextExtensions": { "portcullis.workload": format!("pod/{namespace}/web") },
            } },
            "decision": "allow", "reason": "allowed_by",
        }] },
    });
    cluster::apply(&client, &test).await.unwrap();
    tokio::task::spawn_blocking(move || {
        explains(&plugin);
        checks(&plugin, &policy, &test);
    })
    .await
    .unwrap();
}

fn explains(plugin: &Plugin) {
    let rule = format!("ALLOW: allowed_by {}/orders#rule[0]", plugin.namespace);
    let account = format!("ns/{}/sa/default", plugin.namespace);
    let account = account.as_str();
    let id = format!("spiffe://cluster.local/{account}");
    let from = ["--from", account];
    for workload in ["deploy/web", "svc/web", "pod/web", "web"] {
        let args = [&["explain", workload][..], &from, &["GET", "/orders"]].concat();
        let (code, out, err) = plugin.run(&args);
        assert_eq!(code, 0, "{workload}: {out}{err}");
        assert!(out.contains(&rule), "{workload}: {out}");
    }
    // Neighbours that differ in one thing, and are denied.
    for args in [
        &[
            "explain",
            "deploy/web",
            "--from",
            "ns/shop/sa/other",
            "GET",
            "/orders",
        ][..],
        &["explain", "deploy/web", "--from", account, "PUT", "/orders"],
        &["explain", "deploy/web", "--from", account, "/order"],
        &[
            "explain", "web", "--from", account, "--port", "9090", "/orders",
        ],
        &["explain", "web", "--from-ip", "10.0.0.9", "/orders"],
        &["explain", "web", "--from", &id, "--tcp"],
    ] {
        let (code, out, err) = plugin.run(args);
        assert_eq!(code, 2, "{args:?}: {out}{err}");
        assert!(out.contains("DENY: no_allow_matched"), "{args:?}: {out}");
    }
    let json = [
        "explain", "web", "--from", account, "/orders", "--output", "json",
    ];
    let (code, out, _) = plugin.run(&json);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["decision"]["decision"]), (0, &json!("allow")));
    assert_eq!(told["destination"], format!("pod/{}/web", plugin.namespace));
    // What cannot be run is 1, and says what to do.
    for (args, words) in [
        (
            &["explain", "deploy/wob"][..],
            "no Deployment `wob` in namespace",
        ),
        (&["explain", "cm/web"], "is no destination: name a pod"),
        (
            &["explain", "web", "--from", "shop/cart"],
            "is no identity: write ns/NAMESPACE/sa/ACCOUNT",
        ),
        (&["explain", "svc/web", "--port", "81"], "has no port 81"),
        (&["explain", "web", "GET", "orders"], "is no path"),
        (&["explain"], "WORKLOAD"),
        (&["explain", "web", "--context", "none"], "kubeconfig"),
    ] {
        let (code, out, err) = plugin.run(args);
        assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
        assert!(err.contains(words), "{args:?}: {err}");
    }
}

fn checks(plugin: &Plugin, policy: &Value, test: &Value) {
    let check = |documents: &[Value], more: &[&str]| {
        plugin.write("change.yaml", documents);
        plugin.run(&[&["check", "-f", "change.yaml"][..], more].concat())
    };
    // As it is there already.
    let (code, out, err) = check(std::slice::from_ref(policy), &[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.ends_with("checked 1 object against the cluster: nothing wrong\n"),
        "{out}"
    );
    // An error that the schema of the kind does not see.
    let mut wrong = policy.clone();
    wrong["spec"]["rules"][0]["when"] = json!([{ "key": "request.nothing", "values": ["a"] }]);
    let (code, out, _) = check(&[wrong], &[]);
    assert_eq!(code, 2, "{out}");
    assert!(
        out.contains("PC0115") && out.contains("change.yaml:1:"),
        "{out}"
    );
    // A warning that only the cluster shows, and its place in the file.
    let mut nowhere = policy.clone();
    nowhere["spec"]["selector"]["matchLabels"]["app"] = json!("wob");
    nowhere["metadata"]["name"] = json!("nowhere");
    let (code, out, _) = check(std::slice::from_ref(&nowhere), &[]);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains("PC0504") && out.contains("change.yaml:1:"),
        "{out}"
    );
    let (code, _, _) = check(&[nowhere], &["--deny-warnings"]);
    assert_eq!(code, 2);
    // A change that breaks a case in force.
    let mut closed = policy.clone();
    closed["spec"]["rules"][0]["to"][0]["operation"]["methods"] = json!(["PUT"]);
    let (code, out, _) = check(std::slice::from_ref(&closed), &[]);
    assert_eq!(code, 2, "{out}");
    assert!(
        out.contains("PC0706") && out.contains("`the cart reads orders` does not hold"),
        "{out}"
    );
    // Together with the case that goes with it, it is fine; the namespace is the one of the command line.
    let mut other = test.clone();
    other["spec"]["cases"][0]["decision"] = json!("deny");
    other["spec"]["cases"][0]["reason"] = json!("no_allow_matched");
    for document in [&mut closed, &mut other] {
        document["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("namespace");
    }
    let (code, out, err) = check(&[other.clone(), closed.clone()], &[]);
    assert_eq!(code, 0, "{out}{err}");
    // In this order the webhook would refuse the first of them.
    let (code, out, _) = check(&[closed, other], &[]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("apply the PolicyTest first"), "{out}");
}
