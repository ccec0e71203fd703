//! Manifests and the diagnostics that they raise, to the letter.
//!
//! `cases/NAME.yaml` (or `.json`) is read and linted; `cases/NAME.expected` is what a person sees.
//! `UPDATE_EXPECT=1` writes what is seen now.

use std::fs;

use crate::{source, workspace};
use portcullis_policy::diagnostic::Renderer;
use portcullis_policy::lint::lint;
use portcullis_policy::resource::read;

fn rendered(name: &str, bytes: &[u8]) -> String {
    let file = read(&source(name, bytes));
    let mut diagnostics = file.diagnostics;
    diagnostics.extend(lint(
        &file.resources,
        "istio-system",
        &["cluster.local".to_owned()],
    ));
    let text = String::from_utf8_lossy(bytes);
    let renderer = Renderer::new(&text);
    let mut out = format!("{} resources\n", file.resources.len());
    for diagnostic in &diagnostics {
        out.push('\n');
        out.push_str(&renderer.render(diagnostic));
    }
    out
}

#[test]
fn manifests_raise_exactly_these_diagnostics() {
    let folder = workspace("policy/tests/documents/cases");
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e != "expected"))
        .collect();
    names.sort();
    assert!(names.len() > 10, "{}", folder.display());
    let mut wrong = Vec::new();
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap();
        let seen = rendered(name, &fs::read(&path).unwrap());
        let expected = path.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&expected, &seen).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if seen != expected {
            wrong.push(format!(
                "== {name}\n-- expected\n{expected}\n-- seen\n{seen}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
