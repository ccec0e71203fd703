//! `kubectl portcullis` with kubeconfigs and rights as people have them: it works, or says what is wrong, in time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use portcullis_source::KINDS;
use portcullis_tests::component::run_folder;
use portcullis_tests::process;
use serde_json::{Value, json};

use super::PORTCULLIS;
use crate::cluster;

/// Longer than it ever takes to say that a cluster cannot be had.
const SOON: Duration = Duration::from_secs(30);

struct Plugin {
    folder: PathBuf,
}

impl Plugin {
    fn new() -> Self {
        let folder = run_folder("kubectl-access");
        std::os::unix::fs::symlink(PORTCULLIS, folder.join("kubectl-portcullis")).unwrap();
        Self { folder }
    }

    /// Exit code, standard output, standard error.
    fn run(&self, kubeconfig: &str, args: &[&str], input: &str) -> (i32, String, String) {
        let mut command = Command::new(self.folder.join("kubectl-portcullis"));
        command
            .args(args)
            .current_dir(&self.folder)
            .env("KUBECONFIG", kubeconfig)
            .env_remove("PORTCULLIS_CONFIG");
        let output =
            process::run_with_input(&mut command, input.as_bytes(), cluster::LIMIT).unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    /// It cannot be run, and says these words.
    fn fails(&self, kubeconfig: &str, args: &[&str], told: &[&str]) {
        let started = Instant::now();
        let (code, out, err) = self.run(kubeconfig, args, "");
        assert_eq!(
            (code, out.as_str()),
            (1, ""),
            "{kubeconfig} {args:?}: {err}"
        );
        for told in told {
            assert!(err.contains(told), "{kubeconfig} {args:?}, {told}: {err}");
        }
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    }

    fn write(&self, file: &str, value: &Value) -> String {
        std::fs::write(self.folder.join(file), value.to_string()).unwrap();
        file.to_owned()
    }
}

/// The parts of a kubeconfig: cluster, user, context.
struct Parts {
    cluster: Value,
    admin: Value,
    /// The server's own folder, with the administrator's certificate.
    server: PathBuf,
    namespace: String,
}

impl Parts {
    fn of(kubeconfig: &Path, namespace: &str) -> Self {
        let text = std::fs::read_to_string(kubeconfig).unwrap();
        let all = cluster::yaml_text("kubeconfig", &text).remove(0);
        Self {
            cluster: all["clusters"][0]["cluster"].clone(),
            admin: all["users"][0]["user"].clone(),
            server: kubeconfig.parent().unwrap().to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    fn with(&self, cluster: &Value, user: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{ "name": "c", "cluster": cluster }],
            "users": [{ "name": "u", "user": user }],
            "contexts": [{ "name": "here", "context": { "cluster": "c", "user": "u", "namespace": self.namespace } }],
        })
    }
}

/// A token of a service account whose role lets it read what is followed, without `without`.
async fn token(client: &Client, namespace: &str, name: &str, without: &str) -> String {
    let rules = KINDS.iter().filter(|kind| kind.plural != without);
    let rules = rules.map(
        |kind| json!({ "apiGroups": [kind.group], "resources": [kind.plural], "verbs": ["list", "watch"] }),
    );
    let rbac = "rbac.authorization.k8s.io";
    let role = format!("{namespace}-{name}");
    for object in [
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name, "namespace": namespace } }),
        json!({ "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": { "name": role },
            "rules": rules.collect::<Vec<_>>() }),
        json!({ "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": role },
            "roleRef": { "apiGroup": rbac, "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": namespace }] }),
    ] {
        cluster::apply(client, &object).await.unwrap();
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec::default()),
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let made = accounts.create_token_request(name, &params, &request);
    made.await.unwrap().status.unwrap().token.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_kubeconfigs_and_credentials_work_or_say_what_is_wrong() {
    let Some(cluster) = cluster::shared() else {
        return;
    };
    let client = cluster.client().await;
    let namespace = cluster::namespace(&client, "access").await;
    cluster::pod(&client, &namespace, "web", "10.78.0.1").await;
    for (kind, more) in [
        ("StatefulSet", json!({ "serviceName": "web" })),
        ("DaemonSet", json!({})),
    ] {
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "web", "namespace": namespace },
            "spec": {
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "c", "image": "c" }] },
                },
            },
        });
        for (key, value) in more.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        cluster::apply(&client, &object).await.unwrap();
    }
    let full = token(&client, &namespace, "full", "").await;
    let blind = token(&client, &namespace, "blind", "peerauthentications").await;
    let parts = Parts::of(&cluster.server.kubeconfig(), &namespace);
    tokio::task::spawn_blocking(move || {
        let plugin = Plugin::new();
        rights(&plugin, &parts, &full, &blind);
        unreachable(&plugin, &parts);
        kubeconfigs(&plugin, &parts, &full);
        credential_plugins(&plugin, &parts, &full);
        inputs(&plugin, &parts);
    })
    .await
    .unwrap();
}

const EXPLAIN: [&str; 4] = ["explain", "pod/web", "GET", "/orders"];

fn rights(plugin: &Plugin, parts: &Parts, full: &str, blind: &str) {
    let of = |token: &str| parts.with(&parts.cluster, &json!({ "token": token }));
    let full = plugin.write("full.kubeconfig", &of(full));
    let (code, out, err) = plugin.run(&full, &EXPLAIN, "");
    assert_eq!(code, 0, "{out}{err}");
    let blind = plugin.write("blind.kubeconfig", &of(blind));
    for args in [&EXPLAIN[..], &["check", "-f", "full.kubeconfig"]] {
        plugin.fails(
            &blind,
            args,
            &[
                "cannot list peerauthentications.security.istio.io: ",
                "User \"system:serviceaccount:",
                "- {apiGroups: [\"security.istio.io\"], resources: [peerauthentications], verbs: [list, watch]}",
            ],
        );
    }
    // What is asked for by name needs a right of its own.
    plugin.fails(
        &full,
        &["explain", "sts/web"],
        &[
            "cannot read StatefulSet `web`",
            "- {apiGroups: [\"apps\"], resources: [statefulsets], verbs: [get]}",
        ],
    );
}

/// Nothing there, nobody who answers, somebody else, somebody who does not know us.
fn unreachable(plugin: &Plugin, parts: &Parts) {
    let free = portcullis_tests::ports::free_address().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut elsewhere = parts.cluster.clone();
    elsewhere["server"] = json!(format!("https://{free}"));
    let mut silence = parts.cluster.clone();
    silence["server"] = json!(format!("https://{}", silent.local_addr().unwrap()));
    let mut stranger = parts.cluster.clone();
    let stranger_fields = stranger.as_object_mut().unwrap();
    stranger_fields.remove("certificate-authority");
    stranger_fields.remove("certificate-authority-data");
    let mut broken = parts.cluster.clone();
    broken["certificate-authority"] = json!("/nowhere/ca.crt");
    broken
        .as_object_mut()
        .unwrap()
        .remove("certificate-authority-data");
    for (name, cluster, user, told) in [
        (
            "elsewhere",
            &elsewhere,
            &parts.admin,
            &[
                "cannot reach the API server at https://127.0.0.1:",
                "nothing listens there",
            ][..],
        ),
        (
            "silence",
            &silence,
            &parts.admin,
            &["https://127.0.0.1:", "answer"],
        ),
        (
            "stranger",
            &stranger,
            &parts.admin,
            &[
                "cannot reach the API server",
                "correct `certificate-authority-data`",
            ],
        ),
        ("broken", &broken, &parts.admin, &["/nowhere/ca.crt"]),
        (
            "expired",
            &parts.cluster,
            &json!({ "token": "expired" }),
            &["does not know who this is (401 ", "log in again"],
        ),
        (
            "unreadable",
            &parts.cluster,
            &json!({ "client-certificate-data": "%", "client-key-data": "%" }),
            &["client certificate"],
        ),
    ] {
        let file = plugin.write(&format!("{name}.kubeconfig"), &parts.with(cluster, user));
        let args = [&EXPLAIN[..], &["--request-timeout", "3s"]].concat();
        plugin.fails(&file, &args, told);
    }
    drop(silent);
}

fn kubeconfigs(plugin: &Plugin, parts: &Parts, full: &str) {
    // Where it is, in one file; as whom, in another; the first that says something counts.
    let whole = parts.with(&parts.cluster, &json!({ "token": full }));
    let mut first = whole.clone();
    first["users"] = json!([]);
    let mut second = whole.clone();
    second["clusters"] = json!([]);
    second["contexts"] = json!([{ "name": "there", "context": { "cluster": "c", "user": "u", "namespace": "nowhere" } }]);
    second["current-context"] = json!("there");
    let first = plugin.write("first.kubeconfig", &first);
    let second = plugin.write("second.kubeconfig", &second);
    let both = format!("{first}:{second}");
    let (code, out, err) = plugin.run(&both, &EXPLAIN, "");
    assert_eq!(code, 0, "{out}{err}");
    let of = |args: &[&'static str]| [&EXPLAIN[..], args].concat();
    plugin.fails(
        &both,
        &of(&["--context", "there"]),
        &["the cluster has no namespace `nowhere`"],
    );
    let named = of(&["--context", "there", "--namespace"]);
    let named = [&named[..], &[parts.namespace.as_str()]].concat();
    let (code, out, err) = plugin.run(&both, &named, "");
    assert_eq!(code, 0, "{out}{err}");
    plugin.fails(
        &both,
        &of(&["--context", "everywhere"]),
        &["the kubeconfig has no context `everywhere`; there are here, there"],
    );
    plugin.fails(&both, &of(&["-n", "nowhere"]), &["no namespace `nowhere`"]);
    plugin.fails(
        &both,
        &["check", "-f", "first.kubeconfig", "-n", "nowhere"],
        &["no namespace `nowhere`"],
    );
    plugin.fails("absent.kubeconfig", &EXPLAIN, &["absent.kubeconfig"]);
}

fn credential_plugins(plugin: &Plugin, parts: &Parts, full: &str) {
    let exec = |script: &str| {
        json!({ "exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
            "interactiveMode": "Never", "installHint": "ask the platform team",
        } })
    };
    let says = |status: &Value| {
        let said = json!({ "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status });
        format!("cat <<'SAID'\n{said}\nSAID")
    };
    let works = |name: &str, user: &Value| {
        let file = plugin.write(
            &format!("{name}.kubeconfig"),
            &parts.with(&parts.cluster, user),
        );
        let (code, out, err) = plugin.run(&file, &EXPLAIN, "");
        assert_eq!(code, 0, "{name}: {out}{err}");
    };
    works("exec-token", &exec(&says(&json!({ "token": full }))));
    // The administrator's certificate, as a plugin has it.
    let pem = |file: &str| std::fs::read_to_string(parts.server.join(file)).unwrap();
    let status =
        json!({ "clientCertificateData": pem("admin.crt"), "clientKeyData": pem("admin.key") });
    works("exec-certificate", &exec(&says(&status)));
    let mut absent = exec("");
    absent["exec"]["command"] = json!("portcullis-no-such-plugin");
    for (name, user, told) in [
        (
            "exec-fails",
            exec("exit 7"),
            &["plugin `sh`", "exit status: 7"][..],
        ),
        (
            "exec-hangs",
            exec("exec sleep 300"),
            &["plugin `sh`", "does not end"],
        ),
        (
            "exec-babbles",
            exec("echo hello"),
            &["says nothing that can be used"],
        ),
        (
            "exec-expired",
            exec(&says(&json!({ "token": "expired" }))),
            &["(401 ", "log in again"],
        ),
        (
            "exec-absent",
            absent,
            &[
                "cannot run the credential plugin `portcullis-no-such-plugin`",
                "ask the platform team",
            ],
        ),
    ] {
        let file = plugin.write(
            &format!("{name}.kubeconfig"),
            &parts.with(&parts.cluster, &user),
        );
        let args = [&EXPLAIN[..], &["--request-timeout", "3s"]].concat();
        plugin.fails(&file, &args, told);
    }
}

/// Every way of naming a destination, and of giving what is checked.
fn inputs(plugin: &Plugin, parts: &Parts) {
    let admin = plugin.write(
        "admin.kubeconfig",
        &parts.with(&parts.cluster, &parts.admin),
    );
    for workload in ["sts/web", "statefulset/web", "ds/web", "daemonset/web"] {
        let (code, out, err) = plugin.run(&admin, &["explain", workload, "/orders"], "");
        assert_eq!(code, 0, "{workload}: {out}{err}");
        assert!(out.contains(&format!("/{}/web", parts.namespace)), "{out}");
    }
    let object = |name: &str, label: &str| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": { "name": name },
            "spec": {
                "selector": { "matchLabels": { "app": label } }, "action": "DENY",
                "rules": [{ "to": [{ "operation": { "ports": ["8080"] } }] }],
            },
        })
    };
    let [good, bad] = [object("good", "web"), object("bad", "nowhere")];
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [good, bad] });
    let mut typed = list.clone();
    typed["kind"] = json!("AuthorizationPolicyList");
    typed["apiVersion"] = json!("security.istio.io/v1");
    for item in typed["items"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("kind");
        item.as_object_mut().unwrap().remove("apiVersion");
    }
    let many = format!("# two\n---\n{good}\n---\n---\n{bad}\n");
    std::fs::create_dir_all(plugin.folder.join("folder/below")).unwrap();
    for (file, text) in [
        ("many.yaml", many.clone()),
        ("list.json", list.to_string()),
        ("typed.json", typed.to_string()),
        ("folder/good.yaml", good.to_string()),
        ("folder/below/bad.yaml", bad.to_string()),
        ("folder/readme.md", "no manifest".to_owned()),
    ] {
        std::fs::write(plugin.folder.join(file), text).unwrap();
    }
    for (args, input) in [
        (&["many.yaml"][..], ""),
        (&["list.json"], ""),
        (&["typed.json"], ""),
        (&["folder"], ""),
        (&["-"], many.as_str()),
        (&["folder/good.yaml", "folder/below/bad.yaml"], ""),
    ] {
        let all = [&["check", "-f"][..], args].concat();
        let (code, out, err) = plugin.run(&admin, &all, input);
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        assert_eq!(out.matches("PC0504").count(), 1, "{args:?}: {out}");
        let told = "checked 2 objects against the cluster: ";
        assert!(out.contains(told), "{args:?}: {out}");
        // Of the namespace of the context.
        let told = format!("AuthorizationPolicy/{}/bad", parts.namespace);
        assert!(out.contains(&told), "{args:?}: {out}");
    }
    let (code, out, err) = plugin.run(&admin, &["check", "-f", "-"], &good.to_string());
    assert_eq!(code, 0, "{out}{err}");
    assert!(!out.contains("PC0504"), "{out}");
    plugin.fails(&admin, &["check", "-f", "absent.yaml"], &["absent.yaml"]);
}
