//! What Istio's own tests expect of its schema and webhook; and random objects: the webhook takes what the engine
//! runs of what the API server stores.

use std::path::PathBuf;

use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, ObjectKey, Outcome, Store};
use portcullis_policy::settings::Settings;
use portcullis_tests::component::workspace;
use portcullis_tests::generate::manifest;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::{Value, json};

use super::webhook::{Replica, Service, bad, configuration, judged_namespace, path, policy, send};
use crate::cluster::{self, until};

/// Random objects that are the same each time; as many others, or `PROPTEST_CASES`.
const SAMPLE: usize = 75;

fn plural(object: &Value) -> Option<&'static str> {
    Some(match object["kind"].as_str()? {
        "AuthorizationPolicy" => "authorizationpolicies",
        "PeerAuthentication" => "peerauthentications",
        "RequestAuthentication" => "requestauthentications",
        "CedarPolicy" => "cedarpolicies",
        "PolicyTest" => "policytests",
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

/// True when the engine runs the object, as an API server stores it.
fn runs(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().unwrap();
    let (group, _) = version.split_once('/').unwrap();
    let meta = |key: &str| object["metadata"][key].as_str().unwrap();
    let kind = object["kind"].as_str().unwrap();
    let key = ObjectKey::new(group, kind, meta("namespace"), meta("name"));
    let text = SourceText {
        file: key.file(),
        bytes: object.to_string().into_bytes().into(),
    };
    let mut store = Store::new(Settings::default());
    store.change([Change::Apply { key, text }]);
    store
        .outcomes()
        .all(|(_, outcome)| *outcome == Outcome::Accepted)
}

/// Random objects: the same ones each time, and others each time.
fn random() -> Vec<Value> {
    let mut all = Vec::new();
    let cases = std::env::var("PROPTEST_CASES").map_or(SAMPLE, |cases| cases.parse().unwrap());
    for (rng_seed, count) in [(RngSeed::Fixed(6), SAMPLE), (RngSeed::Random, cases)] {
        let config = Config {
            rng_seed,
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new(config);
        all.extend((0..count).map(|_| manifest::object().new_tree(&mut runner).unwrap().current()));
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
            == 403
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

    // What is stored is what a namespace takes in which nobody judges.
    let free = cluster::namespace(&client, "corpus-free").await;
    let (mut by_us, mut by_schema, mut accepted) = (0, 0, 0);
    for mut object in random() {
        let plural = plural(&object).unwrap();
        object["metadata"]["namespace"] = json!(free);
        let dry = path(&free, plural, "", "?dryRun=All");
        let stored = send(&client, "POST", &dry, &object).await;
        assert!(!stored.is_failure(), "{stored:?}\n{object}");
        object["metadata"]["namespace"] = json!(namespace);
        let here = path(&namespace, plural, "", "?dryRun=All");
        let said = send(&client, "POST", &here, &object).await;
        assert!(!said.is_failure(), "{said:?}\n{object}");
        if stored.status != 201 {
            // What the schema refuses never gets to a webhook.
            assert_eq!(said.status, stored.status, "{said:?}\n{object}");
            by_schema += 1;
            continue;
        }
        let mut stored = stored.body;
        stored["metadata"]["namespace"] = json!(namespace);
        if runs(&stored) {
            assert_eq!(
                said.status, 201,
                "refused, and the engine runs it: {said:?}\n{stored}"
            );
            accepted += 1;
        } else {
            assert_eq!(
                said.status, 403,
                "taken, and the engine does not run it: {said:?}\n{stored}"
            );
            assert!(said.message().contains("denied the request"), "{said:?}");
            by_us += 1;
        }
    }
    eprintln!("{accepted} taken, {by_us} refused by the webhook, {by_schema} by the schema");
    assert!(
        by_us > 5 && by_schema > 5 && accepted > 20,
        "{accepted} taken, {by_us} refused by the webhook, {by_schema} by the schema"
    );
}
