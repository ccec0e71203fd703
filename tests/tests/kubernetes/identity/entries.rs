//! Entries from ClusterSPIFFEIDs.

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use portcullis_tests::component::{self, kube_api, run_folder};
use portcullis_tests::kube_api::KubeApi;
use serde_json::{Value, json};

use super::callers::{Proc, group};
use super::{
    Authority, asked, container, delete, label, namespace, pod, runs, service_account, until,
};
use crate::cluster;

/// The definition as it is shipped.
async fn define(client: &Client) {
    let all = portcullis_source::crd::definitions().unwrap();
    let one = all
        .into_iter()
        .find(|definition| definition["spec"]["names"]["kind"] == "ClusterSPIFFEID");
    cluster::define(client, &[one.unwrap()]).await;
}

/// As much of another's definition as is needed to apply one; `status` is its schema.
async fn define_with(client: &Client, status: Value) {
    let free = free();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "clusterspiffeids.spire.spiffe.io" },
        "spec": {
            "group": "spire.spiffe.io",
            "names": {
                "kind": "ClusterSPIFFEID", "listKind": "ClusterSPIFFEIDList",
                "plural": "clusterspiffeids", "singular": "clusterspiffeid",
            },
            "scope": "Cluster",
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": {
                    "type": "object", "properties": { "spec": free, "status": status },
                } },
            }],
        },
    });
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let apply = PatchParams::apply("tests").force();
    let name = "clusterspiffeids.spire.spiffe.io";
    let patch = Patch::Apply(definition);
    api.patch(name, &apply, &patch).await.unwrap();
}

/// The schema of what is looked at by nobody.
fn free() -> Value {
    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn ids(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("spire.spiffe.io", "v1alpha1", "ClusterSPIFFEID");
    let resource = ApiResource::from_gvk_with_plural(&kind, "clusterspiffeids");
    Api::all_with(client.clone(), &resource)
}

async fn apply(client: &Client, name: &str, spec: Value) {
    let object = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID",
        "metadata": { "name": name }, "spec": spec,
    });
    let params = PatchParams::apply("tests").force();
    // The kind may have been defined a moment ago.
    until("the kind is served", async || {
        let patch = Patch::Apply(&object);
        ids(client).patch(name, &params, &patch).await.ok()
    })
    .await;
}

/// Waits until the status says this of entries.
async fn status(client: &Client, name: &str, wanted: &Value) {
    until("a status", async || {
        let found = ids(client).get(name).await.ok()?;
        let stats = found.data.get("status")?.get("stats")?.clone();
        let wanted = wanted.as_object().unwrap();
        let all = wanted
            .iter()
            .all(|(key, value)| stats.get(key) == Some(value));
        all.then_some(())
    })
    .await;
}

/// Waits until the status has this condition; its message.
async fn condition(client: &Client, name: &str, kind: &str, holds: &str) -> String {
    until("a condition", async || {
        let found = ids(client).get(name).await.ok()?;
        let generation = found.metadata.generation;
        let conditions = found.data.get("status")?.get("conditions")?.as_array()?;
        let one = conditions
            .iter()
            .find(|one| one["type"] == kind && one["status"] == holds)?;
        let is_now = one["observedGeneration"].as_i64() == generation;
        is_now.then(|| one["message"].as_str().unwrap().to_owned())
    })
    .await
}

/// Path and selectors of every entry.
fn entries(authority: &Authority) -> Vec<String> {
    let listed = authority
        .server
        .ok(&["ca", "entry", "list", "--output", "json"]);
    let listed = listed.unwrap();
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let mut all: Vec<String> = listed
        .iter()
        .map(|entry| {
            let id = entry["spiffe_id"].as_str().unwrap();
            format!("{id} {}", entry["selectors"])
        })
        .collect();
    all.sort();
    all
}

async fn have(authority: &Authority, what: &str, count: usize) -> Vec<String> {
    until(what, async || {
        let all = entries(authority);
        (all.len() == count).then_some(all)
    })
    .await
}

fn start(folder: &Path, api: &KubeApi, proc: &Proc) -> Authority {
    let more = json!({
        "proc_root": proc.path(), "cluster_spiffe_ids": true, "ignore_namespaces": ["kube-*"],
    });
    Authority::start(folder, &api.kubeconfig(), &more)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_labelled_pod_gets_its_identity_without_a_person() {
    let Some(executable) = component::require(kube_api()) else {
        return;
    };
    let folder = run_folder("identity-entries");
    let mut api = KubeApi::start(&executable, &folder).unwrap_or_else(|cause| panic!("{cause}"));
    let client = api.client().await.unwrap();
    namespace(&client, "shop", json!({ "team": "a" })).await;
    service_account(&client, "shop", "web").await;
    let proc = Proc::new(&folder);
    let authority = start(&folder, &api, &proc);

    // The kind is not there yet: that is an alarm, and identities are served all the same.
    authority.ready().await;
    until("an alarm", async || {
        let alarms = authority.readiness().1["alarms"].to_string();
        alarms
            .contains("are not defined in this cluster")
            .then_some(())
    })
    .await;
    define(&client).await;
    let template = "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}";
    let spec = json!({
        "spiffeIDTemplate": template,
        "podSelector": { "matchLabels": { "spiffe": "yes" } },
        "namespaceSelector": { "matchLabels": { "team": "a" } },
    });
    apply(&client, "mesh", spec.clone()).await;

    // A pod gets its label, and its process its identity.
    let uid = pod(&client, "shop", "web-0", "web", json!({})).await;
    runs(&client, "shop", "web-0", "Running", &container(1)).await;
    proc.put(std::process::id(), &group(&uid, &container(1)));
    status(
        &client,
        "mesh",
        &json!({ "namespacesSelected": 1, "podsSelected": 0 }),
    )
    .await;
    assert!(asked(&authority).await.unwrap_err().starts_with("denied"));
    label(&client, "shop", "web-0", json!({ "spiffe": "yes" })).await;
    until("an identity", async || asked(&authority).await.ok()).await;
    let id = asked(&authority).await;
    assert_eq!(id.as_deref(), Ok("spiffe://example.org/ns/shop/sa/web"));
    status(
        &client,
        "mesh",
        &json!({ "podsSelected": 1, "entriesToSet": 1, "entryFailures": 0 }),
    )
    .await;

    // What a person made is left alone, and where it grants the same the status says so.
    let second = pod(&client, "shop", "web-1", "web", json!({})).await;
    let selector = format!("k8s:pod-uid:{second}");
    authority.entry("/ns/shop/sa/web", &[&selector]);
    authority.entry("/by-hand", &["unix:uid:4711"]);
    label(&client, "shop", "web-1", json!({ "spiffe": "yes" })).await;
    status(
        &client,
        "mesh",
        &json!({ "entriesToSet": 2, "entryFailures": 1 }),
    )
    .await;
    let alarms = authority.readiness().1["alarms"].to_string();
    assert!(alarms.contains("similar entry already exists"), "{alarms}");
    let why = condition(&client, "mesh", "Enforced", "False").await;
    assert!(
        why.starts_with("1 of 2 pods have no entry: `shop/web-1`: "),
        "{why}"
    );
    // What is not supported is refused, and says so where it was applied.
    let piped =
        json!({ "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/{{ .PodMeta.Name | upper }}" });
    // A definition that takes any field: ours would drop what it does not know.
    define_with(&client, free()).await;
    apply(&client, "piped", piped).await;
    let why = condition(&client, "piped", "Accepted", "False").await;
    assert!(
        why.contains("`.PodMeta.Name | upper` is not understood"),
        "{why}"
    );
    apply(
        &client,
        "piped",
        json!({ "spiffeIDTemplate": template, "fallback": true, "onlyOn": "mondays" }),
    )
    .await;
    let why = condition(&client, "piped", "Accepted", "False").await;
    assert!(why.contains("unknown field `onlyOn`"), "{why}");
    // SPIRE's own definition has counts and no conditions: it has no more than those.
    let count = json!({ "type": "integer" });
    let counts = [
        "namespacesSelected",
        "namespacesIgnored",
        "podsSelected",
        "podEntryRenderFailures",
        "entriesMasked",
        "entriesToSet",
        "entryFailures",
    ];
    let counts: serde_json::Map<String, Value> = counts
        .iter()
        .map(|name| ((*name).to_owned(), count.clone()))
        .collect();
    let stats = json!({ "type": "object", "properties": counts });
    define_with(
        &client,
        json!({ "type": "object", "properties": { "stats": stats } }),
    )
    .await;
    apply(&client, "piped", json!({ "spiffeIDTemplate": template, "podSelector": { "matchLabels": { "spiffe": "yes" } } })).await;
    status(
        &client,
        "piped",
        &json!({ "podsSelected": 2, "entriesMasked": 2 }),
    )
    .await;
    let deleted = ids(&client).delete("piped", &DeleteParams::default()).await;
    deleted.unwrap();
    have(&authority, "three entries", 3).await;

    // Another template, another identity.
    let mut moved = spec.clone();
    moved["spiffeIDTemplate"] = "spiffe://{{ .TrustDomain }}/pods/{{ .PodMeta.Name }}".into();
    apply(&client, "mesh", moved).await;
    until("the other identity", async || {
        let id = asked(&authority).await.ok()?;
        (id == "spiffe://example.org/pods/web-0").then_some(())
    })
    .await;
    let all = have(&authority, "four entries", 4).await;
    assert!(
        all.iter().any(|entry| entry.contains("/pods/web-1")),
        "{all:?}"
    );

    // Both servers are killed and a pod goes meanwhile; nothing is deleted before it is known what there is.
    drop(authority);
    delete(&client, "shop", "web-1").await;
    api.kill();
    let authority = start(&folder, &api, &proc);
    assert_eq!(entries(&authority), all);
    let (is_ready, page) = authority.readiness();
    assert!(!is_ready, "{page}");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(entries(&authority), all);
    api.restart().unwrap_or_else(|cause| panic!("{cause}"));
    let client = api.client().await.unwrap();
    have(&authority, "the entry of the pod that is gone", 3).await;
    authority.ready().await;
    let id = asked(&authority).await;
    assert_eq!(id.as_deref(), Ok("spiffe://example.org/pods/web-0"));

    // With the ClusterSPIFFEID its entries go, and no others.
    let deleted = ids(&client).delete("mesh", &DeleteParams::default()).await;
    deleted.unwrap();
    let left = have(&authority, "those made by hand", 2).await;
    assert!(
        left[0].contains("/by-hand") && left[1].contains(&second),
        "{left:?}"
    );
    assert!(asked(&authority).await.unwrap_err().starts_with("denied"));
}
