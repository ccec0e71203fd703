use std::time::Duration;

use super::*;
use crate::ca::Ca;
use crate::ca::tests::{TestClock, caller, create, entry, open, options};
use crate::identities::Identities as _;
use crate::observe::health;

fn lines(ca: &Ca, name: &str) -> Vec<String> {
    let text = text(ca);
    let own = text.lines().filter_map(|line| line.strip_prefix(PREFIX));
    let own = own.filter(|line| line.starts_with(name));
    own.map(str::to_owned).collect()
}

fn value(ca: &Ca, sample: &str) -> f64 {
    let found = lines(ca, sample);
    let values = found.iter().filter_map(|line| line.strip_prefix(sample));
    let values: Vec<f64> = values.filter_map(|rest| rest.trim().parse().ok()).collect();
    assert_eq!(values.len(), 1, "{sample}: {found:?}");
    values[0]
}

#[tokio::test]
async fn what_is_shown_is_what_the_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(options(folder.path()), &TestClock::new()).await;
    let text = text(&ca);
    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let shown: Vec<(String, String)> = described
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    let table: Vec<(String, String)> = TABLE
        .iter()
        .map(|d| (format!("{PREFIX}{}", d.name), d.kind.as_str().to_owned()))
        .collect();
    assert_eq!(shown, table);
    assert!(text.ends_with("# EOF\n"), "whole");
}

#[tokio::test]
async fn issuing_is_counted_by_result_and_no_caller_makes_a_series() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(options(folder.path()), &TestClock::new()).await;
    create(&ca, entry("/web", &["unix:uid:7"])).await;
    let known = caller(&["unix:uid:7"]);
    for _ in 0..3 {
        ca.x509_context(&known).await.unwrap();
    }
    let audience = ["a".to_owned()];
    ca.jwt_svids(&known, &audience, None).await.unwrap();
    let series = text(&ca).lines().count();
    for uid in 100..120 {
        let stranger = caller(&[&format!("unix:uid:{uid}")]);
        ca.x509_context(&stranger).await.unwrap_err();
        ca.bundles(&stranger).await.unwrap_err();
    }
    let other = entry("/other", &["unix:uid:8"]).spiffe_id;
    ca.jwt_svids(&known, &audience, Some(&other))
        .await
        .unwrap_err();
    assert_eq!(
        value(&ca, r#"svids_total{kind="x509",result="issued"}"#),
        1.0
    );
    assert_eq!(value(&ca, "svids_served_again_total"), 2.0);
    assert_eq!(value(&ca, "svids_held"), 1.0);
    assert_eq!(
        value(&ca, r#"svids_total{kind="jwt",result="issued"}"#),
        1.0
    );
    let refused = r#"svids_total{kind="x509",result="no_identity"}"#;
    assert_eq!(value(&ca, refused), 20.0);
    let refused = r#"svids_total{kind="jwt",result="not_entitled"}"#;
    assert_eq!(value(&ca, refused), 1.0);
    assert_eq!(value(&ca, "bundle_refusals_total"), 20.0);
    assert_eq!(
        value(&ca, r#"issuing_duration_seconds_count{kind="x509"}"#),
        1.0
    );
    assert_eq!(value(&ca, "entries"), 1.0);
    assert!(value(&ca, "journal_records_total") >= 45.0);
    assert_eq!(value(&ca, "journal_failing"), 0.0);
    assert_eq!(text(&ca).lines().count(), series, "no new series");
}

#[tokio::test]
async fn a_rotation_can_be_foreseen_and_followed() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    let day = 86_400.0;
    let end = value(
        &ca,
        r#"authority_not_after_timestamp_seconds{kind="x509",state="active"}"#,
    );
    let due = |step: &str| {
        value(
            &ca,
            &format!(r#"rotation_due_timestamp_seconds{{kind="x509",step="{step}"}}"#),
        )
    };
    assert!((end - due("prepare") - day / 2.0).abs() < 60.0);
    assert!((end - due("activate") - day / 6.0).abs() < 60.0);
    assert!((end - due("activate_anyway") - day / 12.0).abs() < 60.0);
    assert!(lines(&ca, "authority_streams_behind").is_empty());
    clock.advance(Duration::from_secs(13 * 3600));
    let stream = ca.deliveries().open();
    ca.tick().await.unwrap();
    let prepared = r#"authorities{kind="x509",state="prepared"}"#;
    assert_eq!(value(&ca, prepared), 1.0);
    assert_eq!(value(&ca, r#"authority_streams_behind{kind="x509"}"#), 1.0);
    let due_next = lines(&ca, r#"rotation_due_timestamp_seconds{kind="x509""#);
    assert_eq!(due_next.len(), 2, "{due_next:?}");
    stream.delivered(ca.bundle().sequence);
    assert_eq!(value(&ca, r#"authority_streams_behind{kind="x509"}"#), 0.0);
    clock.advance(Duration::from_secs(8 * 3600));
    ca.tick().await.unwrap();
    for (step, count) in [("prepare", 2.0), ("activate", 4.0), ("taint", 0.0)] {
        let sample = format!(r#"authority_changes_total{{step="{step}",result="success"}}"#);
        assert_eq!(value(&ca, &sample), count, "{step}");
    }
    assert_eq!(value(&ca, r#"authorities{kind="x509",state="old"}"#), 1.0);
}

#[tokio::test]
async fn readiness_says_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let ca = open(options(folder.path()), &clock).await;
    assert_eq!(health::reasons(&ca), [""; 0]);
    clock.advance(Duration::from_secs(25 * 3600));
    let reasons = health::reasons(&ca);
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(
        reasons[0].starts_with("the active x509 authority is valid from "),
        "{reasons:?}"
    );
    ca.tick().await.unwrap();
    assert_eq!(health::reasons(&ca), [""; 0]);
}
