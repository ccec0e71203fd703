use super::run::{Folder, WEB};

const MISSPELT: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: foo}
spec:
  rules:
    - from:
        - source:
            prinicpals: [cluster.local/ns/foo/sa/a]
            namespaces: [foo]
";

/// A policy that Istio accepts and that never matches.
const SUSPICIOUS: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: foo}
spec:
  rules:
    - from:
        - source:
            principals: [spiffe://cluster.local/ns/foo/sa/a]
";

#[test]
fn a_clean_set_is_0() {
    Folder::new(&[("m/web.yaml", WEB)])
        .run(&["policy", "check", "m"])
        .is(0, "checked 1 file, 1 policy: nothing wrong\n", "");
}

#[test]
fn an_error_is_2_with_place_caret_and_help() {
    Folder::new(&[("m/a.yaml", MISSPELT)])
        .run(&["policy", "check", "m"])
        .is(
            2,
            "\
error[PC0020]: unknown field `prinicpals`
 --> m/a.yaml:8:13
  |
8 |             prinicpals: [cluster.local/ns/foo/sa/a]
  |             ^^^^^^^^^^
  = in: AuthorizationPolicy/foo/a, spec.rules[0].from[0].source.prinicpals
  = help: did you mean `principals`?

checked 1 file: 1 error
",
            "",
        );
}

#[test]
fn json_is_one_diagnostic_a_line() {
    let outcome = Folder::new(&[("a.yaml", MISSPELT)])
        .run(&["policy", "check", "a.yaml", "--output", "json"]);
    assert_eq!(outcome.code, 2);
    assert_eq!(
        outcome.stdout,
        "{\"code\":\"PC0020\",\"severity\":\"error\",\"file\":\"a.yaml\",\"line\":8,\"column\":13,\
         \"resource\":\"AuthorizationPolicy/foo/a\",\"field\":\"spec.rules[0].from[0].source.prinicpals\",\
         \"message\":\"unknown field `prinicpals`\",\"hint\":\"did you mean `principals`?\"}\n"
    );
}

#[test]
fn a_warning_is_0_and_2_when_denied() {
    let folder = Folder::new(&[("a.yaml", SUSPICIOUS)]);
    let lenient = folder.run(&["policy", "check", "a.yaml"]);
    assert_eq!(lenient.code, 0, "{lenient:?}");
    assert!(lenient.stdout.contains("warning["), "{lenient:?}");
    assert!(
        lenient
            .stdout
            .ends_with("checked 1 file, 1 policy: 1 warning\n"),
        "{lenient:?}"
    );
    let strict = folder.run(&["policy", "check", "a.yaml", "--deny-warnings"]);
    assert_eq!((strict.code, strict.stdout), (2, lenient.stdout));
}

#[test]
fn standard_input_is_a_dash() {
    let outcome = Folder::new(&[]).run_with(&["policy", "check", "-"], MISSPELT);
    assert_eq!(outcome.code, 2);
    assert!(
        outcome.stdout.contains(" --> <stdin>:8:13\n"),
        "{outcome:?}"
    );
}

#[test]
fn an_unreadable_document_is_2_and_a_missing_path_1() {
    let folder = Folder::new(&[("broken.yaml", "a: [1\n")]);
    folder.write("utf16.yaml", b"\xff\xfea\x00");
    for file in ["broken.yaml", "utf16.yaml"] {
        let outcome = folder.run(&["policy", "check", file]);
        assert_eq!(outcome.code, 2, "{outcome:?}");
        assert!(outcome.stdout.starts_with("error[PC000"), "{outcome:?}");
    }
    folder.run(&["policy", "check", "nowhere"]).is(
        1,
        "",
        "error: `nowhere` does not exist; give a file, a folder, or `-` for standard input\n",
    );
}

#[test]
fn colour_is_for_terminals_and_those_who_ask() {
    let folder = Folder::new(&[("a.yaml", MISSPELT)]);
    assert!(
        !folder
            .run(&["policy", "check", "a.yaml"])
            .stdout
            .contains('\x1b')
    );
    let asked = folder.run(&["policy", "check", "a.yaml", "--color", "always"]);
    assert!(asked.stdout.contains('\x1b'));
}

#[test]
fn every_code_is_explained() {
    let folder = Folder::new(&[]);
    let one = folder.run(&["policy", "explain-code", "pc0020"]);
    assert_eq!(one.code, 0);
    assert!(one.stdout.starts_with("PC0020 (error): "), "{one:?}");
    let all = folder.run(&["policy", "explain-code", "--output", "json"]);
    let codes = portcullis_policy::diagnostic::code::ALL;
    assert_eq!(all.json().len(), codes.len());
    folder.run(&["policy", "explain-code", "PC9999"]).is(
        1,
        "",
        "error: no diagnostic has the code `PC9999`; `portcullis policy explain-code` lists every code\n",
    );
}

#[test]
fn translate_prints_each_policy_with_its_origin() {
    let folder = Folder::new(&[("web.yaml", WEB)]);
    let human = folder.run(&["policy", "translate", "web.yaml"]);
    assert_eq!(human.code, 0);
    assert!(
        human
            .stdout
            .starts_with("// foo/readers#rule[0] at web.yaml:"),
        "{human:?}"
    );
    let json = folder
        .run(&["policy", "translate", "web.yaml", "--output", "json"])
        .json();
    assert_eq!(json[0]["file"], "web.yaml");
    assert!(json[0]["cedar"].as_str().unwrap().contains("permit"));
    let schema = folder.run(&["policy", "translate", "--schema"]);
    schema.is(0, portcullis_policies::SCHEMA, "");
}
