use std::time::Duration;

use portcullis_policy::decision::{Decision, DryRun, Reason, Shadow, Verdict};

use super::*;
use crate::observe::Observer;

fn lines(observer: &Observer, name: &str) -> Vec<String> {
    let text = observer.metrics_text();
    let lines = text.lines().filter(|line| {
        let line = line.strip_prefix(PREFIX).unwrap_or_default();
        line.starts_with(name)
    });
    lines.map(|line| line.replace(PREFIX, "")).collect()
}

#[test]
fn decisions_are_counted_by_reason_and_time() {
    let observer = Observer::default();
    let metrics = observer.metrics();
    let decision = Decision::closed(Reason::DeniedBy, "r");
    for micros in [10, 11, 400, 20_000_000] {
        metrics.decided(&decision, Duration::from_micros(micros));
    }
    let decisions = lines(&observer, "decisions_total");
    assert_eq!(decisions.len(), Reason::ALL.len());
    let denied = r#"decisions_total{decision="deny",reason="denied_by"} 4"#;
    assert!(decisions.contains(&denied.to_owned()), "{decisions:?}");
    let others = decisions.iter().filter(|line| line.ends_with(" 0"));
    assert_eq!(others.count(), Reason::ALL.len() - 1);
    let buckets = lines(&observer, "decision_duration_seconds");
    for expected in [
        r#"decision_duration_seconds_bucket{le="0.00001"} 1"#,
        r#"decision_duration_seconds_bucket{le="0.000025"} 2"#,
        r#"decision_duration_seconds_bucket{le="0.0005"} 3"#,
        r#"decision_duration_seconds_bucket{le="10.0"} 3"#,
        r#"decision_duration_seconds_bucket{le="+Inf"} 4"#,
        "decision_duration_seconds_count 4",
    ] {
        let number = |line: &String| {
            let (name, value) = line.split_once("le=\"").unwrap_or((line, ""));
            let (le, rest) = value.split_once('"').unwrap_or(("", value));
            (name.to_owned(), le.parse::<f64>().ok(), rest.to_owned())
        };
        let expected = number(&expected.to_owned());
        assert!(
            buckets.iter().any(|line| number(line) == expected),
            "{expected:?} in {buckets:?}"
        );
    }
}

fn on_trial(policies: &[&str], shadow_deny: Option<&str>) -> Decision {
    Decision {
        dry_run: Some(DryRun {
            decision: Verdict::Deny,
            reason: Reason::DeniedBy,
            policies: policies.iter().map(|p| (*p).to_owned()).collect(),
            shadow: Shadow {
                allow: None,
                deny: shadow_deny.map(str::to_owned),
            },
        }),
        ..Decision::closed(Reason::NoAllowPolicy, "r")
    }
}

#[test]
fn a_policy_on_trial_is_counted_once_for_each_decision() {
    let observer = Observer::default();
    let metrics = observer.metrics();
    let rules = ["foo/try#rule[0]", "foo/try#rule[1]"];
    metrics.decided(&on_trial(&rules, Some(rules[0])), Duration::ZERO);
    metrics.decided(&on_trial(&[], Some("foo/other#rule[0]")), Duration::ZERO);
    metrics.decided(&Decision::closed(Reason::DeniedBy, "r"), Duration::ZERO);
    assert_eq!(
        lines(
            &observer,
            "dry_run_decisions_total{decision=\"allow\",dry_run=\"deny\"}"
        ),
        [r#"dry_run_decisions_total{decision="allow",dry_run="deny"} 2"#]
    );
    assert_eq!(
        lines(&observer, "dry_run_policy_decisions_total"),
        [
            r#"dry_run_policy_decisions_total{policy="foo/other",decision="allow",dry_run="deny"} 1"#,
            r#"dry_run_policy_decisions_total{policy="foo/try",decision="allow",dry_run="deny"} 1"#,
        ]
    );
}

#[test]
fn names_are_bounded_and_escaped() {
    let observer = Observer::default();
    let metrics = observer.metrics();
    metrics.custom("a\"\n\\", Custom::FailedOpen);
    for index in 0..NAMES + 10 {
        metrics.custom(&format!("p{index}"), Custom::Allowed);
    }
    let all = lines(&observer, "custom_answers_total");
    assert_eq!(all.len(), (NAMES + 1) * Custom::ALL.len());
    let other = r#"custom_answers_total{provider="(other)",result="allowed"} 11"#;
    assert!(all.contains(&other.to_owned()), "{:?}", all.first());
    let escaped = r#"custom_answers_total{provider="a\"\n\\",result="failed_open"} 1"#;
    assert!(all.contains(&escaped.to_owned()), "{:?}", all.first());
}

#[test]
fn what_is_shown_is_what_the_table_says() {
    let text = Observer::default().metrics_text();
    let mut shown: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap();
            shown.push((name.to_owned(), kind.to_owned()));
        }
    }
    // Nothing follows an API server here.
    let own = TABLE.iter().filter(|d| d.prefix == PREFIX);
    let table: Vec<(String, String)> = own
        .map(|d| {
            (
                format!("{}{}", d.prefix, d.name),
                d.kind.as_str().to_owned(),
            )
        })
        .collect();
    assert_eq!(shown, table);
    assert!(text.ends_with("# EOF\n"), "whole");
}
