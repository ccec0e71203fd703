//! What Istio's own tests expect of its schema and its analyzers, of an API server with that schema and of our verdict.

use std::collections::BTreeMap;
use std::path::PathBuf;

use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::document::SourceText;
use portcullis_policy::settings::Settings;
use portcullis_tests::component::workspace;

use super::{errors, tried};
use crate::cluster;

/// A folder of data that is no part of the project; `None` where it is not there.
fn corpus(name: &str) -> Option<PathBuf> {
    let folder = format!("shared/corpora/istio/{name}");
    let workspace = workspace();
    let mut above = workspace.ancestors();
    let found = above.find_map(|up| Some(up.join(&folder)).filter(|path| path.is_dir()));
    if found.is_none() {
        let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!ci, "`{folder}` is missing");
        eprintln!(
            "\n==== SKIPPED, NOT PASSED ====\n`{folder}` is in no folder above the project\n====\n"
        );
    }
    found
}

#[tokio::test]
async fn what_istios_schema_refuses_is_an_error_and_nothing_else_is() {
    let Some(folder) = corpus("crd-validation") else {
        return;
    };
    let Some(cluster) = cluster::shared() else {
        return;
    };
    let client = cluster.client().await;
    let namespace = cluster::namespace(&client, "corpora").await;
    let (mut valid, mut invalid) = (0, 0);
    let mut wrong = Vec::new();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        for mut manifest in cluster::yaml(&file) {
            let fields = manifest.as_object_mut().unwrap();
            let expected = fields.remove("_err");
            manifest["metadata"]["namespace"] = namespace.clone().into();
            let name = format!("{} {}", file.display(), manifest["metadata"]["name"]);
            let ours: Vec<String> = errors(&manifest).collect();
            let theirs = tried(&client, &manifest).await.err();
            match expected {
                Some(expected) => {
                    invalid += 1;
                    let expected = expected.as_str().unwrap();
                    let told = theirs.as_deref().unwrap_or("accepted");
                    // A field of the experimental channel, which the server drops unseen.
                    let unseen = manifest["metadata"]["name"] == "invalid-presence-value";
                    if (!told.contains(expected) && !unseen) || ours.is_empty() {
                        wrong.push(format!(
                            "{name}: {expected}\n  server: {told}\n  ours: {ours:?}"
                        ));
                    }
                }
                None => {
                    valid += 1;
                    if theirs.is_some() || !ours.is_empty() {
                        wrong.push(format!(
                            "{name}: valid\n  server: {theirs:?}\n  ours: {ours:?}"
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        valid == 5 && invalid == 28,
        "{valid} valid, {invalid} invalid"
    );
}

#[test]
fn what_istios_analyzers_tell_is_told() {
    let Some(folder) = corpus("analysis") else {
        return;
    };
    let file = folder.join("authorizationpolicies.yaml");
    let documents = Documents {
        base: vec![SourceText {
            file: "a.yaml".into(),
            bytes: std::fs::read(file).unwrap().into(),
        }],
        candidate: None,
    };
    let snapshot = compile(&documents, &Settings::default()).unwrap();
    let mut told: BTreeMap<String, Vec<(&str, String)>> = BTreeMap::new();
    for diagnostic in snapshot.diagnostics() {
        if !["PC0504", "PC0505", "PC0507", "PC0508"].contains(&diagnostic.code) {
            continue;
        }
        let of = diagnostic.resource.clone().unwrap();
        let field = diagnostic.field.clone().unwrap();
        told.entry(of).or_default().push((diagnostic.code, field));
    }
    let selector = |name: &str| {
        (
            name.to_owned(),
            vec![("PC0504", "spec.selector".to_owned())],
        )
    };
    let values = |name: &str, field: &str| {
        let at = |index| {
            (
                "PC0507",
                format!("spec.rules[0].from[1].source.{field}[{index}]"),
            )
        };
        (name.to_owned(), vec![at(2), at(3)])
    };
    let expected: BTreeMap<String, Vec<(&str, String)>> = [
        selector("AuthorizationPolicy/istio-system/meshwide-httpbin-v1"),
        selector("AuthorizationPolicy/httpbin/httpbin-nopods"),
        selector("AuthorizationPolicy/test-ambient/no-workload"),
        // Istio says that nothing runs there; the set does not have the namespace at all.
        (
            "AuthorizationPolicy/httpbin-empty/httpbin-empty-namespace-wide".to_owned(),
            vec![("PC0507", "metadata.namespace".to_owned())],
        ),
        values("AuthorizationPolicy/httpbin/httpbin-bogus-ns", "namespaces"),
        values(
            "AuthorizationPolicy/httpbin/httpbin-bogus-not-ns",
            "notNamespaces",
        ),
    ]
    .into();
    assert_eq!(told, expected);
    let policies = snapshot.policies().policies().count();
    assert_eq!(policies, 10, "every entry has its verdict");
}
