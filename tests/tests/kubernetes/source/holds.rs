//! Whether the cases of a PolicyTest hold, as its status tells.

use serde_json::{Value, json};

use super::followed::{Followed, allow};
use super::statuses::{becomes, condition, replica};
use crate::cluster::{apply, namespace, pod, shared, until};

/// One case for each path: what must be decided of it at the pod with this address.
fn test(namespace: &str, destination: &str, cases: &[(&str, &str, &str)]) -> Value {
    let cases = cases.iter().map(|(path, decision, reason)| {
        let address = |a: &str| json!({ "socketAddress": { "address": a, "portValue": 8080 } });
        json!({
            "name": format!("GET {path}"), "decision": decision, "reason": reason,
            "request": { "attributes": {
                "source": { "address": address("10.9.9.9") },
                "destination": { "address": address(destination) },
                "request": { "http": { "method": "GET", "path": path, "host": "web" } },
            } },
        })
    });
    json!({
        "apiVersion": "portcullis.dev/v1alpha1", "kind": "PolicyTest",
        "metadata": { "namespace": namespace, "name": "paths" },
        "spec": { "cases": cases.collect::<Vec<_>>() },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tests_status_tells_whether_its_cases_hold() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let shop = namespace(&client, "holds").await;
    pod(&client, &shop, "web", "10.35.0.1").await;
    apply(&client, &allow(&shop, "web", "web", &["/a"]))
        .await
        .unwrap();
    let wanted = [
        ("/a", "allow", "allowed_by"),
        ("/b", "deny", "no_allow_matched"),
    ];
    let good = test(&shop, "10.35.0.1", &wanted);
    apply(&client, &good).await.unwrap();
    let one = Followed::synced(client.clone(), &replica(&shop, "one")).await;
    let (message, first) = becomes(&client, &good, "Holds", "True", "CasesHold").await;
    assert_eq!(message, "2 cases hold");
    becomes(&client, &good, "Accepted", "True", "Accepted").await;

    // Another policy changes: the test's object does not, its status does.
    apply(&client, &allow(&shop, "web", "web", &["/b"]))
        .await
        .unwrap();
    let (message, same) = becomes(&client, &good, "Holds", "False", "CasesFail").await;
    let wanted = format!(
        "2 of 2 cases do not hold: `GET /a`: wanted allow (allowed_by), got deny (no_allow_matched); \
         `GET /b`: wanted deny (no_allow_matched), got allow (allowed_by {shop}/web#rule[0])"
    );
    assert_eq!(message, wanted);
    assert_eq!(same, first);
    let more: Vec<_> = (0..7).map(|n| format!("/{n}")).collect();
    let more: Vec<_> = more
        .iter()
        .map(|path| (path.as_str(), "allow", "allowed_by"))
        .collect();
    apply(&client, &test(&shop, "10.35.0.1", &more))
        .await
        .unwrap();
    until("the other cases are run", async || {
        let found = condition(&client, &good, "Holds").await;
        found.is_some_and(|(.., generation)| generation > first)
    })
    .await;
    let (message, second) = becomes(&client, &good, "Holds", "False", "CasesFail").await;
    assert!(
        message.starts_with("7 of 7 cases do not hold: `GET /0`: "),
        "{message}"
    );
    assert!(message.ends_with("; and 4 more"), "{message}");
    // What the API server says of the kind shows it.
    let table = portcullis_source::crd::definitions().unwrap();
    let columns = table
        .iter()
        .find(|d| d["spec"]["names"]["kind"] == "PolicyTest");
    let columns = &columns.unwrap()["spec"]["versions"][0]["additionalPrinterColumns"];
    assert!(columns.to_string().contains("Holds"), "{columns}");
    // The policy is mended; nothing of the test's status is lost where nothing is to be said.
    apply(
        &client,
        &test(&shop, "10.35.0.1", &[("/b", "allow", "allowed_by")]),
    )
    .await
    .unwrap();
    let (message, third) = becomes(&client, &good, "Holds", "True", "CasesHold").await;
    assert_eq!(message, "1 case holds");
    assert!(third > second);
    assert_eq!(one.source.leads(), Some(true));
    // One that the schema takes and the engine does not, and no version of which was good.
    let mut twisted = test(&shop, "10.35.0.1", &[("/b", "allow", "allowed_by")]);
    twisted["metadata"]["name"] = json!("twisted");
    twisted["spec"]["cases"][0] = json!({ "name": "like none", "like": "nobody", "change": {},
        "decision": "allow", "reason": "allowed_by" });
    apply(&client, &twisted).await.unwrap();
    becomes(&client, &twisted, "Accepted", "False", "Invalid").await;
    becomes(&client, &twisted, "Holds", "Unknown", "NotRun").await;
}
