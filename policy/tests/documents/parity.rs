//! What Istio's webhook refuses is an error, and nothing else of these sets is.

use serde_json::Value;

use crate::{source, workspace};
use portcullis_policy::resource::read;

/// Names of the policies with an error, by our reading of one set.
fn refused(set: &Value) -> Vec<String> {
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": set["policies"]});
    let text = serde_json::to_vec(&list).unwrap();
    let file = read(&source("set.json", &text));
    let mut names: Vec<String> = file
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .map(|diagnostic| {
            diagnostic
                .resource
                .clone()
                .unwrap_or_else(|| panic!("{diagnostic:?}"))
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn sets(file: &str) -> Vec<Value> {
    let path = workspace("tests/corpora/real-envoy").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn errors_are_exactly_what_the_webhook_refuses() {
    let mut checked = 0;
    for set in sets("cases.jsonl") {
        let mut expected: Vec<String> = set["validation"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|verdict| verdict["error"].is_string())
            .map(|verdict| {
                format!(
                    "AuthorizationPolicy/{}",
                    verdict["policy"].as_str().unwrap()
                )
            })
            .collect();
        expected.sort();
        assert_eq!(refused(&set), expected, "{}", set["id"]);
        checked += 1;
    }
    assert_eq!(checked, 220);
}

#[test]
fn every_set_that_aborts_envoy_is_an_error() {
    for set in sets("aborts-envoy.jsonl") {
        assert_eq!(refused(&set).len(), 1, "{}", set["id"]);
    }
}
