//! Helm installs, upgrades and removes the chart in a real API server.

use std::fs;

use kube::api::{Api, DeleteParams, ListParams};
use portcullis_tests::component::run_folder;
use serde_json::{Value, json};

use super::applied::{Mode, Stage, apply, stage};
use super::helm::{Helm, helm};
use super::matrix::MATRIX;

/// Runs helm as the cluster's administrator; what it printed.
fn run(
    helm: &Helm,
    stage: &'static Stage,
    arguments: &[&str],
    values: &str,
) -> Result<String, String> {
    let file = run_folder("chart-installed").join("values.yaml");
    fs::write(&file, values).unwrap();
    let kubeconfig = stage.kubeconfig();
    let mut all = vec!["--kubeconfig", kubeconfig.to_str().unwrap()];
    all.extend(arguments);
    if ["install", "upgrade"].contains(&arguments[0]) {
        all.extend(["--values", file.to_str().unwrap()]);
    }
    let output = helm.run(&all);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

#[test]
fn the_notes_tell_what_works_and_what_does_not() {
    let Some(helm) = helm() else { return };
    let Some(stage) = stage() else { return };
    let notes = |values: &str| {
        let install = [
            "install",
            "gate",
            "deploy/chart",
            "--namespace",
            "notes",
            "--create-namespace",
            "--dry-run=server",
            // Those of the cluster belong to another release.
            "--set",
            "crds.enabled=false",
        ];
        let said =
            run(&helm, stage, &install, values).unwrap_or_else(|said| panic!("{values}: {said}"));
        said.split_once("NOTES:").unwrap().1.to_owned()
    };
    let plain = notes("{}");
    assert!(plain.contains("gate-portcullis.notes.svc:9191"), "{plain}");
    assert!(!plain.contains("WARNING"), "{plain}");
    assert!(notes("authz: {replicas: 1}").contains("WARNING: one replica"));
    let authority = notes("ca: {enabled: true}");
    for told in [
        "and to no others",
        "WARNING: `ca.nodeSelector`",
        "enforce=privileged",
        "SPIFFE_ENDPOINT_SOCKET",
    ] {
        assert!(authority.contains(told), "{told}: {authority}");
    }
    assert!(notes(value("authority")).contains("CSI volume"));
    assert!(notes(value("sidecar")).contains("kubectl patch deployment NAME --namespace shop"));
}

fn value(name: &str) -> &'static str {
    MATRIX.iter().find(|(other, _)| *other == name).unwrap().1
}

/// Names of the objects of a kind in the namespace of the release.
async fn names<K>(client: &kube::Client, namespace: &str) -> Vec<String>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default()).await.unwrap();
    list.items
        .iter()
        .filter_map(|one| one.meta().name.clone())
        .collect()
}

#[test]
fn a_release_is_installed_upgraded_and_removed_and_policies_outlive_it() {
    use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

    let Some(helm) = helm() else { return };
    let Some(stage) = stage() else { return };
    // While it is there its webhook is asked, and there are no pods to answer.
    let alone = stage.alone();
    const NAMESPACE: &str = "installed";
    let helm = |arguments: &[&str], values: &str| {
        run(&helm, stage, arguments, values).unwrap_or_else(|said| panic!("{arguments:?}: {said}"))
    };
    helm(
        &[
            "install",
            "portcullis",
            "deploy/chart",
            "--namespace",
            NAMESPACE,
            "--create-namespace",
        ],
        "{}",
    );
    alone.run(async |client| {
        let deployments = names::<Deployment>(client, NAMESPACE).await;
        assert!(
            deployments.contains(&"portcullis-authz".to_owned()),
            "{deployments:?}"
        );
        let policy = json!({
            "apiVersion": "portcullis.dev/v1alpha1", "kind": "CedarPolicy",
            "metadata": { "name": "kept", "namespace": NAMESPACE },
            "spec": { "policies": "forbid(principal, action, resource);" },
        });
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        let definition = definitions
            .get("cedarpolicies.portcullis.dev")
            .await
            .unwrap();
        super::applied::served(client, &serde_json::to_value(definition).unwrap()).await;
        apply(client, &policy, Mode::Real).await.unwrap();
    });

    helm(
        &[
            "upgrade",
            "portcullis",
            "deploy/chart",
            "--namespace",
            NAMESPACE,
        ],
        value("daemonset"),
    );
    alone.run(async |client| {
        let deployments = names::<Deployment>(client, NAMESPACE).await;
        assert!(
            !deployments.contains(&"portcullis-authz".to_owned()),
            "{deployments:?}"
        );
        assert_eq!(
            names::<DaemonSet>(client, NAMESPACE).await,
            ["portcullis-authz"]
        );
    });

    helm(&["uninstall", "portcullis", "--namespace", NAMESPACE], "{}");
    alone.run(async |client| {
        assert!(names::<DaemonSet>(client, NAMESPACE).await.is_empty());
        let policy = get(
            client,
            &format!("/apis/portcullis.dev/v1alpha1/namespaces/{NAMESPACE}/cedarpolicies/kept"),
        )
        .await;
        assert_eq!(policy["metadata"]["name"], "kept");
        // For whoever else installs it here.
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for name in [
            "cedarpolicies.portcullis.dev",
            "policytests.portcullis.dev",
            "clusterspiffeids.spire.spiffe.io",
        ] {
            definitions
                .delete(name, &DeleteParams::default())
                .await
                .unwrap();
        }
    });
}

async fn get(client: &kube::Client, path: &str) -> Value {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    client.request(request).await.unwrap()
}
