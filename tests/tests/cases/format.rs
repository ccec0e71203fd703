//! The files of a folder of decision cases.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_policy::compile::Documents;
use portcullis_policy::document::{self, Node, SourceText};
use portcullis_policy::settings::{CustomProvider, Settings};
use portcullis_tests::component::workspace;
use serde_json::{Map, Number, Value};

const CASES: &str = "cases.yaml";
const CANDIDATE: &str = "candidate";
const STORIES: &str = "explain";

/// Keys that describe the decision.
const WANTED: [&str; 6] = [
    "decision", "reason", "policies", "audit", "provider", "dry_run",
];

/// One folder: manifests and what is decided by them.
pub struct Folder {
    /// Path below the crate of policies, such as `cases/headers`.
    pub name: String,
    /// Its cases.
    pub cases: Vec<Case>,
    path: PathBuf,
    settings: Map<String, Value>,
}

/// One request and its decision.
pub struct Case {
    /// Finishes a sentence.
    pub name: String,
    /// CheckRequest in protobuf JSON.
    pub request: Value,
    /// How paths arrive.
    pub path: String,
    /// Target, `auto` where nothing is said.
    pub target: String,
    /// The decision.
    pub wanted: Map<String, Value>,
    /// The explanation is kept as well.
    pub explain: bool,
}

impl Case {
    /// True when the requests differ by one field, and are decided in the same way.
    pub fn is_one_field_from(&self, other: &Self) -> bool {
        let same = (&self.path, &self.target) == (&other.path, &other.target);
        same && differences(&self.request, &other.request) == 1
    }
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
        let mut documents =
            document::parse(&source(&path.join(CASES))).unwrap_or_else(|d| panic!("{name}: {d:?}"));
        assert_eq!(documents.len(), 1, "{name}: one document");
        let Value::Object(mut settings) = json(&documents.remove(0)) else {
            panic!("{name}: not an object");
        };
        let path_form = settings.remove("path");
        let target = settings.remove("target");
        let Some(Value::Array(list)) = settings.remove("cases") else {
            panic!("{name}: no `cases`");
        };
        assert!(!list.is_empty(), "{name}: no cases");
        let word = |own: Option<Value>, all: &Option<Value>, default: &str| {
            let value = own.or_else(|| all.clone());
            value.map_or_else(|| default.to_owned(), |v| v.as_str().unwrap().to_owned())
        };
        let mut cases: Vec<Case> = Vec::new();
        for case in list {
            let Value::Object(mut case) = case else {
                panic!("{name}: a case is an object");
            };
            let title = case.remove("name").expect("a name");
            let title = title.as_str().unwrap().to_owned();
            let like = case.remove("like").map(|v| v.as_str().unwrap().to_owned());
            let request = match (&like, case.remove("request"), case.remove("change")) {
                (None, Some(request), None) => request,
                (Some(like), None, Some(change)) => {
                    let before = cases.iter().find(|c| c.name == *like);
                    let before = before.unwrap_or_else(|| panic!("{name}: no case `{like}` above"));
                    let mut request = before.request.clone();
                    merge(&mut request, change);
                    assert_ne!(request, before.request, "{name}: {title}: nothing changed");
                    request
                }
                _ => panic!("{name}: {title}: either `request`, or `like` and `change`"),
            };
            let wanted = WANTED
                .iter()
                .filter_map(|key| case.remove(*key).map(|v| ((*key).to_owned(), v)))
                .collect();
            cases.push(Case {
                path: word(case.remove("path"), &path_form, "raw"),
                target: word(case.remove("target"), &target, "auto"),
                explain: case.remove("explain").is_some_and(|v| v == true),
                name: title,
                request,
                wanted,
            });
            let known = ["raw", "normalised"].contains(&cases[cases.len() - 1].path.as_str());
            assert!(known && case.is_empty(), "{name}: unknown {case:?}");
        }
        Self {
            name,
            cases,
            path: path.to_owned(),
            settings,
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
                _ => panic!("{}: unknown `{key}`", self.name),
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
    pub fn story(&self, case: &Case) -> PathBuf {
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

fn json(node: &Node) -> Value {
    match &node.value {
        document::Value::Null => Value::Null,
        document::Value::Bool(value, _) => Value::Bool(*value),
        document::Value::Integer(value, _) => Value::Number(Number::from_i128(*value).unwrap()),
        document::Value::Float(text) => serde_json::from_str(text).unwrap(),
        document::Value::String(text, _) => Value::String(text.clone()),
        document::Value::Sequence(nodes) => Value::Array(nodes.iter().map(json).collect()),
        document::Value::Mapping(entries) => {
            let entries = entries.iter().map(|e| (e.key.clone(), json(&e.value)));
            Value::Object(entries.collect())
        }
    }
}

/// JSON merge patch (RFC 7386): null removes, objects merge, everything else replaces.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let fields = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(&key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
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
