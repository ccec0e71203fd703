//! Our own kinds: CedarPolicy and PolicyTest as documents.

use crate::source;
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::resource::{Resource, read};
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::Snapshot;

fn compiled(file: &str, text: &str) -> Result<Snapshot, Vec<Diagnostic>> {
    let documents = Documents {
        base: vec![source(file, text.as_bytes())],
        candidate: None,
    };
    compile(&documents, &Settings::default())
}

fn diagnostics(file: &str, text: &str) -> Vec<Diagnostic> {
    match compiled(file, text) {
        Ok(snapshot) => snapshot.diagnostics().to_vec(),
        Err(found) => found,
    }
}

/// `CODE line:column field message` of the only diagnostic.
#[track_caller]
fn only(text: &str) -> String {
    let found = diagnostics("a.yaml", text);
    let [one] = found.as_slice() else {
        panic!("{found:#?}");
    };
    let at = &one.location;
    let field = one.field.as_deref().unwrap_or_default();
    format!(
        "{} {}:{} {field} {}",
        one.code, at.line, at.column, one.message
    )
}

const HEAD: &str = "apiVersion: portcullis.dev/v1alpha1
kind: CedarPolicy
metadata: {name: web, namespace: shop}
spec:
";

/// A policy of `shop/web` with these lines under `policies: |`.
fn policy(lines: &str) -> String {
    let block: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("{HEAD}  selector: {{matchLabels: {{app: web}}}}\n  policies: |\n{block}")
}

#[test]
fn a_mistake_in_a_block_is_told_by_its_line_and_column_in_the_file() {
    let text = policy("// the first line\npermit (principal, action, resource)\nwhen { oops };");
    assert_eq!(
        only(&text).split(" spec.policies ").next().unwrap(),
        "PC0601 9:12"
    );
    // Strict validation speaks of a policy.
    let text = policy(
        "permit (principal, action == Action::\"http\", resource);\n\nforbid (principal, action == Action::\"http\", resource)\nwhen { context.http.verb == \"GET\" };",
    );
    assert!(
        only(&text).starts_with("PC0602 9:5 spec.policies "),
        "{}",
        only(&text)
    );
}

#[test]
fn a_mistake_in_a_quoted_text_is_told_by_its_line_in_the_field() {
    let json = serde_json::json!({
        "apiVersion": "portcullis.dev/v1alpha1",
        "kind": "CedarPolicy",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"policies": "// one\npermit (principal, action, resource)\nwhen { oops };"},
    });
    let found = diagnostics("a.json", &json.to_string());
    let [one] = found.as_slice() else {
        panic!("{found:#?}");
    };
    assert!(one.message.starts_with("line 3, column 8: "), "{one:?}");
    assert_eq!(one.resource.as_deref(), Some("CedarPolicy/shop/web"));
    assert_eq!(one.field.as_deref(), Some("spec.policies"));
}

#[test]
fn what_contradicts_the_object_is_refused() {
    for (lines, words) in [
        (
            "@namespace(\"bank\")\npermit (principal, action, resource);",
            "`@namespace(\"bank\")` in a CedarPolicy of `shop`",
        ),
        (
            "@id(\"rule[0]\")\npermit (principal, action, resource);",
            "is no name",
        ),
        (
            "@id(\"\")\npermit (principal, action, resource);",
            "no name",
        ),
    ] {
        let told = only(&policy(lines));
        assert!(
            told.starts_with("PC0604 7:5 ") && told.contains(words),
            "{told}"
        );
    }
    // Its own namespace may be said.
    let text = policy("@namespace(\"shop\")\npermit (principal, action, resource);");
    assert!(diagnostics("a.yaml", &text).is_empty());
    let twice = "@id(\"a\")\npermit (principal, action, resource);";
    let told = only(&policy(&format!("{twice}\n{twice}")));
    assert!(told.starts_with("PC0607 9:5 "), "{told}");
}

#[test]
fn a_scope_that_the_namespace_excludes_is_told() {
    for scope in [
        "resource in Namespace::\"bank\"",
        "resource == Workload::\"bank/web\"",
    ] {
        let told = only(&policy(&format!("forbid (principal, action, {scope});")));
        assert!(told.starts_with("PC0608 7:5 spec.policies "), "{told}");
    }
    let text = policy("forbid (principal, action, resource in Namespace::\"shop\");");
    assert!(diagnostics("a.yaml", &text).is_empty());
}

#[test]
fn the_text_confines_a_policy_to_what_its_object_selects() {
    let cedar = |text: &str| {
        let snapshot = compiled("a.yaml", text).unwrap();
        let mut all = snapshot.translate().into_iter();
        all.find(|p| p.id.starts_with("shop/web#")).unwrap().cedar
    };
    let labels = cedar(&policy("permit (principal, action, resource);"));
    assert!(
        labels.contains("resource in Namespace::\"shop\"")
            && labels.contains("resource.getTag(\"app\") == \"web\""),
        "{labels}"
    );
    let targeted = format!(
        "{HEAD}  targetRefs: [{{kind: Service, name: api}}]\n  policies: permit (principal, action, resource);\n"
    );
    let targeted = cedar(&targeted);
    assert!(
        targeted.contains("resource in Attachment::\"shop/web\""),
        "{targeted}"
    );
}

#[test]
fn a_cedar_policy_is_checked_as_the_api_server_checks_it() {
    let body = "  policies: permit (principal, action, resource);\n";
    for (spec, starts) in [
        ("", "PC0022 "),
        ("  polices: x\n", "PC0020 "),
        ("  policies: ''\n", "PC0035 "),
        ("  policies: [a]\n", "PC0021 "),
        (
            "  selector: {matchLabels: {a: b}}\n  targetRefs: [{kind: Service, name: b}]\n",
            "PC0030 ",
        ),
        ("  targetRef: {kind: Service, name: b}\n", "PC0020 "),
        ("  targetRefs: [{kind: Pod, name: b}]\n", "PC0033 "),
        ("  selector: {matchLabels: {a: 'b*'}}\n", "PC0031 "),
    ] {
        let whole = if spec.contains("polic") || spec.is_empty() {
            format!("{HEAD}{spec}")
        } else {
            format!("{HEAD}{spec}{body}")
        };
        let found = diagnostics("a.yaml", &whole);
        assert!(
            found
                .iter()
                .any(|d| d.is_error() && starts.trim_end() == d.code),
            "{whole}{found:#?}"
        );
    }
    let long = policy(&format!("// {}", "x".repeat(70_000)));
    assert!(only(&long).starts_with("PC0024 "));
    let version = HEAD.replace("v1alpha1", "v1") + body;
    assert!(only(&version).starts_with("PC0012 "));
    let group = HEAD.replace("portcullis.dev", "portculis.dev") + body;
    assert!(
        only(&group).contains("did you mean `apiVersion: portcullis.dev/v1alpha1`?")
            || only(&group).starts_with("PC0016 ")
    );
    let kind = HEAD.replace("CedarPolicy", "CedarPolice") + body;
    assert!(only(&kind).starts_with("PC0012 "));
}

const TEST: &str = "apiVersion: portcullis.dev/v1alpha1
kind: PolicyTest
metadata: {name: web, namespace: shop}
spec:
  target: sidecar
  cases:
  - name: a GET is allowed
    request: {attributes: {request: {http: {method: GET, path: /, host: web}}}}
    decision: allow
    reason: no_allow_policy
";

#[test]
fn a_test_keeps_its_cases_with_the_changes_made() {
    let text = format!(
        "{TEST}  - name: a PUT is allowed
    like: a GET is allowed
    change: {{attributes: {{request: {{http: {{method: PUT, host: null}}}}}}}}
    decision: allow
    reason: no_allow_policy
    target: gateway
"
    );
    let read = read(&source("a.yaml", text.as_bytes()));
    assert!(read.diagnostics.is_empty(), "{:#?}", read.diagnostics);
    let [test] = read.resources.as_slice() else {
        panic!("{read:#?}");
    };
    let Resource::PolicyTest(test) = test.as_ref() else {
        panic!("{test:#?}");
    };
    let [_, put] = test.cases.as_slice() else {
        panic!("{test:#?}");
    };
    assert_eq!(
        put.request,
        serde_json::json!({"attributes": {"request": {"http": {"method": "PUT", "path": "/"}}}})
    );
    assert_eq!(put.field, "spec.cases[1]");
    assert_eq!((put.at.line, put.at.column), (11, 5));
    assert_eq!(put.target.unwrap().as_str(), "gateway");
}

#[test]
fn a_test_is_read_strictly() {
    let second = |rest: &str| format!("{TEST}  - name: second\n{rest}");
    let end = "    decision: allow\n    reason: no_allow_policy\n";
    for (text, starts) in [
        (TEST.replace("spec:\n", "spec:\n  cass: 1\n"), "PC0020 5:3"),
        (TEST.replace("sidecar", "sidecart"), "PC0023 5:11"),
        (TEST.replace("    decision: allow\n", ""), "PC0022 7:5"),
        (
            TEST.replace("no_allow_policy", "no_allow_polic"),
            "PC0023 10:13",
        ),
        (
            TEST.replace("decision: allow", "decision: deny"),
            "PC0704 10:13",
        ),
        (
            second(&format!("    request: {{}}\n    chang: {{}}\n{end}")),
            "PC0020 13:5",
        ),
        (
            second(&format!("    change: {{a: 1}}\n{end}")),
            "PC0701 11:5",
        ),
        (
            second(&format!(
                "    like: a GET is alowed\n    change: {{a: 1}}\n{end}"
            )),
            "PC0703 12:11",
        ),
        (
            second(&format!(
                "    like: a GET is allowed\n    change: {{}}\n{end}"
            )),
            "PC0703 13:13",
        ),
        (
            second(end).replace("second", "a GET is allowed"),
            "PC0702 11:11",
        ),
        (format!("{TEST}  - 7\n"), "PC0021 11:5"),
    ] {
        let told = only(&text);
        assert!(told.starts_with(starts), "{text}{told}");
    }
    let empty = TEST
        .split("  - name")
        .next()
        .unwrap()
        .replace("cases:", "cases: []");
    assert!(only(&empty).starts_with("PC0022 "));
}

#[test]
fn changes_of_a_large_request_stay_within_bounds() {
    let mut text = TEST.replace("host: web", &format!("host: {}", "w".repeat(1 << 20)));
    for index in 0..40 {
        text.push_str(&format!(
            "  - name: change {index}\n    like: a GET is allowed\n    change: {{attributes: {{request: {{http: {{method: M{index}}}}}}}}}\n    decision: allow\n    reason: no_allow_policy\n"
        ));
    }
    let found = diagnostics("a.yaml", &text);
    assert!(
        found.iter().all(|d| d.code == "PC0024") && !found.is_empty(),
        "{:#?}",
        found.first()
    );
    let many = TEST.to_owned() + &"  - name: x\n".repeat(500);
    assert!(only(&many).starts_with("PC0024 "));
}
