//! A namespace that was made a moment before a policy in it: its label counts at once.

use std::sync::Arc;
use std::time::Duration;

use portcullis_admission::follow::{Followed, Namespaces};
use portcullis_admission::in_force::InForce as _;
use portcullis_source::Source;
use serde_json::json;

use super::sources::shared;
use super::steady::{asked, configured};
use super::webhook::{Replica, Service, bad, path, policy, send};
use crate::cluster;
use crate::source::followed::options;

const PLURAL: &str = "authorizationpolicies";
const LABEL: &str = "portcullis.dev/enforcement";
/// Namespaces that are made.
const ROUNDS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_followed_yet_is_looked_up() {
    let Some((_, client, _)) = shared("kubernetes-namespaces").await else {
        return;
    };
    let (known, following) = Namespaces::follow(client.clone());
    let source = Source::start(client.clone(), &options());
    let followed = Arc::new(Followed::new(&source, known));
    let ask = async |name: &str| {
        let (followed, name) = (Arc::clone(&followed), name.to_owned());
        let asked = tokio::task::spawn_blocking(move || followed.namespace_labels(&name));
        asked.await.unwrap()
    };
    // Nobody follows: every answer is looked up.
    drop(following);
    let fresh = cluster::namespace(&client, "fresh").await;
    let labels = json!({ LABEL: "audit" });
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": fresh, "labels": labels } });
    cluster::apply(&client, &object).await.unwrap();
    assert_eq!(ask(&fresh).await.unwrap()[LABEL], "audit");
    let why = ask("never-made").await.unwrap_err();
    assert!(
        why.contains("`never-made`") && why.contains("no such namespace"),
        "{why}"
    );
    let why = ask("a,metadata.name!=b").await.unwrap_err();
    assert!(why.contains("its name is none"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_label_of_a_new_namespace_counts_for_the_first_policy_in_it() {
    let Some((cluster, client, folder)) = shared("kubernetes-fresh").await else {
        return;
    };
    let service = Service::start();
    let strict = configured(&client, "fresh", &service.url()).await;
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": strict, "labels": { "judged": "fresh", LABEL: "deny" } } });
    cluster::apply(&client, &object).await.unwrap();
    let more = "  webhook_configuration: fresh\n  enforcement: warn\n  floor: audit\n";
    let replica = Replica::start(cluster, &folder, "replica", more);
    service.add(replica.address);
    replica.ready().await;
    asked(&client, &strict).await;
    for round in 0..ROUNDS {
        let name = format!("fresh-now-{round}-{}", std::process::id());
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": name, "labels": { "judged": "fresh", LABEL: "deny" } },
        });
        let made = send(&client, "POST", "/api/v1/namespaces", &object).await;
        assert_eq!(made.status, 201, "{made:?}");
        let said = send(
            &client,
            "POST",
            &path(&name, PLURAL, "", ""),
            &policy("a", bad()),
        )
        .await;
        assert!(
            said.status == 403 && said.message().contains("PC0102"),
            "round {round}: {said:?}"
        );
        // So that some are met before the watch and some after.
        tokio::time::sleep(Duration::from_millis(3 * round as u64)).await;
    }
}
