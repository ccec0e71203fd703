//! Input that is meant to break a reader: each a located error, nothing half-loaded, bounded work.

use std::fmt::Write as _;

use crate::source;
use portcullis_policy::resource::{FileResources, read};

fn read_text(text: &str) -> FileResources {
    read(&source("a.yaml", text.as_bytes()))
}

/// Code, line and column of the only diagnostic; no resource may be left.
fn refused(bytes: &[u8]) -> (&'static str, u32, u32) {
    let file = read(&source("a.yaml", bytes));
    assert!(file.resources.is_empty());
    let [diagnostic] = file.diagnostics.as_slice() else {
        panic!("{:?}", file.diagnostics);
    };
    assert!(diagnostic.is_error());
    (
        diagnostic.code,
        diagnostic.location.line,
        diagnostic.location.column,
    )
}

const POLICY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: b}
spec: {}
";

#[test]
fn encodings_and_control_characters() {
    assert_eq!(refused(b"a: b\nc: \xc3\xa9 \xff\n"), ("PC0001", 2, 6));
    assert_eq!(
        refused(
            "\u{feff}a"
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<_>>()
                .as_slice()
        )
        .0,
        "PC0001"
    );
    assert_eq!(refused(b"a: b\nc: \xc3\xa9\0\n"), ("PC0008", 2, 5));
}

#[test]
fn a_byte_order_mark_and_crlf_are_fine_and_columns_count_characters() {
    let text = format!("\u{feff}{POLICY}").replace('\n', "\r\n");
    let file = read_text(&text);
    assert_eq!(file.resources.len(), 1, "{:?}", file.diagnostics);
    let file = read_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {labels: {é: \"ü\", é2: [1]}, name: a, namespace: b}\n",
    );
    let at = &file.diagnostics[0].location;
    assert_eq!((at.line, at.column), (3, 33));
}

#[test]
fn nothing_of_a_file_with_one_broken_document_is_loaded() {
    let text = format!("{POLICY}---\n{POLICY}---\na: [\n");
    assert_eq!(refused(text.as_bytes()).0, "PC0002");
    assert_eq!(
        read_text(&format!(
            "---\n{POLICY}---\n---\n# nothing\n---\n{POLICY}...\n"
        ))
        .resources
        .len(),
        2
    );
    assert_eq!(
        read_text("").resources.len() + read_text("# a\n").diagnostics.len(),
        0
    );
}

#[test]
fn sizes_depths_and_counts_are_bounded() {
    assert_eq!(refused(&vec![b'a'; 100_000_000]).0, "PC0003");
    assert_eq!(refused(&vec![b'['; 100_000]).0, "PC0004");
    assert_eq!(refused("{\"a\":".repeat(100_000).as_bytes()).0, "PC0004");
    assert_eq!(refused("- ".repeat(100_000).as_bytes()).0, "PC0004");
    assert_eq!(refused("? ".repeat(100_000).as_bytes()).0, "PC0004");
    assert_eq!(refused("-\n".repeat(4_100_000).as_bytes()).0, "PC0003");
    let one_line = format!("{POLICY}---\n{}", "a: b, ".repeat(200_000));
    assert_eq!(refused(one_line.as_bytes()).0, "PC0002");
}

#[test]
fn aliases_are_bounded_in_values_and_in_text() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..30 {
        let _ = writeln!(bomb, "a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}]", n - 1);
    }
    assert_eq!(refused(bomb.as_bytes()).0, "PC0005");
    let long = format!(
        "a: &a \"{}\"\nb:\n{}",
        "x".repeat(1_000_000),
        "- *a\n".repeat(1000)
    );
    assert_eq!(refused(long.as_bytes()).0, "PC0005");
    let merges = format!(
        "a: &a {{{}}}\nb:\n{}",
        (0..5000).map(|n| format!("k{n}: 1, ")).collect::<String>(),
        "- <<: *a\n".repeat(5000)
    );
    assert_eq!(refused(merges.as_bytes()).0, "PC0005");
    assert_eq!(refused(b"a: &a {b: *a}\n"), ("PC0005", 1, 11));
}

#[test]
fn anchors_and_merge_keys_work_within_a_document() {
    let text = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: &meta {name: a, namespace: shop}
spec:
  selector: {matchLabels: &labels {app: web}}
  rules:
  - to: [{operation: &op {methods: [GET]}}]
  - to: [{operation: {<<: *op, paths: [/a]}}]
";
    let file = read_text(text);
    assert_eq!(file.resources.len(), 1, "{:?}", file.diagnostics);
    assert!(file.diagnostics.iter().all(|d| !d.is_error()));
    let later = text.replace("{<<: *op, paths: [/a]}", "{methods: [PUT], <<: *op}");
    assert_eq!(refused(later.as_bytes()), ("PC0007", 8, 39));
}

#[test]
fn a_file_of_mistakes_says_a_thousand_and_stops() {
    let file = read_text(&"---\na: 1\n".repeat(5000));
    assert_eq!(file.diagnostics.len(), 1001);
    assert_eq!(file.diagnostics.last().unwrap().code, "PC0029");
}

#[test]
fn long_values_are_cut_in_messages() {
    let long = "x".repeat(1_000_000);
    let key = "k".repeat(1000);
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {long}, namespace: b}}\nspec:\n  {key}: 1\n  rules:\n  - from: [{{source: {{ipBlocks: [\"{long}\"], principals: [\"spiffe://{long}\"]}}}}]\n    when: [{{key: \"{long}\", values: [a]}}]\n"
    );
    let file = read_text(&text);
    assert!(file.diagnostics.len() >= 4, "{}", file.diagnostics.len());
    for diagnostic in &file.diagnostics {
        let length = diagnostic.message.len()
            + diagnostic.hint.as_ref().map_or(0, String::len)
            + diagnostic.field.as_ref().map_or(0, String::len)
            + diagnostic.resource.as_ref().map_or(0, String::len);
        assert!(length < 3000, "{}: {length}", diagnostic.code);
    }
}
