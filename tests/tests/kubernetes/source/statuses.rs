//! What the author of a policy reads in its status, and who writes it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use kube::Client;
use kube::api::{Patch, PatchParams};
use portcullis_source::{Options, StatusOptions};
use serde_json::{Value, json};

use super::followed::{Followed, allow, bad, options};
use crate::cluster::{api, apply, namespace, pod, shared, until};

/// One that writes statuses of this namespace.
pub fn replica(namespace: &str, name: &str) -> Options {
    let mut options = options();
    options.namespaces = [namespace.to_owned()].into();
    let mut status = StatusOptions::new(namespace.to_owned(), name.to_owned());
    status.lease_duration = Duration::from_secs(6);
    status.cases = Some(portcullis_authz::policy_test::run);
    options.status = Some(status);
    options
}

/// A condition of an object, as (status, reason, message, observedGeneration).
pub async fn condition(
    client: &Client,
    object: &Value,
    name: &str,
) -> Option<(String, String, String, i64)> {
    let found = api(client, object)
        .get(object["metadata"]["name"].as_str().unwrap())
        .await
        .unwrap();
    let found = serde_json::to_value(&found).unwrap();
    let conditions = found["status"]["conditions"].as_array()?;
    let condition = conditions.iter().find(|c| c["type"] == name)?;
    let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    let generation = &condition["observedGeneration"];
    let generation = generation
        .as_i64()
        .or_else(|| generation.as_str()?.parse().ok());
    assert!(!text("lastTransitionTime").is_empty(), "{condition}");
    Some((
        text("status"),
        text("reason"),
        text("message"),
        generation.unwrap_or_default(),
    ))
}

/// Waits until a condition is this; its message and generation.
pub async fn becomes(
    client: &Client,
    object: &Value,
    name: &str,
    status: &str,
    reason: &str,
) -> (String, i64) {
    let what = format!("{name} is {status}, {reason}");
    let mut seen = None;
    until(&what, async || {
        seen = condition(client, object, name).await;
        let is = |(s, r, ..): &(String, String, String, i64)| {
            (s.as_str(), r.as_str()) == (status, reason)
        };
        seen.as_ref().is_some_and(is)
    })
    .await;
    let (_, _, message, generation) = seen.unwrap();
    (message, generation)
}

fn request_authentication(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "selector": { "matchLabels": { "app": "nobody" } } },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_tell_what_is_wrong_and_one_replica_writes_them() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let shop = namespace(&client, "status").await;
    pod(&client, &shop, "web", "10.33.0.1").await;
    let good = allow(&shop, "web", "web", &["/a"]);
    apply(&client, &good).await.unwrap();
    // What istiod has to say stays.
    let theirs = json!({ "status": { "conditions": [{ "type": "WaypointAccepted", "status": "True", "reason": "Accepted",
        "message": "bound", "lastTransitionTime": "2026-01-01T00:00:00Z" }] } });
    let params = PatchParams::default();
    api(&client, &good)
        .patch_status("web", &params, &Patch::Merge(&theirs))
        .await
        .unwrap();

    let one = Followed::synced(client.clone(), &replica(&shop, "one")).await;
    until("it leads", async || one.status().leads == Some(true)).await;
    let two = Followed::synced(client.clone(), &replica(&shop, "two")).await;

    let (_, first) = becomes(
        &client,
        &good,
        "portcullis.dev/Accepted",
        "True",
        "Accepted",
    )
    .await;
    let (message, _) = becomes(
        &client,
        &good,
        "portcullis.dev/Enforced",
        "True",
        "Enforced",
    )
    .await;
    assert_eq!(message, "in force on 1 workload");
    assert!(
        condition(&client, &good, "WaypointAccepted")
            .await
            .is_some()
    );

    // A bad update says what is wrong, and that the version before is in force.
    apply(&client, &bad(&shop, "web", "web")).await.unwrap();
    let (message, second) = becomes(
        &client,
        &good,
        "portcullis.dev/Accepted",
        "False",
        "Invalid",
    )
    .await;
    assert!(
        message.starts_with("PC0108 spec.rules[0].from[0].source.ipBlocks[0]: "),
        "{message}"
    );
    assert!(second > first, "{second} is of the bad version");
    becomes(
        &client,
        &good,
        "portcullis.dev/Enforced",
        "False",
        "LastGood",
    )
    .await;
    // One that was never good.
    let worse = bad(&shop, "worse", "web");
    apply(&client, &worse).await.unwrap();
    becomes(
        &client,
        &worse,
        "portcullis.dev/Enforced",
        "False",
        "Closed",
    )
    .await;
    crate::cluster::delete(&client, &worse).await;
    // One that selects nothing.
    let nothing = allow(&shop, "nothing", "nobody", &["/a"]);
    apply(&client, &nothing).await.unwrap();
    becomes(
        &client,
        &nothing,
        "portcullis.dev/Enforced",
        "False",
        "NoWorkloads",
    )
    .await;

    // Our own kinds.
    let cedar = |text: &str| {
        json!({ "apiVersion": "portcullis.dev/v1alpha1", "kind": "CedarPolicy",
            "metadata": { "namespace": shop, "name": "cedar" },
            "spec": { "selector": { "matchLabels": { "app": "web" } }, "policies": text } })
    };
    let forbid = cedar(
        r#"forbid (principal, action == Action::"http", resource) when { context.http.path == "/x" };"#,
    );
    apply(&client, &forbid).await.unwrap();
    one.decides(&format!("{shop}/web"), "/x", "deny denied_by")
        .await;
    becomes(&client, &forbid, "Accepted", "True", "Accepted").await;
    let (message, _) = becomes(&client, &forbid, "Enforced", "True", "Enforced").await;
    assert_eq!(message, "in force on 1 workload");
    apply(&client, &cedar("permit (")).await.unwrap();
    let (message, generation) = becomes(&client, &forbid, "Accepted", "False", "Invalid").await;
    assert!(message.starts_with("PC06"), "{message}");
    let found = api(&client, &forbid).get("cedar").await.unwrap();
    assert_eq!(
        found.data["status"]["observedGeneration"],
        json!(generation)
    );
    assert_eq!(found.data["status"]["workloads"], json!(1));
    let (message, _) = becomes(&client, &forbid, "Enforced", "False", "LastGood").await;
    assert!(message.contains("1 workload"), "{message}");
    assert_eq!(one.verdict(&format!("{shop}/web"), "/x"), "deny denied_by");

    // Written once: nothing is written that is there already. The writer goes through all of them, in the order of
    // their names: once it has been at the last, it has passed by the rest.
    let version = async || {
        let found = api(&client, &good).get("web").await.unwrap();
        found.metadata.resource_version.unwrap()
    };
    let before = version().await;
    let last = request_authentication(&shop, "zz-last");
    apply(&client, &last).await.unwrap();
    for name in ["portcullis.dev/Accepted", "portcullis.dev/Enforced"] {
        until(name, async || {
            condition(&client, &last, name).await.is_some()
        })
        .await;
    }
    assert_eq!(version().await, before);
    let writes = |of: &Followed| of.source.counters().statuses.load(Ordering::Relaxed);
    assert!(writes(&one) > 0);
    assert_eq!(writes(&two), 0);
    assert_eq!(
        (one.source.leads(), two.source.leads()),
        (Some(true), Some(false))
    );

    // The leader is gone without a word: the other takes over once the lease has ended.
    drop(one);
    apply(&client, &good).await.unwrap();
    becomes(
        &client,
        &good,
        "portcullis.dev/Accepted",
        "True",
        "Accepted",
    )
    .await;
    assert_eq!(two.status().leads, Some(true));
    // One that ends in order gives it back: no need to wait.
    let started = std::time::Instant::now();
    two.source.stop().await;
    let three = Followed::synced(client.clone(), &replica(&shop, "three")).await;
    until("the third leads", async || {
        three.status().leads == Some(true)
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(20));
}
