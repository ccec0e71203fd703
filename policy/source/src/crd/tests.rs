//! The definitions by themselves; what an API server makes of them is tested against one.

use std::sync::Arc;

use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::document::{self, SourceText};

use super::*;

fn schema(kind: &str) -> Value {
    let all = definitions().unwrap();
    let one = all.iter().find(|d| d["spec"]["names"]["kind"] == kind);
    one.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

#[test]
fn yaml_and_json_are_the_same_three_definitions() {
    let source = SourceText {
        file: "crds.yaml".into(),
        bytes: yaml().unwrap().into_bytes().into(),
    };
    let documents = document::parse(&source).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    let documents: Vec<Value> = documents
        .iter()
        .map(document::Node::to_json)
        .filter(|document| !document.is_null())
        .collect();
    assert_eq!(Value::Array(documents), list().unwrap()["items"]);
    let names: Vec<Value> = definitions()
        .unwrap()
        .iter()
        .map(|d| d["metadata"]["name"].clone())
        .collect();
    assert_eq!(
        names,
        [
            "cedarpolicies.portcullis.dev",
            "policytests.portcullis.dev",
            "clusterspiffeids.spire.spiffe.io"
        ]
    );
}

#[test]
fn nothing_is_nullable_and_bounds_are_the_engines() {
    let text = list().unwrap().to_string();
    assert!(!text.contains("\"nullable\""));
    let cedar = schema("CedarPolicy");
    let longest = &cedar["properties"]["policies"]["maxLength"];
    assert_eq!(longest, portcullis_policy::resource::MAX_CEDAR);
    let test = schema("PolicyTest");
    let most = &test["properties"]["cases"]["maxItems"];
    assert_eq!(most, portcullis_policy::resource::MAX_CASES);
}

#[test]
fn the_types_read_what_the_engine_reads() {
    let cases =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/cases/cedar-policy");
    let read = |file: &str| {
        let source = SourceText {
            file: file.into(),
            bytes: std::fs::read(cases.join(file)).unwrap().into(),
        };
        let parsed: Result<_, Vec<Diagnostic>> = document::parse(&source);
        parsed.unwrap()
    };
    let mut policies = 0;
    for document in read("policies.yaml") {
        let json = document.to_json();
        if json["kind"] == "CedarPolicy" {
            let typed: CedarPolicy = serde_json::from_value(json.clone()).unwrap();
            let again = serde_json::to_value(&typed.spec).unwrap();
            assert_eq!(again, json["spec"]);
            policies += 1;
        }
    }
    assert!(policies >= 5);
    let [file] = &read("cases.yaml")[..] else {
        panic!("one document");
    };
    let cases = file.get("cases").unwrap().to_json();
    let typed: PolicyTestSpec = serde_json::from_value(json!({ "cases": cases })).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap()["cases"], cases);
    let name: Arc<str> = typed.cases[0].name.as_str().into();
    assert!(!name.is_empty());
}
