//! The files of a folder of decision cases.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_policy::compile::Documents;
use portcullis_policy::document::SourceText;
use portcullis_policy::resource::{DecisionCase, read_case_file};
use portcullis_policy::settings::{CustomProvider, Settings};
use portcullis_tests::component::workspace;
use serde_json::{Map, Value};

const CASES: &str = "cases.yaml";
const CANDIDATE: &str = "candidate";
const STORIES: &str = "explain";

/// Keys beside the cases: what their world is.
const SETTINGS: &[&str] = &[
    "documents",
    "default_workload",
    "serving",
    "custom_providers",
];

/// One folder: manifests and what is decided by them.
pub struct Folder {
    /// Path below the crate of policies, such as `cases/headers`.
    pub name: String,
    /// Its cases.
    pub cases: Vec<DecisionCase>,
    path: PathBuf,
    settings: Map<String, Value>,
}

/// True when the requests differ by one field, and are decided in the same way.
pub fn one_field_apart(one: &DecisionCase, other: &DecisionCase) -> bool {
    (one.path_form, one.target) == (other.path_form, other.target)
        && differences(&one.request, &other.request) == 1
}

fn root() -> PathBuf {
    workspace().join("policies")
}

/// Every folder below `policies/cases` that has cases, by name.
pub fn folders() -> Vec<Folder> {
    let mut found = Vec::new();
    let mut open = vec![root().join("cases")];
    while let Some(path) = open.pop() {
        if path.join(CASES).is_file() {
            found.push(Folder::read(&path));
            continue;
        }
        let inner = entries(&path);
        assert!(!inner.is_empty(), "{} is empty", path.display());
        for entry in inner {
            assert!(entry.is_dir(), "{} is of no case", entry.display());
            open.push(entry);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Stories kept for a folder.
pub fn stories(folder: &Folder) -> Vec<PathBuf> {
    let path = folder.path.join(STORIES);
    if path.is_dir() {
        entries(&path)
    } else {
        Vec::new()
    }
}

fn entries(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.sort();
    all
}

fn name(path: &Path) -> String {
    let relative = path.strip_prefix(root()).unwrap();
    relative.to_str().unwrap().replace('\\', "/")
}

fn source(path: &Path) -> SourceText {
    SourceText {
        file: Arc::from(name(path)),
        bytes: fs::read(path).unwrap().into(),
    }
}

/// The files at `path`: itself, or those in it, in order.
fn sources(path: &Path) -> Vec<SourceText> {
    if path.is_file() {
        return vec![source(path)];
    }
    let files = entries(path);
    let files = files.iter().filter(|f| f.is_file() && !f.ends_with(CASES));
    files.map(|f| source(f)).collect()
}

impl Folder {
    fn read(path: &Path) -> Self {
        let name = name(path);
        let source = source(&path.join(CASES));
        let file = read_case_file(&source, SETTINGS).unwrap_or_else(|diagnostics| {
            let lines: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
            panic!("{}", lines.join("\n"))
        });
        Self {
            name,
            cases: file.cases,
            path: path.to_owned(),
            settings: file.settings,
        }
    }

    /// Documents and settings. The documents are the other files of the folder, those of the paths
    /// under `documents`, and, on trial, those of `candidate/`.
    pub fn documents(&self) -> (Documents, Settings) {
        let mut base = sources(&self.path);
        let mut settings = Settings::default();
        for (key, value) in &self.settings {
            match key.as_str() {
                "documents" => {
                    for path in value.as_array().unwrap() {
                        base.extend(sources(&root().join(path.as_str().unwrap())));
                    }
                }
                "default_workload" => {
                    settings.default_workload = Some(value.as_str().unwrap().to_owned());
                }
                "serving" => settings.serving = value.as_bool().unwrap(),
                "custom_providers" => settings.custom_providers = providers(value),
                _ => panic!("{}: nobody reads `{key}`", self.name),
            }
        }
        assert!(!base.is_empty(), "{}: no documents", self.name);
        let candidate = self.path.join(CANDIDATE);
        let documents = Documents {
            base,
            candidate: candidate.is_dir().then(|| sources(&candidate)),
        };
        (documents, settings)
    }

    /// Where the explanation of a case is kept.
    pub fn story(&self, case: &DecisionCase) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let slug: String = case.name.to_lowercase().chars().map(plain).collect();
        self.path.join(STORIES).join(format!("{slug}.json"))
    }
}

fn providers(value: &Value) -> BTreeMap<String, CustomProvider> {
    let provider = |word: &Value| match word.as_str().unwrap() {
        "self" => CustomProvider::Own,
        "proxy" => CustomProvider::Proxy,
        "call" => CustomProvider::Call,
        other => panic!("no such provider: {other}"),
    };
    let map = value.as_object().unwrap();
    map.iter().map(|(k, v)| (k.clone(), provider(v))).collect()
}

/// Fields in which two requests differ; a whole object that one of them lacks is one field, and so is
/// a list.
fn differences(a: &Value, b: &Value) -> usize {
    let (Value::Object(one), Value::Object(two)) = (a, b) else {
        return usize::from(a != b);
    };
    let shared: usize = one
        .iter()
        .filter_map(|(key, value)| Some(differences(value, two.get(key)?)))
        .sum();
    let only = |x: &Map<String, Value>, y: &Map<String, Value>| {
        x.keys().filter(|key| !y.contains_key(*key)).count()
    };
    shared + only(one, two) + only(two, one)
}
