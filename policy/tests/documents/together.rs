//! The lint as a compilation runs it: documents and configuration together.

use crate::source;
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::settings::{DeclaredWorkload, Settings};

fn codes(text: &str, settings: &Settings) -> Vec<&'static str> {
    let documents = Documents {
        base: vec![source("a.yaml", text.as_bytes())],
        candidate: None,
    };
    let diagnostics = match compile(&documents, settings) {
        Ok(snapshot) => snapshot.diagnostics().to_vec(),
        Err(diagnostics) => diagnostics,
    };
    diagnostics.iter().map(|d| d.code).collect()
}

const POLICY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{}]
";
const POD: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api}}
";

#[test]
fn declared_workloads_count_as_there() {
    let text = format!("{POLICY}{POD}");
    let mut settings = Settings::default();
    assert_eq!(codes(&text, &settings), ["PC0504"]);
    settings.workloads.push(DeclaredWorkload {
        namespace: "shop".to_owned(),
        name: "vm".to_owned(),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        ..DeclaredWorkload::default()
    });
    assert!(codes(&text, &settings).is_empty());
}

#[test]
fn an_object_that_stands_twice_never_reaches_a_snapshot() {
    let documents = Documents {
        base: vec![
            source("a.yaml", POLICY.as_bytes()),
            source("b.yaml", POLICY.as_bytes()),
        ],
        candidate: None,
    };
    let refused = compile(&documents, &Settings::default()).err().unwrap();
    assert_eq!(refused[0].code, "PC0503");
    assert_eq!(&*refused[0].location.file, "b.yaml");
    let candidate = Documents {
        base: vec![source("a.yaml", POLICY.as_bytes())],
        candidate: Some(vec![source("b.yaml", POLICY.as_bytes())]),
    };
    assert!(
        compile(&candidate, &Settings::default()).is_ok(),
        "a candidate replaces its namesake"
    );
}
