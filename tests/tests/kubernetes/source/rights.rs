//! A verb that is missing is named, before the first snapshot and after.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use portcullis_source::{KindState, StatusOptions};
use portcullis_tests::component::workspace;
use serde_json::{Value, json};

use super::cut::Cut;
use super::followed::{Followed, allow, options};
use crate::cluster::{
    api, apply, delete, make_namespace, namespace, pod, shared, until, yaml_text,
};

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

/// The role that the page shows, of an account in `namespace`; without `without`.
fn role(namespace: &str, without: Option<&str>) -> Vec<Value> {
    let page = std::fs::read_to_string(workspace().join("docs/tasks/kubernetes.md")).unwrap();
    let mut blocks = page
        .split("```")
        .filter_map(|block| block.strip_prefix("yaml\n"));
    let block = blocks
        .find(|block| block.contains("kind: ClusterRole"))
        .unwrap();
    let [mut role] = yaml_text("docs/tasks/kubernetes.md", block)
        .try_into()
        .unwrap();
    let name = format!("follow-{namespace}");
    role["metadata"]["name"] = json!(name);
    let rules = role["rules"].as_array_mut().unwrap();
    if let Some(without) = without {
        for rule in rules.iter_mut() {
            let resources = rule["resources"].as_array_mut().unwrap();
            resources.retain(|resource| resource != without);
        }
        rules.retain(|rule| !rule["resources"].as_array().unwrap().is_empty());
    }
    let binding = |kind: &str, within: Option<&str>| {
        let rbac = "rbac.authorization.k8s.io";
        let mut meta = json!({ "name": name });
        if let Some(within) = within {
            meta["namespace"] = json!(within);
        }
        let made = if kind == "Role" {
            "RoleBinding"
        } else {
            "ClusterRoleBinding"
        };
        json!({ "apiVersion": format!("{rbac}/v1"), "kind": made, "metadata": meta,
            "roleRef": { "apiGroup": rbac, "kind": kind, "name": name },
            "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": "portcullis" }] })
    };
    let in_root = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": { "namespace": "istio-system", "name": name },
        "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["istio"], "verbs": ["list", "watch"] }] });
    let lease = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": { "namespace": namespace, "name": name },
        "rules": [
            { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"] },
            { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["portcullis-status"],
                "verbs": ["get", "update"] },
        ] });
    vec![
        role,
        binding("ClusterRole", None),
        in_root,
        binding("Role", Some("istio-system")),
        lease,
        binding("Role", Some(namespace)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_verb_keeps_it_unready_until_it_is_granted_and_is_an_alarm_afterwards() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let mine = namespace(&client, "rights").await;
    pod(&client, &mine, "web", "10.31.0.1").await;
    let token = token(&client, &mine).await;
    make_namespace(&client, "istio-system").await;
    for object in role(&mine, Some("pods")) {
        apply(&client, &object).await.unwrap();
    }
    let way = Cut::to(cluster).await;
    let mut chosen = options();
    chosen.namespaces = [mine.clone()].into();
    chosen.status = Some(StatusOptions::new(mine.clone(), "one".to_owned()));
    let followed = Followed::start(way.client(cluster, Some(&token)).await, &chosen);
    let missing = || followed.status().missing();
    until("only pods are missing", async || {
        let missing = missing();
        missing.len() == 1 && missing[0].starts_with("cannot ")
    })
    .await;
    let [words] = missing().try_into().unwrap();
    assert!(words.starts_with("cannot list pods: "), "{words}");
    assert!(
        words.contains(&format!("system:serviceaccount:{mine}:portcullis")),
        "{words}"
    );
    assert!(followed.source.snapshots().borrow().is_none());

    apply(&client, &role(&mine, None)[0]).await.unwrap();
    until("it is synced", async || followed.status().synced).await;
    // The rights suffice for statuses as well.
    let policy = allow(&mine, "web", "web", &["/"]);
    apply(&client, &policy).await.unwrap();
    until("a status is written", async || {
        let found = api(&client, &policy).get("web").await.unwrap();
        found.data["status"]["conditions"].is_array()
    })
    .await;
    delete(&client, &policy).await;
    followed
        .decides(&format!("{mine}/web"), "/", "allow no_allow_policy")
        .await;

    // Taken away again: known at the next watch, and the last snapshot stays.
    apply(&client, &role(&mine, Some("pods"))[0]).await.unwrap();
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
