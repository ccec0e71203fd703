//! The table of conformance names tests that exist.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test stops at the first surprise"
)]

use std::fs;
use std::path::{Path, PathBuf};

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn every_row_names_tests_that_exist() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in ["ca/src", "ca/tests", "tests/tests", "cli/tests"] {
        rust_files(&workspace.join(folder), &mut files);
    }
    let sources: String = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let page = fs::read_to_string(workspace.join("docs/spiffe-conformance.md")).unwrap();
    let (mut rows, mut wrong) = (0, Vec::new());
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, clause, level, _, tests, _] = cells[..] else {
            continue;
        };
        if !clause.contains('§') {
            continue;
        }
        rows += 1;
        if !level.split(", ").all(|one| ["M", "S", "m"].contains(&one)) {
            wrong.push(format!("{clause}: level `{level}`"));
        }
        for test in tests.split(", ") {
            let name = test.trim_matches('`');
            if name.is_empty() || !sources.contains(&format!("fn {name}(")) {
                wrong.push(format!("{clause}: there is no test `{name}`"));
            }
        }
    }
    assert!(rows > 30, "{rows} rows are read");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
