use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use serde_json::json;

use super::run::{Folder, WEB, request, wait};

/// Closes the pod of [`WEB`] to everybody.
const CLOSED: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: foo}
spec:
  action: DENY
  rules: [{}]
";

fn decide<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["policy", "decide", "--policies", "web.yaml"];
    arguments.extend(more);
    arguments
}

#[test]
fn one_request_is_answered_by_the_exit_code() {
    let folder = Folder::new(&[("web.yaml", WEB)]);
    let allowed = folder.run_with(&decide(&[]), request("/public/a"));
    allowed.is(
        0,
        "   1  ALLOW  allowed_by foo/readers#rule[0]  GET web.foo/public/a from 10.0.0.9 to 10.0.0.1:8080\n",
        "",
    );
    let denied = folder.run_with(&decide(&[]), request("/private"));
    denied.is(
        2,
        "   1  DENY   no_allow_matched  GET web.foo/private from 10.0.0.9 to 10.0.0.1:8080\n",
        "",
    );
}

#[test]
fn several_requests_are_a_report_in_the_order_of_the_input() {
    let folder = Folder::new(&[("web.yaml", WEB)]);
    let input = format!("{}\n{}nonsense\n", request("/public/a"), request("/b"));
    let outcome = folder.run_with(&decide(&["--output", "json"]), input);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    let lines = outcome.json();
    let snapshot = &lines[0]["snapshot"];
    assert_eq!(
        lines[0],
        json!({"line": 1, "decision": "allow", "reason": "allowed_by", "policies": ["foo/readers#rule[0]"],
               "audit": [], "provider": null, "dry_run": null, "snapshot": snapshot})
    );
    assert_eq!(lines[1]["line"], 3, "empty lines are counted");
    assert_eq!(lines[1]["decision"], "deny");
    assert_eq!(lines[2]["line"], 4);
    assert!(lines[2]["error"].as_str().unwrap().starts_with("not JSON"));
    assert_eq!(lines[2].as_object().unwrap().len(), 2);
    assert!(
        outcome.stdout.starts_with(
            "{\"line\":1,\"decision\":\"allow\",\"reason\":\"allowed_by\",\"policies\":"
        ),
        "keys stand in the order of the contract: {outcome:?}"
    );
}

#[test]
fn no_line_that_is_a_request_is_1() {
    let folder = Folder::new(&[("web.yaml", WEB)]);
    let outcome = folder.run_with(&decide(&["--output", "json"]), "{\"attributs\": {}}\n");
    assert_eq!(outcome.code, 1);
    let error = outcome.json()[0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("attributs"), "{error}");
    let none = folder.run_with(&decide(&[]), "\n\n");
    none.is(
        0,
        "",
        "note: no request in the input; give one CheckRequest in JSON per line\n",
    );
}

#[test]
fn a_candidate_carries_both_verdicts_and_sums_up_the_flips() {
    let folder = Folder::new(&[("web.yaml", WEB), ("closed.yaml", CLOSED)]);
    let input = request("/public/a") + &request("/private");
    let human = folder.run_with(&decide(&["--candidate", "closed.yaml"]), &input);
    assert_eq!(human.code, 0);
    assert!(
        human
            .stdout
            .contains("      on trial: ALLOW -> DENY  denied_by foo/closed#rule[0]\n"),
        "{human:?}"
    );
    assert!(
        human.stdout.ends_with(
            "\n1 of 2 decisions would change\n     1  ALLOW -> DENY  denied_by foo/closed#rule[0]\n"
        ),
        "{human:?}"
    );
    let json = folder
        .run_with(
            &decide(&["--candidate", "closed.yaml", "--output", "json"]),
            &input,
        )
        .json();
    assert_eq!(json.len(), 2);
    assert_eq!(json[0]["decision"], "allow");
    assert_eq!(json[0]["dry_run"]["decision"], "deny");
    assert_eq!(
        json[0]["dry_run"]["policies"],
        json!(["foo/closed#rule[0]"])
    );
    assert_eq!(json[1]["dry_run"]["decision"], "deny");
}

#[test]
fn policies_with_errors_decide_nothing_unless_told_to() {
    let broken = WEB.replace(
        "methods: [GET]",
        "methods: [GET]\n            ports: [\"99999\"]",
    );
    let folder = Folder::new(&[("web.yaml", &broken)]);
    let refused = folder.run_with(&decide(&[]), request("/public/a"));
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(refused.stderr.contains(" --> web.yaml:"), "{refused:?}");
    assert!(
        refused.stderr.ends_with("1 error: nothing was compiled\n"),
        "{refused:?}"
    );
    // Envoy never sees the rule: with a bad value an ALLOW rule is dropped.
    let accepted = folder.run_with(
        &decide(&["--accept-invalid", "--output", "json"]),
        request("/public/a"),
    );
    assert_eq!(accepted.code, 2, "{accepted:?}");
    assert_eq!(accepted.json()[0]["reason"], "no_allow_matched");
}

#[test]
fn path_and_target_are_taken_from_flags_and_environment() {
    let folder = Folder::new(&[("web.yaml", WEB)]);
    let input = request("/public/../private");
    let reason = |outcome: super::run::Outcome| outcome.json()[0]["reason"].clone();
    let raw = folder.run_with(&decide(&["--output", "json"]), &input);
    assert_eq!(reason(raw), "no_allow_matched");
    // ztunnel sees no HTTP: an ALLOW rule with HTTP fields is left out there.
    let target = folder.run_with(
        &decide(&["--output", "json", "--target", "ztunnel"]),
        request("/public/a"),
    );
    assert_eq!(reason(target), "no_allow_matched");
    let mut command = folder.command(&decide(&["--output", "json"]));
    command.env("PORTCULLIS_TARGET", "ztunnel");
    let environment = super::run::finish(command, request("/public/a").as_bytes());
    assert_eq!(reason(environment), "no_allow_matched");
    let mut command = folder.command(&decide(&["--output", "json", "--target", "sidecar"]));
    command.env("PORTCULLIS_TARGET", "ztunnel");
    let flag = super::run::finish(command, request("/public/a").as_bytes());
    assert_eq!(reason(flag), "allowed_by");
}

#[test]
fn policies_come_from_flag_then_environment_then_file() {
    let folder = Folder::new(&[
        ("web.yaml", WEB),
        ("etc/closed.yaml", &format!("{WEB}---\n{CLOSED}")),
        ("etc/portcullis.yaml", "policies: [closed.yaml]\n"),
    ]);
    let reason = |arguments: &[&str], environment: Option<&str>| {
        let mut command = folder.command(arguments);
        if let Some(paths) = environment {
            command.env("PORTCULLIS_POLICIES", paths);
        }
        super::run::finish(command, request("/public/a").as_bytes()).json()[0]["reason"].clone()
    };
    let file = [
        "policy",
        "decide",
        "--config",
        "etc/portcullis.yaml",
        "--output",
        "json",
    ];
    assert_eq!(reason(&file, None), "denied_by");
    assert_eq!(reason(&file, Some("web.yaml")), "allowed_by");
    let mut flag = file.to_vec();
    flag.extend(["--policies", "etc/closed.yaml"]);
    assert_eq!(reason(&flag, Some("web.yaml")), "denied_by");
    folder.run(&["policy", "decide"]).is(
        1,
        "",
        "error: no policies: give `--policies PATH`, set PORTCULLIS_POLICIES, or set `policies` in the configuration\n",
    );
}

#[test]
fn an_answer_comes_before_the_next_question() {
    let folder = Folder::new(&[("web.yaml", WEB)]);
    let mut child = folder
        .command(&decide(&["--output", "json"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ask = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    for path in ["/public/a", "/private"] {
        ask.write_all(request(path).as_bytes()).unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.contains("\"decision\":"), "{answer}");
    }
    drop(ask);
    assert_eq!(wait(&mut child, std::time::Duration::from_secs(20)), 0);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let folder = Folder::new(&[("web.yaml", WEB)]);
    let mut child = folder
        .command(&decide(&["--output", "json"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut ask = child.stdin.take().unwrap();
    // The command may end before all of it is written.
    let _ = ask.write_all(request("/a").repeat(2000).as_bytes());
    drop(ask);
    assert_eq!(wait(&mut child, std::time::Duration::from_secs(20)), 0);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn standard_input_is_read_once() {
    let folder = Folder::new(&[]);
    let outcome = folder.run_with(&["policy", "decide", "--policies", "-"], WEB);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome
            .stderr
            .starts_with("error: standard input can be read once only: give a file"),
        "{outcome:?}"
    );
    folder
        .run(&[
            "policy",
            "decide",
            "--policies",
            "x",
            "--requests",
            "nowhere.jsonl",
        ])
        .is(
            1,
            "",
            "error: `x` does not exist; give a file, a folder, or `-` for standard input\n",
        );
}
