//! Roles hold exactly the rights that are used: each service does all its work against a real API server as its own service
//! account, and the server's audit log is held against the roles that the chart made.

use std::collections::BTreeSet;
use std::fs;

use kube::Client;
use portcullis_tests::component::{self, kube_api, require, run_folder};
use portcullis_tests::kube_api::KubeApi;
use serde_json::{Value, json};

use super::applied::{Mode, apply, served};
use super::audited::{Right, Stage, audit, used, within};
use super::helm::{NAMESPACE, documents, find, helm};
use super::walkthroughs::istio;

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
    let releases: Vec<Release> = RELEASES
        .iter()
        .map(|release| Release {
            name: release.name,
            objects: helm.objects(&format!("rights-{}", release.name), release.values),
        })
        .collect();
    let objects: Vec<Value> = releases
        .iter()
        .flat_map(|one| one.objects.clone())
        .collect();
    let others = documents(&fs::read_to_string(definitions).unwrap());
    let gateways = others
        .into_iter()
        .filter(|one| one["spec"]["group"] == "gateway.networking.k8s.io");
    let definitions: Vec<Value> = istio.into_iter().chain(gateways).collect();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stage = |number: usize| Stage {
        folder: &folder,
        name: releases[number].name,
        objects: &releases[number].objects,
    };
    runtime.block_on(async {
        let client = server.client().await.unwrap();
        prepare(&client, &definitions, &objects).await;
        let plain = stage(0);
        let mut services = vec![
            plain.authz(&client, &server).await,
            plain.admission(&client, &server).await,
            plain.ca(&client, &server).await,
        ];
        for service in &mut services {
            service.ready();
        }
        write_and_see(&client, "first", Kinds::All).await;
        // After a gap everything is listed anew.
        server.restart().unwrap_or_else(|cause| panic!("{cause}"));
        let client = server.client().await.unwrap();
        write_and_see(&client, "second", Kinds::All).await;
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
        drop(services);

        // Those that may do less, in the place of the first.
        delete_lease(&client).await;
        let (own, none, beside) = (stage(1), stage(2), stage(3));
        let mut services = vec![
            own.authz(&client, &server).await,
            own.admission(&client, &server).await,
            own.ca(&client, &server).await,
            none.authz(&client, &server).await,
            none.admission(&client, &server).await,
            beside.sidecar(&client, &server).await,
        ];
        for service in &mut services {
            service.ready();
        }
        write_and_see(&client, "third", Kinds::Own).await;
        // A watch begins after the list that makes a service ready.
        let done = within(async || {
            let all = used(&log);
            let accounts = accounts(&releases);
            let is_done = |(objects, account): &(&[Value], &str)| {
                let used = all.get(*account);
                used.is_some_and(|used| superfluous(used, &granted(objects, account)).is_empty())
            };
            accounts.iter().all(is_done).then_some(())
        });
        // Who did not is told below.
        done.await;
    });
    drop(server);

    let used = used(&log);
    for (objects, account) in accounts(&releases) {
        let used = used
            .get(account)
            .unwrap_or_else(|| panic!("`{account}` did nothing"));
        let granted = granted(objects, account);
        assert!(granted.len() > 1, "{account}: {granted:?}");
        let missing: Vec<&Right> = used
            .iter()
            .filter(|one| !granted.iter().any(|right| covers(right, one)))
            .collect();
        assert!(
            missing.is_empty(),
            "{account} uses what it has no right to: {missing:#?}"
        );
        let superfluous = superfluous(used, &granted);
        assert!(
            superfluous.is_empty(),
            "{account} has rights that it never uses: {superfluous:#?}"
        );
    }
    // What the modes are for.
    let count = |account: &str| used[account].len();
    assert!(count("own-authz") < count("portcullis-authz"));
    assert!(count("none-authz") < count("own-authz"));
    assert!(count("own-admission") < count("none-admission"));
    assert!(count("none-admission") < count("portcullis-admission"));
    assert!(count("own-ca") < count("portcullis-ca"));
    assert_eq!(used["beside"], used["none-authz"]);
}

/// The chart in every mode that changes its roles.
const RELEASES: [Values; 4] = [
    Values {
        name: "portcullis",
        values: "ca: {enabled: true}",
    },
    Values {
        name: "own",
        values: "fullnameOverride: own\nkubernetes: {status: own}\n\
                 admission: {certManager: {enabled: true, issuerRef: {name: cluster}}}\n\
                 ca: {enabled: true, kubernetes: {settings: {cluster_spiffe_ids: false}}}",
    },
    Values {
        name: "none",
        values: "fullnameOverride: none\nkubernetes: {status: none}\n\
                 admission: {config: {certificate: {files: {certificate: tls.crt, key: tls.key, authorities: ca.crt}}}}",
    },
    Values {
        name: "side",
        values: "fullnameOverride: side\nadmission: {enabled: false}\n\
                 authz: {mode: sidecar, sidecar: {workloads: [{namespace: portcullis-system, serviceAccount: beside}]}}",
    },
];

/// Name of the release's objects, and its values.
struct Values {
    name: &'static str,
    values: &'static str,
}

/// What the chart makes of them.
struct Release {
    name: &'static str,
    objects: Vec<Value>,
}

/// Every service account, with the objects of its release.
fn accounts(releases: &[Release]) -> Vec<(&[Value], &'static str)> {
    let of = [
        (0, "portcullis-authz"),
        (0, "portcullis-admission"),
        (0, "portcullis-ca"),
        (1, "own-authz"),
        (1, "own-admission"),
        (1, "own-ca"),
        (2, "none-authz"),
        (2, "none-admission"),
        (3, "beside"),
    ];
    let of = of.into_iter();
    of.map(|(release, account)| (releases[release].objects.as_slice(), account))
        .collect()
}

/// Whether a right that is granted is the one that was used.
fn covers(granted: &Right, used: &Right) -> bool {
    let (group, resource, verb, only) = granted;
    (group, resource, verb) == (&used.0, &used.1, &used.2)
        && only
            .as_ref()
            .is_none_or(|only| used.3.as_ref() == Some(only))
}

/// What is granted and never used.
fn superfluous(used: &BTreeSet<Right>, granted: &BTreeSet<Right>) -> Vec<Right> {
    let of = granted.iter();
    of.filter(|right| !used.iter().any(|one| covers(right, one)))
        .cloned()
        .collect()
}

/// The leader was killed: nobody waits for its time to be over.
async fn delete_lease(client: &Client) {
    let path =
        format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/portcullis-status");
    let request = http::Request::delete(path).body(Vec::new()).unwrap();
    let _: Value = client.request(request).await.unwrap();
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
    // Of a workload that has an instance beside it.
    let beside = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "beside", "namespace": NAMESPACE } });
    for object in [&mesh, &node, &beside] {
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

/// Which get a status.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kinds {
    All,
    /// CedarPolicy and PolicyTest.
    Own,
}

/// Policies of every kind, and an identity: each of `kinds` gets a status.
async fn write_and_see(client: &Client, name: &str, kinds: Kinds) {
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
    let told = |object: &&Value| kinds == Kinds::All || object["apiVersion"] == own;
    for object in objects.iter().filter(told) {
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
