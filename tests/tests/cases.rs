//! Decision cases: every folder of `policies/cases`, decided as the command line decides.
//!
//! A case is a request in Envoy's own CheckRequest and all of the decision that it must get: verdict,
//! reason, policies, audit, provider and dry-run. A denial for another reason fails, and so does an
//! allow without a neighbour that is denied for one changed field. policies/README.md has the format.
//! Cases with `explain: true` are told too, and held against `explain/NAME.json`, which
//! `UPDATE_GOLDEN=1 cargo test -p portcullis-tests --test cases` writes anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is a failed test"
)]

#[path = "cases/format.rs"]
mod format;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use portcullis_authz::{check_request, decide, facts};
use portcullis_policy::compile::compile;
use portcullis_policy::request::PathForm;
use portcullis_policy::snapshot::Snapshot;
use serde_json::{Value, json};
use tonic::metadata::MetadataMap;

use format::{Case, Folder};

static FOLDERS: LazyLock<Vec<(Folder, Arc<Snapshot>)>> = LazyLock::new(|| {
    format::folders()
        .into_iter()
        .map(|folder| {
            let (documents, settings) = folder.documents();
            let snapshot = compile(&documents, &settings).unwrap_or_else(|diagnostics| {
                let lines: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
                panic!("{}: {}", folder.name, lines.join("\n"))
            });
            (folder, Arc::new(snapshot))
        })
        .collect()
});

fn options(case: &Case, snapshot: &Snapshot) -> facts::Options {
    facts::Options {
        path_form: match case.path.as_str() {
            "normalised" => PathForm::Normalised,
            _ => PathForm::Raw,
        },
        target: match case.target.as_str() {
            "auto" => None,
            target => Some(target.parse().unwrap()),
        },
        num_trusted_proxies: snapshot.mesh().num_trusted_proxies,
    }
}

/// What the decision is, in the shape of the case's own words.
fn decided(case: &Case, snapshot: &Arc<Snapshot>) -> Value {
    let check = check_request::from_json(case.request.to_string().as_bytes())
        .unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let decision = decide::decide(
        snapshot,
        check,
        &MetadataMap::new(),
        &options(case, snapshot),
    );
    let mut decision = serde_json::to_value(decision).unwrap();
    decision.as_object_mut().unwrap().remove("snapshot");
    decision
}

fn wanted(case: &Case) -> Value {
    let wanted = &case.wanted;
    let or = |key: &str, absent: Value| wanted.get(key).cloned().unwrap_or(absent);
    let dry_run = wanted.get("dry_run").map_or(Value::Null, |dry_run| {
        let or = |key: &str, absent: Value| dry_run.get(key).cloned().unwrap_or(absent);
        json!({
            "decision": dry_run["decision"],
            "reason": dry_run["reason"],
            "policies": or("policies", json!([])),
            "shadow": or("shadow", json!({"allow": null, "deny": null})),
        })
    });
    json!({
        "decision": wanted["decision"],
        "reason": wanted["reason"],
        "policies": or("policies", json!([])),
        "audit": or("audit", json!([])),
        "provider": or("provider", Value::Null),
        "dry_run": dry_run,
    })
}

#[test]
fn each_case_gets_its_decision() {
    let mut failed = Vec::new();
    let mut decisions = 0;
    for (folder, snapshot) in FOLDERS.iter() {
        for case in &folder.cases {
            decisions += 1;
            let (wanted, decided) = (wanted(case), decided(case, snapshot));
            if wanted != decided {
                failed.push(format!(
                    "{}: {}\n  wanted {wanted}\n  got    {decided}",
                    folder.name, case.name
                ));
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {decisions} cases fail:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[test]
fn each_allow_has_a_neighbour_that_one_changed_field_denies() {
    let mut lonely = Vec::new();
    for (folder, _) in FOLDERS.iter() {
        for case in &folder.cases {
            let denied = |other: &&Case| other.wanted["decision"] == "deny";
            let mut denied = folder.cases.iter().filter(denied);
            if case.wanted["decision"] == "allow" && !denied.any(|c| c.is_one_field_from(case)) {
                lonely.push(format!("{}: {}", folder.name, case.name));
            }
        }
    }
    assert!(
        lonely.is_empty(),
        "allowed, and nothing shows what would be denied:\n{}",
        lonely.join("\n")
    );
}

#[test]
fn each_folder_of_cases_is_listed() {
    let listed: BTreeSet<&str> = portcullis_policies::CASES.iter().copied().collect();
    let found: BTreeSet<&str> = FOLDERS.iter().map(|(f, _)| f.name.as_str()).collect();
    assert_eq!(listed, found, "portcullis_policies::CASES");
}

#[test]
fn case_names_are_sentences_and_unique() {
    for (folder, _) in FOLDERS.iter() {
        let mut names = BTreeSet::new();
        for case in &folder.cases {
            assert!(
                names.insert(&case.name),
                "{}: `{}` twice",
                folder.name,
                case.name
            );
            assert!(
                case.name.split(' ').count() > 2,
                "{}: `{}` is no sentence",
                folder.name,
                case.name
            );
        }
    }
}

#[test]
fn each_told_case_reads_as_its_golden_story() {
    let update = std::env::var("UPDATE_GOLDEN").is_ok_and(|v| v == "1");
    assert!(!(update && std::env::var("CI").is_ok_and(|v| v == "true")));
    let mut expected: BTreeSet<PathBuf> = BTreeSet::new();
    let mut differ = Vec::new();
    for (folder, snapshot) in FOLDERS.iter() {
        for case in folder.cases.iter().filter(|c| c.explain) {
            let check = check_request::from_json(case.request.to_string().as_bytes()).unwrap();
            let options = options(case, snapshot);
            let request = facts::request(check, &MetadataMap::new(), &options).unwrap();
            let mut told = snapshot.explain(&request, false);
            // It names the content of all files: every edit would change every story.
            told.decision.snapshot = String::new();
            let text = format!("{}\n", serde_json::to_string_pretty(&told).unwrap());
            let file = folder.story(case);
            if update {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, &text).unwrap();
            } else if fs::read_to_string(&file).unwrap_or_default() != text {
                differ.push(format!("{}: {}\n{text}", folder.name, case.name));
            }
            expected.insert(file);
        }
    }
    assert!(expected.len() >= 15, "{} stories", expected.len());
    assert!(
        differ.is_empty(),
        "{}\nif that is meant, run with UPDATE_GOLDEN=1 and read the difference",
        differ.join("\n")
    );
    for (folder, _) in FOLDERS.iter() {
        for file in format::stories(folder) {
            let known = expected.contains(&file);
            assert!(known || update, "{} is of no case", file.display());
            if !known {
                fs::remove_file(file).unwrap();
            }
        }
    }
}
