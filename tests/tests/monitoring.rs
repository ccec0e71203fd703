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

use portcullis_admission::metrics as admission;
use portcullis_authz::observe::metrics as authz;
use portcullis_ca::observe::metrics as ca;
use portcullis_policy::decision::{Reason, Verdict};
use portcullis_source::metrics as source;
use portcullis_tests::component::{self, require, workspace};
use portcullis_tests::process;
use regex::Regex;
use serde_json::Value;

/// What Prometheus and Grafana get for each service.
const SERVICES: [&str; 3] = ["portcullis-authz", "portcullis-ca", "portcullis-admission"];

/// Labels that Prometheus itself adds.
const TARGET: [&str; 3] = ["instance", "job", "le"];

fn dashboard(service: &str) -> String {
    read(&format!("deploy/grafana/{service}.json"))
}

fn rules(service: &str) -> String {
    format!("deploy/prometheus/{service}.rules.yaml")
}

fn tests(service: &str) -> String {
    format!("deploy/prometheus/{service}.test.yaml")
}

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap()
}

/// Every query of a dashboard.
fn queries(service: &str) -> Vec<String> {
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
    let dashboard: Value = serde_json::from_str(&dashboard(service)).unwrap();
    let mut found = Vec::new();
    walk(&dashboard, &mut found);
    found
}

/// A metric, whichever service it is of.
struct Metric {
    name: String,
    is_histogram: bool,
    labels: &'static [(&'static str, &'static str)],
}

impl Metric {
    /// The names that its samples have.
    fn samples(&self) -> Vec<String> {
        match self.is_histogram {
            false => vec![self.name.clone()],
            true => ["bucket", "sum", "count"]
                .map(|part| format!("{}_{part}", self.name))
                .into(),
        }
    }
}

/// Every metric of every service.
fn metrics() -> Vec<Metric> {
    let authz = authz::TABLE.iter().map(|one| Metric {
        name: one.full_name(),
        is_histogram: one.kind.as_str() == "histogram",
        labels: one.labels,
    });
    let ca = ca::TABLE.iter().map(|one| Metric {
        name: one.full_name(),
        is_histogram: one.kind.as_str() == "histogram",
        labels: one.labels,
    });
    let admission = admission::TABLE.iter().map(|one| Metric {
        name: one.full_name(),
        is_histogram: one.kind.as_str() == "histogram",
        labels: one.labels,
    });
    let source = source::TABLE.iter().map(|one| Metric {
        name: one.full_name(),
        is_histogram: one.kind.as_str() == "histogram",
        labels: one.labels,
    });
    authz.chain(ca).chain(admission).chain(source).collect()
}

/// What a text says of metrics that there are not, labels that they do not have, and values that
/// labels never have.
fn mistakes(text: &str) -> Vec<String> {
    let metrics = metrics();
    let known: BTreeMap<String, &Metric> = metrics
        .iter()
        .flat_map(|one| one.samples().into_iter().map(move |name| (name, one)))
        .collect();
    let words: BTreeSet<&str> = Reason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .chain(Verdict::ALL.iter().map(|verdict| verdict.as_str()))
        .collect();
    let used = Regex::new(r"(portcullis_[a-z_]+)(\{[^}]*\})?").unwrap();
    let matcher = Regex::new(r#"([a-z_]+)\s*!?=~?\s*"([^"]*)""#).unwrap();
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
fn the_dashboards_show_every_metric_and_no_other() {
    let mut all = String::new();
    for service in SERVICES {
        let queries = queries(service).join("\n");
        assert_eq!(mistakes(&queries), [""; 0], "{service}");
        all.push_str(&queries);
    }
    for metric in metrics() {
        assert!(
            metric
                .samples()
                .iter()
                .any(|name| all.contains(name.as_str())),
            "`{}` is on no panel",
            metric.name
        );
    }
}

#[test]
fn alert_rules_speak_of_metrics_that_there_are() {
    for service in SERVICES {
        for file in [rules(service), tests(service)] {
            assert_eq!(mistakes(&read(&file)), [""; 0], "{file}");
        }
    }
}

#[test]
fn every_alert_has_a_test_in_which_it_fires() {
    for service in SERVICES {
        let rules = read(&rules(service));
        let alerts: BTreeSet<&str> = rules
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- alert: "))
            .collect();
        assert!(alerts.len() > 5, "{service}: {alerts:?}");
        let tests = read(&tests(service));
        let cases = tests.split("- alertname: ").skip(1);
        let firing: BTreeSet<&str> = cases
            .filter(|case| case.contains("exp_labels"))
            .filter_map(|case| case.lines().next())
            .collect();
        assert_eq!(firing, alerts, "{service}");
    }
}

#[test]
fn prometheus_takes_the_alert_rules_and_they_fire_when_they_should() {
    let Some(promtool) = require(component::promtool()) else {
        return;
    };
    for service in SERVICES {
        for arguments in [
            ["check", "rules", &rules(service)],
            ["test", "rules", &tests(service)],
        ] {
            let mut command: Command = promtool.command();
            command.args(arguments).current_dir(workspace());
            let output = process::run(&mut command, Duration::from_secs(60)).unwrap();
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(output.status.success(), "{arguments:?}: {said}");
            assert!(said.contains("SUCCESS"), "{said}");
        }
    }
}
