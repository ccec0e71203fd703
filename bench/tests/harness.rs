//! The harness measures at all: the servers that decide nothing, for a moment.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

#[test]
fn the_null_servers_are_measured() {
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis-bench"))
        .args([
            "serving",
            "--null-only",
            "--seconds",
            "0.2",
            "--rounds",
            "1",
            "--connections",
            "20",
        ])
        .output()
        .unwrap();
    let (said, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{log}");
    for line in ["| null tonic server |", "| null axum server |"] {
        let row = said.lines().find(|row| row.starts_with(line));
        let rate = row.and_then(|row| row.split('|').nth(2)).unwrap().trim();
        assert!(rate.parse::<u64>().unwrap() > 0, "{said}");
    }
    assert!(
        said.contains("Resident with 20 open HTTP connections: "),
        "{said}"
    );
}
