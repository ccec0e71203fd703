//! Golden pairs: a manifest and the Cedar policies it is translated to (tests/golden/TOPIC/NAME).
//!
//! `NAME.yaml` holds one case of a field, form or action; `NAME.cedar` all of `Snapshot::translate()`
//! in order. Both the text and the policies it parses to must be equal, and the text must be valid by
//! the shipped schema. `UPDATE_GOLDEN=1 cargo test -p portcullis-policy --test golden` writes the
//! `.cedar` files anew: read the difference before it is committed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use cedar_policy::{PolicySet, Schema, ValidationMode, Validator};
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::document::SourceText;
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::{Snapshot, TranslatedPolicy};

/// Topic whose manifests the webhook refuses; they are lowered as istiod would have.
const BYPASSED: &str = "bypassed";

/// Policies that stand for what no manifest spells out.
const OURS: [&str; 3] = ["no-allow-policy", "identity-required", "token-verified"];

/// Every field of `source` and `operation`; the negated form is `not` and the field.
const FIELDS: [&str; 11] = [
    "principals",
    "requestPrincipals",
    "namespaces",
    "serviceAccounts",
    "trustDomains",
    "ipBlocks",
    "remoteIpBlocks",
    "hosts",
    "ports",
    "methods",
    "paths",
];

/// Every key of `when`; those with brackets up to them.
const KEYS: [&str; 15] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.headers[",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "experimental.envoy.filters.",
];

struct Case {
    /// `topic/name`.
    name: String,
    yaml: PathBuf,
}

impl Case {
    fn cedar(&self) -> PathBuf {
        self.yaml.with_extension("cedar")
    }

    fn compile(&self, accept_invalid: bool) -> Result<Snapshot, Vec<Diagnostic>> {
        let documents = Documents {
            base: vec![SourceText {
                file: Arc::from(format!("{}.yaml", self.name)),
                bytes: fs::read(&self.yaml).unwrap().into(),
            }],
            candidate: None,
        };
        let settings = Settings {
            accept_invalid,
            ..Settings::default()
        };
        compile(&documents, &settings)
    }

    fn translate(&self) -> Vec<TranslatedPolicy> {
        let bypassed = self.name.starts_with(BYPASSED);
        let snapshot = self.compile(bypassed).unwrap_or_else(|diagnostics| {
            let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
            panic!("{} is refused:\n{}", self.name, lines.join("\n"))
        });
        assert!(
            !bypassed || self.compile(false).is_err(),
            "{} would pass the webhook",
            self.name
        );
        snapshot.translate()
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Files below `tests/golden` with this extension, as `topic/name`.
fn files(extension: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for topic in fs::read_dir(folder()).unwrap() {
        let topic = topic.unwrap().path();
        for file in fs::read_dir(&topic).unwrap() {
            let path = file.unwrap().path();
            let known = path
                .extension()
                .is_some_and(|e| e == "yaml" || e == "cedar");
            assert!(known, "{} is neither manifest nor Cedar", path.display());
            if path.extension().is_some_and(|e| e == extension) {
                let name = path.strip_prefix(folder()).unwrap().with_extension("");
                found.insert(name.to_str().unwrap().to_owned(), path);
            }
        }
    }
    found
}

static CASES: LazyLock<Vec<(Case, Vec<TranslatedPolicy>)>> = LazyLock::new(|| {
    let cases = files("yaml");
    assert!(!cases.is_empty(), "there are golden pairs");
    cases
        .into_iter()
        .map(|(name, yaml)| {
            let case = Case { name, yaml };
            let policies = case.translate();
            (case, policies)
        })
        .collect()
});

/// All policies as one text; every one carries its id as an annotation.
fn text(policies: &[TranslatedPolicy]) -> String {
    let texts: Vec<&str> = policies.iter().map(|p| p.cedar.trim_end()).collect();
    format!("{}\n", texts.join("\n\n"))
}

/// Policies by their `@id`, in Cedar's own JSON: equal trees, whatever the layout.
fn parsed(name: &str, text: &str) -> BTreeMap<String, serde_json::Value> {
    let set: PolicySet = text
        .parse()
        .unwrap_or_else(|e| panic!("{name} is no Cedar: {e:?}"));
    let policies: BTreeMap<_, _> = set
        .policies()
        .map(|p| {
            let id = p.annotation("id").unwrap_or_default().to_owned();
            (id, p.to_json().unwrap())
        })
        .collect();
    assert_eq!(
        policies.len(),
        set.policies().count(),
        "{name}: ids are unique"
    );
    policies
}

fn update() -> bool {
    let wanted = std::env::var("UPDATE_GOLDEN").is_ok_and(|v| v == "1");
    assert!(
        !(wanted && std::env::var("CI").is_ok_and(|v| v == "true")),
        "golden files are not written in CI"
    );
    wanted
}

#[test]
fn each_manifest_is_translated_to_its_golden_cedar() {
    let update = update();
    let mut differ = Vec::new();
    for (case, policies) in CASES.iter() {
        let now = text(policies);
        if update {
            fs::write(case.cedar(), &now).unwrap();
            continue;
        }
        let golden = fs::read_to_string(case.cedar())
            .unwrap_or_else(|e| panic!("{}.cedar: {e}; run with UPDATE_GOLDEN=1", case.name));
        let (a, b) = (parsed(&case.name, &golden), parsed(&case.name, &now));
        let ids: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        let ids: Vec<_> = ids
            .into_iter()
            .filter(|id| a.get(*id) != b.get(*id))
            .collect();
        if !ids.is_empty() {
            differ.push(format!("{}: policies differ: {ids:?}", case.name));
        } else if golden != now {
            differ.push(format!(
                "{}: the same policies, printed differently",
                case.name
            ));
        }
    }
    assert!(
        differ.is_empty(),
        "{}\nif that is meant, run with UPDATE_GOLDEN=1 and read the difference",
        differ.join("\n")
    );
}

#[test]
fn no_golden_cedar_is_left_without_its_manifest() {
    let manifests = files("yaml");
    let stale: Vec<_> = files("cedar")
        .into_iter()
        .filter(|(name, _)| !manifests.contains_key(name))
        .collect();
    if update() {
        stale
            .iter()
            .for_each(|(_, path)| fs::remove_file(path).unwrap());
    } else {
        let names: Vec<_> = stale.iter().map(|(name, _)| name).collect();
        assert!(names.is_empty(), "without manifest: {names:?}");
    }
}

#[test]
fn translated_text_is_valid_by_the_shipped_schema() {
    let (schema, _) = Schema::from_cedarschema_str(portcullis_policies::SCHEMA).unwrap();
    let validator = Validator::new(schema);
    for (case, policies) in CASES.iter() {
        let ids: Vec<String> = parsed(&case.name, &text(policies)).into_keys().collect();
        let mut told: Vec<String> = policies.iter().map(|p| p.id.clone()).collect();
        told.sort();
        assert_eq!(ids, told, "{}: `@id` is the id", case.name);
        let set = text(policies).parse().unwrap();
        let result = validator.validate(&set, ValidationMode::Strict);
        let errors: Vec<String> = result
            .validation_errors()
            .map(ToString::to_string)
            .collect();
        assert!(errors.is_empty(), "{}: {errors:?}", case.name);
    }
}

#[test]
fn each_translated_policy_names_the_place_of_its_rule() {
    for (case, policies) in CASES.iter() {
        let lines: Vec<String> = fs::read_to_string(&case.yaml)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        for policy in policies {
            let at = &policy.origin;
            if OURS.contains(&policy.id.as_str()) {
                assert_eq!(at.line, 0, "no manifest spells {} out", policy.id);
                continue;
            }
            assert_eq!(&*at.file, format!("{}.yaml", case.name), "{}", policy.id);
            let line = &lines[at.line as usize - 1];
            let from: String = line.chars().skip(at.column as usize - 1).collect();
            // A rule starts with its first key, its own braces, or null; without rules the
            // document stands for it.
            let starts = ["from:", "to:", "when:", "{}", "apiVersion:"];
            assert!(
                starts.iter().any(|s| from.starts_with(s)),
                "{} stands at {at}: `{line}`",
                policy.id
            );
        }
    }
}

#[test]
fn every_field_key_and_action_has_a_golden_pair() {
    let mut all = String::new();
    for (case, _) in CASES.iter() {
        all.push_str(&fs::read_to_string(&case.yaml).unwrap());
    }
    let mut missing = Vec::new();
    for field in FIELDS {
        let (first, rest) = field.split_at(1);
        let negated = format!("not{}{rest}", first.to_uppercase());
        for name in [field, &negated] {
            if !all.contains(&format!(" {name}: [")) {
                missing.push(name.to_owned());
            }
        }
    }
    for key in KEYS {
        let plain = format!("key: {key}");
        let quoted = format!("key: \"{key}");
        if !all.contains(&plain) && !all.contains(&quoted) {
            missing.push(key.to_owned());
        }
    }
    for action in ["ALLOW", "DENY", "AUDIT", "CUSTOM"] {
        if !all.contains(&format!("action: {action}")) {
            missing.push(action.to_owned());
        }
    }
    assert!(missing.is_empty(), "without golden pair: {missing:?}");
}
