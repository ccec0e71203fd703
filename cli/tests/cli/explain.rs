use super::run::{Folder, WEB, request};

#[test]
fn a_denial_names_the_nearest_rule_the_clause_and_what_the_request_had() {
    let folder = Folder::new(&[("web.yaml", WEB)]);
    let outcome = folder.run_with(
        &["policy", "explain", "--policies", "web.yaml"],
        request("/private"),
    );
    assert_eq!(outcome.code, 2, "{outcome:?}");
    for part in [
        "request 1: GET web.foo/private from 10.0.0.9 to 10.0.0.1:8080\nDENY: no_allow_matched\n",
        "destination  pod/foo/web (",
        "\nwhat applied, in order\n  1. ",
        "\nthe nearest rules, and what failed\n  ✗ 1 clause failed  ALLOW foo/readers#rule[0]  web.yaml:13:7\n",
        "      ✓ held spec.rules[0].to[0].operation.methods: GET  web.yaml:15:",
        "      ✗ failed spec.rules[0].to[0].operation.paths: /public/*  web.yaml:16:21\n          had instead `/private`\n",
    ] {
        assert!(
            outcome.stdout.contains(part),
            "{part}\nin\n{}",
            outcome.stdout
        );
    }
}

#[test]
fn an_allow_names_the_rule_that_told() {
    let folder = Folder::new(&[("web.yaml", WEB)]);
    let outcome = folder.run_with(
        &["policy", "explain", "--policies", "web.yaml"],
        request("/public/a"),
    );
    assert_eq!(outcome.code, 0);
    assert!(
        outcome.stdout.contains(
            "\nthe rules that told\n  ✓ matched  ALLOW foo/readers#rule[0]  web.yaml:13:7\n"
        ),
        "{outcome:?}"
    );
}

#[test]
fn all_shows_rules_that_had_no_say() {
    let two = format!("{WEB}    - to:\n        - operation: {{methods: [POST]}}\n");
    let folder = Folder::new(&[("web.yaml", &two)]);
    let arguments = ["policy", "explain", "--policies", "web.yaml"];
    let told = folder.run_with(&arguments, request("/public/a"));
    assert!(!told.stdout.contains("rule[1]"), "{told:?}");
    let mut arguments = arguments.to_vec();
    arguments.push("--all");
    let all = folder.run_with(&arguments, request("/public/a"));
    assert!(
        all.stdout
            .contains("✗ 1 clause failed  ALLOW foo/readers#rule[1]"),
        "{all:?}"
    );
}

#[test]
fn each_of_several_requests_is_explained() {
    let folder = Folder::new(&[("web.yaml", WEB)]);
    let input = request("/public/a") + "{\"attributes\":{}}\n";
    let human = folder.run_with(&["policy", "explain", "--policies", "web.yaml"], &input);
    assert_eq!(human.code, 0);
    assert!(
        human
            .stdout
            .contains("\nrequest 2: no request\nDENY: invalid_request\n"),
        "{human:?}"
    );
    let json = folder
        .run_with(
            &[
                "policy",
                "explain",
                "--policies",
                "web.yaml",
                "--output",
                "json",
            ],
            &input,
        )
        .json();
    assert_eq!(json[0]["decision"]["decision"], "allow");
    assert_eq!(json[0]["rules"][0]["id"], "foo/readers#rule[0]");
    assert_eq!(json[1]["decision"]["reason"], "invalid_request");
}
