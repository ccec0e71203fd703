//! What Istio's own tests expect of its schema and webhook; and random policies: the webhook takes what the engine compiles.

use std::path::PathBuf;

use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::document::SourceText;
use portcullis_policy::settings::Settings;
use portcullis_tests::component::workspace;
use portcullis_tests::{convert, generate};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::webhook::{Replica, Service, bad, configuration, judged_namespace, path, policy, send};
use crate::cluster::{self, until};

/// Random worlds whose policies are sent.
const WORLDS: usize = 40;

fn plural(object: &Value) -> Option<&'static str> {
    Some(match object["kind"].as_str()? {
        "AuthorizationPolicy" => "authorizationpolicies",
        "PeerAuthentication" => "peerauthentications",
        "RequestAuthentication" => "requestauthentications",
        _ => return None,
    })
}

/// Istio's manifests: name of the file, object.
fn corpus() -> Vec<(String, Value)> {
    const FOLDER: &str = "shared/corpora/istio";
    let workspace = workspace();
    let folder: PathBuf = workspace
        .ancestors()
        .map(|a| a.join(FOLDER))
        .find(|f| f.is_dir())
        .unwrap();
    let mut all = Vec::new();
    for sub in ["crd-validation", "analysis"] {
        for file in std::fs::read_dir(folder.join(sub)).unwrap() {
            let file = file.unwrap().path();
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            all.extend(
                cluster::yaml(&file)
                    .into_iter()
                    .map(|object| (name.clone(), object)),
            );
        }
    }
    all
}

/// True when the engine compiles the object alone.
fn compiles(object: &Value) -> bool {
    let source = SourceText {
        file: "object.json".into(),
        bytes: object.to_string().into_bytes().into(),
    };
    let documents = Documents {
        base: vec![source],
        candidate: None,
    };
    compile(&documents, &Settings::default()).is_ok()
}

/// Policies that hurt, some of them made wrong in one place.
fn random() -> Vec<Value> {
    let mut runner = TestRunner::deterministic();
    let mut all = Vec::new();
    for n in 0..WORLDS {
        let scenario = generate::scenario(0)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let manifests = convert::manifests(&scenario.world);
        for (m, mut object) in manifests
            .into_iter()
            .filter(|o| plural(o).is_some())
            .enumerate()
        {
            // Rules are what AuthorizationPolicies have; of other kinds they would be pruned.
            let place = match object["kind"] == "AuthorizationPolicy" {
                true => (n + m) % 8,
                false => 7,
            };
            match place {
                0 => object["spec"]["rules"] = Value::Null,
                1 => {
                    object["spec"]["rules"] =
                        json!([{ "from": [{ "source": { "ipBlocks": ["10.0.0.0/33"] } }] }])
                }
                2 => {
                    object["spec"]["rules"] =
                        json!([{ "to": [{ "operation": { "ports": ["http"] } }] }])
                }
                3 => {
                    object["spec"]["rules"] =
                        json!([{ "when": [{ "key": "request.header[a]", "values": ["x"] }] }])
                }
                _ => {}
            }
            all.push(object);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_istio_refuses_is_refused_and_what_the_engine_compiles_is_taken() {
    let Some((cluster, client, folder)) = super::webhook::cluster("kubernetes-corpus").await else {
        return;
    };
    let service = Service::start();
    let shipped = configuration(&service.url(), "corpus", "corpus", &[]);
    cluster::apply(&client, &shipped).await.unwrap();
    let replica = Replica::start(
        &cluster,
        &folder,
        "replica",
        "  webhook_configuration: corpus\n",
    );
    service.add(replica.address);
    replica.ready().await;
    let namespace = judged_namespace(&client, "corpus", json!({})).await;
    let probe = path(&namespace, "authorizationpolicies", "", "?dryRun=All");
    until("the API server asks the webhook", async || {
        send(&client, "POST", &probe, &policy("probe", bad()))
            .await
            .status
            == 422
    })
    .await;

    let (mut refused, mut taken, mut pruned) = (0, 0, 0);
    for (file, mut object) in corpus() {
        let Some(plural) = plural(&object) else {
            continue;
        };
        let wants_error = object.as_object_mut().unwrap().remove("_err").is_some();
        object["metadata"]["namespace"] = json!(namespace);
        let path = path(&namespace, plural, "", "?dryRun=All");
        let said = send(&client, "POST", &path, &object).await;
        assert!(!said.is_failure(), "{file}: {said:?}\n{object}");
        // What this channel of Istio's schema does not know is gone before a webhook sees it.
        if said.warnings.iter().any(|w| w.contains("unknown field")) {
            pruned += 1;
            continue;
        }
        let is_refused = said.status != 201;
        assert_eq!(is_refused, wants_error, "{file}: {said:?}\n{object}");
        refused += usize::from(is_refused);
        taken += usize::from(!is_refused);
    }
    assert!(
        refused > 10 && taken > 5 && pruned < 5,
        "{refused} refused, {taken} taken, {pruned} pruned"
    );

    let (mut by_us, mut accepted) = (0, 0);
    for mut object in random() {
        object["metadata"] = json!({ "name": "random", "namespace": namespace });
        let plural = plural(&object).unwrap();
        let said = send(
            &client,
            "POST",
            &path(&namespace, plural, "", "?dryRun=All"),
            &object,
        )
        .await;
        assert!(!said.is_failure(), "{said:?}\n{object}");
        if said.warnings.iter().any(|w| w.contains("unknown field")) {
            continue;
        }
        let denied_by_us = said.message().contains("denied the request");
        match said.status {
            201 => {
                assert!(compiles(&object), "{object}");
                accepted += 1;
            }
            // What the schema refuses never gets here.
            _ if !denied_by_us => assert!(!compiles(&object), "{said:?}\n{object}"),
            _ => {
                assert!(!compiles(&object), "{said:?}\n{object}");
                by_us += 1;
            }
        }
    }
    assert!(
        by_us > 5 && accepted > 20,
        "{by_us} refused, {accepted} accepted"
    );
}
