use super::*;

fn read_text(text: &str) -> (Vec<UserPolicy>, Vec<Diagnostic>) {
    let file = CedarFile {
        file: Arc::from("p.cedar"),
        text: Arc::from(text),
        namespace: None,
    };
    read(&file, "istio-system")
}

fn refused(text: &str, words: &str) {
    let (policies, diagnostics) = read_text(text);
    assert!(policies.is_empty(), "{text}");
    assert!(
        diagnostics.iter().any(|d| d.message.contains(words)),
        "{diagnostics:?}"
    );
}

const SCOPE: &str = "@selector(\"app=web\") permit(principal, action, resource)";

#[test]
fn refuses_what_would_exhaust_a_stack() {
    let parens = format!(
        "{SCOPE} when {{ {}true{} }};",
        "(".repeat(300),
        ")".repeat(300)
    );
    refused(&parens, "nested too deep");
    refused(
        &format!("{SCOPE} when {{ true{} }};", " && true".repeat(5000)),
        "nested too deep",
    );
    // A comment neither nests nor opens a text.
    let comment = format!("// {} \"\n{SCOPE};", "(".repeat(300));
    assert_eq!(read_text(&comment).0.len(), 1);
}

#[test]
fn refuses_a_misspelt_annotation() {
    refused(
        "@slector(\"app=web\") permit(principal, action, resource);",
        "no annotation",
    );
    refused(
        &format!("@dry_run(\"yes\") {SCOPE};"),
        "neither true nor false",
    );
    let other = format!("@owner(\"team-a\") {SCOPE};");
    assert_eq!(read_text(&other).0.len(), 1);
}
