//! The Dockerfile: judged by hadolint, and short enough to be judged by eye.

use std::fs;
use std::process::Command;
use std::time::Duration;

use portcullis_tests::component::{self, require, workspace};
use portcullis_tests::process;

#[test]
fn the_linter_finds_nothing() {
    let Some(hadolint) = require(component::hadolint()) else {
        return;
    };
    let judge = |file: &std::path::Path| {
        let mut command = Command::new(&hadolint);
        command
            .args([
                "--no-color",
                "--failure-threshold",
                "style",
                "--strict-labels",
            ])
            .arg(file);
        let output = process::run(&mut command, Duration::from_secs(60)).unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (clean, said) = judge(&workspace().join("deploy/Dockerfile"));
    assert!(clean, "{said}");
    // It sees what is wrong at all.
    let bad = component::run_folder("image-bad").join("Dockerfile");
    fs::write(&bad, "FROM alpine\nRUN cd /tmp && apk add curl\n").unwrap();
    let (clean, said) = judge(&bad);
    assert!(!clean && said.contains("DL3018"), "{said}");
}

#[test]
fn the_image_is_one_static_executable_that_nobody_runs_as_root() {
    let file = fs::read_to_string(workspace().join("deploy/Dockerfile")).unwrap();
    let stages: Vec<&str> = file.split("\nFROM ").skip(1).collect();
    assert_eq!(stages.len(), 2, "built in one stage, shipped in another");
    assert!(stages[0].contains("cargo build --release --locked"));
    let shipped = stages[1];
    assert!(shipped.starts_with("gcr.io/distroless/static"), "{shipped}");
    assert!(
        !shipped.contains("RUN "),
        "there is no shell to run anything"
    );
    // As a number: `runAsNonRoot` cannot look a name up.
    assert!(shipped.contains("\nUSER 65532:65532\n"));
    let values = fs::read_to_string(workspace().join("deploy/chart/values.yaml")).unwrap();
    assert!(
        values.contains("\nrunAsUser: 65532\n"),
        "the chart's user is the image's"
    );
    assert!(
        shipped.contains("\nENTRYPOINT [\"/usr/local/bin/portcullis\"]\n"),
        "no shell, so signals arrive"
    );
    let version = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let rust = version
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .unwrap()
        .trim_matches('"')
        .to_owned();
    assert!(
        file.contains(&format!("FROM rust:{rust}-alpine")),
        "built with the Rust that Cargo.toml names: {rust}"
    );
    let own = version
        .lines()
        .find_map(|line| line.strip_prefix("version = "))
        .unwrap();
    let chart = fs::read_to_string(workspace().join("deploy/chart/Chart.yaml")).unwrap();
    assert!(
        chart.contains(&format!("appVersion: {}\n", own.trim_matches('"'))),
        "the chart's image is of this version"
    );
}

#[test]
fn the_build_gets_all_that_it_needs_and_no_more() {
    let ignored = fs::read_to_string(workspace().join(".dockerignore")).unwrap();
    let ignored: Vec<&str> = ignored
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(ignored, [".ci", ".git", "**/target"]);
}
