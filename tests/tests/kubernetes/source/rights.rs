//! A verb that is missing is named, before the first snapshot and after.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use portcullis_source::KindState;
use serde_json::{Value, json};

use super::cut::Cut;
use super::followed::{Followed, options};
use crate::cluster::{apply, namespace, pod, shared, until};

/// A token of a new service account.
async fn token(client: &Client, namespace: &str) -> String {
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "namespace": namespace, "name": "portcullis" } });
    apply(client, &account).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec::default()),
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let made = accounts.create_token_request("portcullis", &params, &request);
    made.await.unwrap().status.unwrap().token.unwrap()
}

/// What the source needs, with these resources of the core group.
fn role(namespace: &str, core: &[&str]) -> [Value; 2] {
    let read = json!(["list", "watch"]);
    let name = format!("follow-{namespace}");
    let groups = [
        "security.istio.io",
        "networking.istio.io",
        "gateway.networking.k8s.io",
        "portcullis.dev",
        "discovery.k8s.io",
    ];
    let meta = json!({ "name": name });
    let rbac = "rbac.authorization.k8s.io";
    [
        json!({ "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": meta, "rules": [
            { "apiGroups": groups, "resources": ["*"], "verbs": read },
            { "apiGroups": [""], "resources": core, "verbs": read },
        ] }),
        json!({ "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": meta,
            "roleRef": { "apiGroup": rbac, "kind": "ClusterRole", "name": name },
            "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": "portcullis" }] }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_verb_keeps_it_unready_until_it_is_granted_and_is_an_alarm_afterwards() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let mine = namespace(&client, "rights").await;
    pod(&client, &mine, "web", "10.31.0.1").await;
    let token = token(&client, &mine).await;
    let all = [
        "pods",
        "services",
        "serviceaccounts",
        "namespaces",
        "configmaps",
    ];
    let without_pods = &all[1..];
    for object in role(&mine, without_pods) {
        apply(&client, &object).await.unwrap();
    }
    let way = Cut::to(cluster).await;
    let followed = Followed::start(way.client(cluster, Some(&token)).await, &options());
    let missing = || followed.status().missing();
    until("only pods are missing", async || {
        let missing = missing();
        missing.len() == 1 && missing[0].starts_with("cannot ")
    })
    .await;
    let [words] = missing().try_into().unwrap();
    // A first list may be a watch: the verb is the one that the server names.
    assert!(
        words.starts_with("cannot watch pods: ") || words.starts_with("cannot list pods: "),
        "{words}"
    );
    assert!(
        words.contains(&format!("system:serviceaccount:{mine}:portcullis")),
        "{words}"
    );
    assert!(followed.source.snapshots().borrow().is_none());

    apply(&client, &role(&mine, &all)[0]).await.unwrap();
    until("it is synced", async || followed.status().synced).await;
    followed
        .decides(&format!("{mine}/web"), "/", "allow no_allow_policy")
        .await;

    // Taken away again: known at the next watch, and the last snapshot stays.
    apply(&client, &role(&mine, without_pods)[0]).await.unwrap();
    until("the right is gone", async || {
        way.cut();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        way.mend();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        matches!(followed.state("pods"), KindState::Forbidden { .. })
    })
    .await;
    assert!(followed.status().synced);
    assert_eq!(
        followed.verdict(&format!("{mine}/web"), "/"),
        "allow no_allow_policy"
    );
}
