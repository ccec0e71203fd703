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

use portcullis_authz::policy_test;
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::decision::{Decision, Verdict};
use portcullis_policy::document::SourceText;
use portcullis_policy::resource::DecisionCase;
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::Snapshot;
use portcullis_tests::component::workspace;

use format::Folder;

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

/// The decision, of no snapshot.
fn decided(case: &DecisionCase, snapshot: &Arc<Snapshot>) -> Decision {
    let decision = policy_test::decide(snapshot, case);
    let mut decision = decision.unwrap_or_else(|why| panic!("{}: {why}", case.name));
    decision.snapshot.clear();
    decision
}

#[test]
fn each_case_gets_its_decision() {
    let mut failed = Vec::new();
    let mut decisions = 0;
    for (folder, snapshot) in FOLDERS.iter() {
        for case in &folder.cases {
            decisions += 1;
            // All of it: what a case does not say is empty.
            let (wanted, decided) = (case.expected.exactly(), decided(case, snapshot));
            assert!(wanted != decided || case.expected.holds(&decided));
            if wanted != decided {
                failed.push(format!(
                    "{}: {}\n  wanted {wanted:?}\n  got    {decided:?}",
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
            let denied = |other: &&DecisionCase| other.expected.decision == Verdict::Deny;
            let mut denied = folder.cases.iter().filter(denied);
            let allowed = case.expected.decision == Verdict::Allow;
            if allowed && !denied.any(|other| format::one_field_apart(other, case)) {
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
            let mut told = policy_test::explain(snapshot, case, false).unwrap();
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

/// PC0705 and PC0706 come from whoever knows what a CheckRequest is.
#[test]
fn the_examples_of_the_pages_on_failed_cases_raise_their_codes() {
    for code in ["PC0705", "PC0706"] {
        let path = workspace().join(format!("docs/diagnostics/{code}.md"));
        let page = fs::read_to_string(&path).unwrap();
        let example = page.split("```yaml\n").nth(1).unwrap();
        let example = example.split("```").next().unwrap();
        let documents = Documents {
            base: vec![SourceText {
                file: "example.yaml".into(),
                bytes: example.as_bytes().into(),
            }],
            candidate: None,
        };
        let snapshot = Arc::new(compile(&documents, &Settings::default()).unwrap());
        let [test] = snapshot.policies().tests().collect::<Vec<_>>()[..] else {
            panic!("{code}: one test");
        };
        let outcomes = policy_test::run(&snapshot, test);
        assert!(outcomes.iter().all(|outcome| !outcome.holds));
        let found: Vec<_> = outcomes.iter().filter_map(|o| o.diagnostic()).collect();
        let [one] = found.as_slice() else {
            panic!("{found:#?}");
        };
        assert_eq!(one.code, code, "{one:?}");
        assert_eq!(one.location.line, 8, "{one:?}");
        assert_eq!(one.field.as_deref(), Some("spec.cases[0]"));
        let readable = policy_test::diagnose(test).is_empty();
        assert_eq!(readable, code == "PC0706");
    }
}
