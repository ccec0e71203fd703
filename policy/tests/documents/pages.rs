//! docs/diagnostics and the registry of codes say the same, and each page's example raises its code.

use std::collections::BTreeSet;
use std::fs;

use crate::{source, workspace};
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::diagnostic::code::{self, Code};
use portcullis_policy::live::{Change, ObjectKey, Store, is_effect};
use portcullis_policy::settings::Settings;

fn page(code: &Code) -> String {
    let path = workspace("docs/diagnostics").join(format!("{}.md", code.id));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let pages: BTreeSet<String> = fs::read_dir(workspace("docs/diagnostics"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("PC"))
        .collect();
    let codes: BTreeSet<String> = code::ALL.iter().map(|c| format!("{}.md", c.id)).collect();
    assert_eq!(pages, codes);
    assert_eq!(codes.len(), code::ALL.len(), "a code stands twice");
}

#[test]
fn pages_and_index_say_what_the_registry_says() {
    let index = fs::read_to_string(workspace("docs/diagnostics/README.md")).unwrap();
    for code in code::ALL {
        let expected = format!(
            "# {}: {}\n\n*{:?}.* {}\n",
            code.id, code.title, code.severity, code.explanation
        );
        assert!(page(code).starts_with(&expected), "{expected}");
        let line = format!(
            "| [{0}]({0}.md) | {1:?} | {2} |",
            code.id, code.severity, code.title
        );
        assert!(index.contains(&line), "{line}");
    }
}

/// The page's example, each block under a file name that says what it is.
fn example(page: &str) -> Vec<(&'static str, String)> {
    let Some((_, example)) = page.split_once("## Example\n") else {
        return Vec::new();
    };
    let (example, _) = example.split_once("\n## What to do").unwrap();
    let fences = [
        ("```yaml\n", "example.yaml"),
        ("```cedar\n", "example.cedar"),
    ];
    fences
        .iter()
        .filter_map(|(fence, file)| {
            let (_, rest) = example.split_once(fence)?;
            Some((*file, rest.split_once("```").unwrap().0.to_owned()))
        })
        .collect()
}

/// Input for codes whose example is no text that a page could hold.
fn generated(id: &str) -> Option<(Vec<u8>, Settings)> {
    let mut settings = Settings::default();
    let bytes = match id {
        "PC0001" => b"a: caf\xe9\n".to_vec(),
        "PC0003" => vec![b' '; 100_000_000],
        "PC0004" => "a: "
            .bytes()
            .chain(std::iter::repeat_n(b'[', 1000))
            .collect(),
        "PC0008" => b"a: \0\n".to_vec(),
        "PC0029" => "---\na: 1\n".repeat(1001).into_bytes(),
        "PC0403" => {
            settings.default_workload = Some("shop/wob".to_owned());
            Vec::new()
        }
        "PC0501" => {
            settings.mesh.trust_domain = Some("td2".to_owned());
            b"kind: MeshConfig\ntrustDomain: td1\n".to_vec()
        }
        _ => return None,
    };
    Some((bytes, settings))
}

/// What a change of the example's last document brings: it is applied to the others, or deleted.
fn effects(code: &Code, text: &str) -> Vec<Diagnostic> {
    let objects: Vec<(ObjectKey, &str)> = text
        .split("---\n")
        .map(|document| {
            let value = |field: &str| {
                let mut lines = document.lines().map(str::trim);
                let found = lines.find_map(|line| line.strip_prefix(field));
                found.unwrap_or_default().trim().to_owned()
            };
            let api = value("apiVersion:");
            let group = api.split_once('/').map_or("", |(group, _)| group);
            let (kind, namespace, name) = (value("kind:"), value("namespace:"), value("name:"));
            (ObjectKey::new(group, &kind, &namespace, &name), document)
        })
        .collect();
    let apply = |(key, document): &(ObjectKey, &str)| Change::Apply {
        key: key.clone(),
        text: source(&key.file(), document.as_bytes()),
    };
    let (last, others) = objects.split_last().unwrap();
    let mut store = Store::new(Settings::default());
    store.change(others.iter().map(apply));
    let change = if [&code::CLOSES, &code::DENIES_ALL].contains(&code) {
        apply(last)
    } else {
        store.change([apply(last)]);
        Change::Delete(last.0.clone())
    };
    store.propose(&[change]).unwrap().diagnostics
}

#[test]
fn the_example_of_every_page_raises_its_code() {
    for code in code::ALL {
        // Stands for defects: nothing is known to raise it.
        if *code == &code::INTERNAL {
            continue;
        }
        // Raised by whoever knows what a CheckRequest is; held against its pages where the cases are run.
        if [&code::CASE_REQUEST, &code::CASE_FAILS].contains(code) {
            continue;
        }
        let mut settings = Settings::default();
        let mut base: Vec<_> = example(&page(code))
            .iter()
            .map(|(file, text)| source(file, text.as_bytes()))
            .collect();
        if base.is_empty() {
            let (bytes, other) =
                generated(code.id).unwrap_or_else(|| panic!("{}: no example", code.id));
            base.push(source("example.yaml", &bytes));
            settings = other;
        }
        let of_change = is_effect(&code.at(Default::default(), ""));
        let text = base.first().map(|first| first.bytes.to_vec());
        let documents = Documents {
            base,
            candidate: None,
        };
        let diagnostics = match compile(&documents, &settings) {
            _ if of_change => effects(code, &String::from_utf8(text.unwrap()).unwrap()),
            Ok(snapshot) => snapshot.diagnostics().to_vec(),
            Err(diagnostics) => diagnostics,
        };
        let found = diagnostics.iter().find(|d| d.code == code.id);
        let Some(found) = found else {
            panic!("{}: {diagnostics:#?}", code.id);
        };
        assert!(found.severity >= code.severity, "{found:?}");
    }
}
