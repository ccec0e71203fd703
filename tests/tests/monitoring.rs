//! Dashboard and alert rules speak of metrics that there are, and Prometheus takes them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use portcullis_authz::observe::metrics::{Definition, Kind, TABLE};
use portcullis_policy::decision::{Reason, Verdict};
use portcullis_tests::component::{self, require, workspace};
use portcullis_tests::process;
use regex::Regex;
use serde_json::Value;

const DASHBOARD: &str = "deploy/grafana/portcullis-authz.json";
const RULES: &str = "deploy/prometheus/portcullis-authz.rules.yaml";
const TESTS: &str = "deploy/prometheus/portcullis-authz.test.yaml";

/// Labels that Prometheus itself adds.
const TARGET: [&str; 3] = ["instance", "job", "le"];

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap()
}

/// Every query of the dashboard.
fn queries() -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if name == "expr" || name == "query" => {
                            found.push(text.clone());
                        }
                        other => walk(other, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut found = Vec::new();
    walk(&dashboard, &mut found);
    found
}

/// The names that samples of a metric have.
fn samples(metric: &Definition) -> Vec<String> {
    let name = metric.full_name();
    match metric.kind {
        Kind::Counter | Kind::Gauge => vec![name],
        Kind::Histogram => ["bucket", "sum", "count"]
            .map(|part| format!("{name}_{part}"))
            .into(),
    }
}

/// What a text says of metrics that there are not, labels that they do not have, and values that
/// labels never have.
fn mistakes(text: &str) -> Vec<String> {
    let known: BTreeMap<String, &Definition> = TABLE
        .iter()
        .flat_map(|metric| samples(metric).into_iter().map(move |name| (name, metric)))
        .collect();
    let words: BTreeSet<&str> = Reason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .chain(Verdict::ALL.iter().map(|verdict| verdict.as_str()))
        .collect();
    let used = Regex::new(r"(portcullis_[a-z_]+)(\{[^}]*\})?").unwrap();
    let matcher = Regex::new(r#"([a-z_]+)\s*=~?\s*"([^"]*)""#).unwrap();
    let mut mistakes = Vec::new();
    for found in used.captures_iter(text) {
        let Some(metric) = known.get(&found[1]) else {
            mistakes.push(format!("there is no metric `{}`", &found[1]));
            continue;
        };
        for pair in found
            .get(2)
            .iter()
            .flat_map(|all| matcher.captures_iter(all.as_str()))
        {
            let (label, values) = (&pair[1], &pair[2]);
            let own = metric.labels.iter().find(|(name, _)| *name == label);
            match own {
                None if TARGET.contains(&label) => {}
                None => mistakes.push(format!("`{}` has no label `{label}`", &found[1])),
                // Values that the table lists are all there are.
                Some((_, listed)) if listed.contains('`') => {
                    for value in values.split('|') {
                        if !listed.contains(&format!("`{value}`")) && !words.contains(value) {
                            mistakes.push(format!("`{label}` is never `{value}`"));
                        }
                    }
                }
                Some(_) if label == "reason" => {
                    let unknown = values.split('|').filter(|value| !words.contains(value));
                    mistakes.extend(unknown.map(|value| format!("`{value}` is no reason")));
                }
                Some(_) => {}
            }
        }
    }
    mistakes
}

#[test]
fn what_is_not_there_is_found() {
    for (text, mistake) in [
        (
            "rate(portcullis_authz_decision_total[1m])",
            "there is no metric `portcullis_authz_decision_total`",
        ),
        (
            "portcullis_authz_decisions",
            "there is no metric `portcullis_authz_decisions`",
        ),
        (
            r#"portcullis_authz_decisions_total{path="/"}"#,
            "`portcullis_authz_decisions_total` has no label `path`",
        ),
        (
            r#"portcullis_authz_decisions_total{reason=~"denied_by|whim"}"#,
            "`whim` is no reason",
        ),
        (
            r#"portcullis_authz_reloads_total{result="failed"}"#,
            "`result` is never `failed`",
        ),
    ] {
        assert_eq!(mistakes(text), [mistake], "{text}");
    }
    assert_eq!(
        mistakes(r#"portcullis_authz_reloads_total{job="a",result="failure"}"#),
        [""; 0]
    );
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let queries = queries().join("\n");
    assert_eq!(mistakes(&queries), [""; 0]);
    for metric in TABLE {
        assert!(
            samples(metric)
                .iter()
                .any(|name| queries.contains(name.as_str())),
            "`{}` is on no panel",
            metric.name
        );
    }
}

#[test]
fn alert_rules_speak_of_metrics_that_there_are() {
    let rules = read(RULES);
    assert!(rules.matches("- alert: ").count() > 5);
    assert_eq!(mistakes(&rules), [""; 0]);
    assert_eq!(mistakes(&read(TESTS)), [""; 0]);
}

#[test]
fn prometheus_takes_the_alert_rules_and_they_fire_when_they_should() {
    let Some(promtool) = require(component::promtool()) else {
        return;
    };
    for arguments in [["check", "rules", RULES], ["test", "rules", TESTS]] {
        let mut command: Command = promtool.command();
        command.args(arguments).current_dir(workspace());
        let output = process::run(&mut command, Duration::from_secs(60)).unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(said.contains("SUCCESS"), "{said}");
    }
}
