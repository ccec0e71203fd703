//! Attestation of pods.

use std::time::Duration;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Client;
use kube::api::{Api, PostParams};
use portcullis_tests::component::{self, kube_api, run_folder};
use portcullis_tests::kube_api::KubeApi;
use serde_json::json;
use spiffe::WorkloadApiError;
use tokio_stream::StreamExt as _;

use super::callers::{Caller, Group, Proc, group};
use super::{
    Authority, asked, connect, container, delete, kubeconfig_of, label, namespace, pod, runs,
    service_account, until, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_the_identity_of_its_pod_for_as_long_as_there_is_one() {
    let Some(executable) = component::require(kube_api()) else {
        return;
    };
    let folder = run_folder("identity-pods");
    let mut api = KubeApi::start(&executable, &folder).unwrap_or_else(|cause| panic!("{cause}"));
    let client = api.client().await.unwrap();
    namespace(&client, "shop", json!({})).await;
    service_account(&client, "shop", "web").await;

    // Without rights the authority names what is missing, and says when it is there.
    service_account(&client, "shop", "authority").await;
    let kubeconfig = kubeconfig_of(&api, "shop", "authority", &folder).await;
    let proc = Proc::new(&folder);
    let authority = Authority::start(
        &folder,
        &kubeconfig,
        &json!({ "proc_root": proc.path(), "container_wait": "2s" }),
    );
    let why = until("the missing right", async || {
        let (is_ready, page) = authority.readiness();
        assert!(!is_ready, "{page}");
        let reasons = page["reasons"].to_string();
        reasons.contains("may not").then_some(reasons)
    })
    .await;
    assert!(why.contains("may not list pods"), "{why}");
    give_rights(&client).await;
    authority.ready().await;

    authority.entry(
        "/ns/shop/sa/web",
        &[
            "k8s:ns:shop",
            "k8s:sa:web",
            "k8s:pod-label:app:web",
            "k8s:container-name:main",
            "k8s:container-image:registry.example/web:1",
        ],
    );
    authority.entry("/moved", &["k8s:ns:shop", "k8s:pod-label:app:moved"]);

    // This process is in no pod, then in one that the API server does not know.
    let me = std::process::id();
    proc.put(me, "/user.slice/user-1000.slice/session-3.scope");
    let told = asked(&authority).await.unwrap_err();
    assert!(told.starts_with("denied"), "{told}");
    proc.put(
        me,
        &group("00000000-1111-2222-3333-444444444444", &container(9)),
    );
    let told = asked(&authority).await.unwrap_err();
    assert!(told.starts_with("denied"), "{told}");
    let two = group("00000000-1111-2222-3333-444444444444", &container(9));
    proc.put(
        me,
        &format!("/kubepods/pod00000000-1111-2222-3333-555555555555{two}"),
    );
    let told = asked(&authority).await.unwrap_err();
    assert!(told.contains("two pods"), "{told}");

    // A pod whose container is known a moment after it called.
    let uid = pod(&client, "shop", "web-0", "web", json!({ "app": "web" })).await;
    proc.put(me, &group(&uid, &container(1)));
    let soon = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        runs(&client, "shop", "web-0", "Running", &container(1)).await;
    };
    let (told, ()) = tokio::join!(asked(&authority), soon);
    assert_eq!(told.as_deref(), Ok("spiffe://example.org/ns/shop/sa/web"));
    // Another container of the same pod is not in its status: nobody is guessed.
    proc.put(me, &group(&uid, &container(2)));
    let told = asked(&authority).await.unwrap_err();
    assert!(told.contains("knows no container"), "{told}");
    proc.put(me, &group(&uid, &container(1)));

    // A pod of somebody who dates it later than anybody reads: it is alone in that, in watches and in lists.
    let late = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "late", "managedFields": [{
            "manager": "late", "operation": "Update", "apiVersion": "v1", "time": "9999-12-31T23:59:59Z",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:metadata": { "f:labels": { ".": {} } } },
        }] },
        "spec": {
            "nodeName": "n1", "serviceAccountName": "web",
            "containers": [{ "name": "main", "image": "registry.example/web:1" }],
        },
    });
    let request = http::Request::post("/api/v1/namespaces/shop/pods");
    let request = request.header("content-type", "application/json");
    let request = request.body(late.to_string().into_bytes()).unwrap();
    client.request_text(request).await.unwrap();

    // Labels move the identity, on the stream that is open.
    let workload = connect(&authority).await;
    let mut stream = Box::pin(workload.stream_x509_contexts().await.unwrap());
    assert_eq!(
        next(&mut stream).await,
        "spiffe://example.org/ns/shop/sa/web"
    );
    label(&client, "shop", "web-0", json!({ "app": "moved" })).await;
    assert_eq!(next(&mut stream).await, "spiffe://example.org/moved");

    // While the API server is away, what is known is good; and an operator is told.
    api.kill();
    assert_eq!(
        asked(&authority).await.as_deref(),
        Ok("spiffe://example.org/moved")
    );
    until("an alarm", async || {
        let (is_ready, page) = authority.readiness();
        assert!(is_ready, "{page}");
        page["alarms"]
            .to_string()
            .contains("pods of this node")
            .then_some(())
    })
    .await;
    let status = authority.server.ok(&["ca", "status"]).unwrap();
    assert!(status.contains("2 pods on the node n1"), "{status}");
    api.restart().unwrap_or_else(|cause| panic!("{cause}"));
    let client = api.client().await.unwrap();
    label(&client, "shop", "web-0", json!({ "app": "web" })).await;
    assert_eq!(
        next(&mut stream).await,
        "spiffe://example.org/ns/shop/sa/web"
    );

    // A pod that is over has no callers, and one that is gone loses its stream.
    let over = pod(&client, "shop", "over", "web", json!({ "app": "web" })).await;
    runs(&client, "shop", "over", "Succeeded", &container(3)).await;
    let mut caller = Caller::new(&authority.server.socket(), &folder.join("over"));
    proc.put(caller.pid(), &group(&over, &container(3)));
    caller.start();
    delete(&client, "shop", "web-0").await;
    let end = within("the end", stream.next()).await;
    let end = end.unwrap().unwrap_err();
    assert!(matches!(end, WorkloadApiError::NoIdentityIssued), "{end}");
    let told = asked(&authority).await.unwrap_err();
    assert!(told.starts_with("denied"), "{told}");
    assert_eq!(caller.identity(), None);
}

/// The identity that a stream says next; a repetition of what it said is none.
async fn next<S>(stream: &mut std::pin::Pin<Box<S>>) -> String
where
    S: tokio_stream::Stream<Item = Result<spiffe::X509Context, WorkloadApiError>>,
{
    let context = within("an update", stream.next()).await.unwrap().unwrap();
    let svid = context.default_svid().unwrap();
    svid.spiffe_id().to_string()
}

async fn give_rights(client: &Client) {
    let role: ClusterRole = serde_json::from_value(json!({
        "metadata": { "name": "authority" },
        "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"] }],
    }))
    .unwrap();
    let roles: Api<ClusterRole> = Api::all(client.clone());
    roles.create(&PostParams::default(), &role).await.unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": { "name": "authority" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "authority" },
        "subjects": [{ "kind": "ServiceAccount", "name": "authority", "namespace": "shop" }],
    }))
    .unwrap();
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let created = bindings.create(&PostParams::default(), &binding).await;
    created.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_s_own_control_groups_tell_pods_apart() {
    let Some(executable) = component::require(kube_api()) else {
        return;
    };
    let folder = run_folder("identity-groups");
    let api = KubeApi::start(&executable, &folder).unwrap_or_else(|cause| panic!("{cause}"));
    let client = api.client().await.unwrap();
    namespace(&client, "shop", json!({})).await;
    let authority = Authority::start(&folder, &api.kubeconfig(), &json!({}));
    authority.ready().await;
    let mut callers = Vec::new();
    let mut groups = Vec::new();
    for (number, name) in [(1, "web"), (2, "db")] {
        service_account(&client, "shop", name).await;
        let uid = pod(&client, "shop", name, name, json!({})).await;
        runs(&client, "shop", name, "Running", &container(number)).await;
        let sa = format!("k8s:sa:{name}");
        authority.entry(&format!("/sa/{name}"), &["k8s:ns:shop", &sa]);
        let Some(made) = Group::make(&group(&uid, &container(number))) else {
            eprintln!("skipped: control groups cannot be made here, which takes root");
            return;
        };
        let mut caller = Caller::new(&authority.server.socket(), &folder.join(name));
        made.put(caller.pid());
        caller.start();
        callers.push((caller, format!("spiffe://example.org/sa/{name}")));
        groups.push(made);
    }
    for (caller, expected) in &callers {
        let found = until("an identity", async || caller.identity()).await;
        assert_eq!(&found, expected);
    }
    // Whoever moves to another pod's container is that pod's: where a process is, is the kernel's word.
    drop(callers);
}
