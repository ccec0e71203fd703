use super::run::{Folder, WEB, request};

#[test]
fn every_mistake_of_a_configuration_is_named_with_its_place() {
    let folder = Folder::new(&[(
        "portcullis.yaml",
        "\
policies: web.yaml
listners:
  - address: 127.0.0.1:1
listeners:
  - adress: 127.0.0.1:1
    path: normalized
  - address: localhost
    target: sidecat
    debug_headers: 1
mesh:
  rootNamspace: x
  accessLogFile: /dev/stdout
  pathNormalization: {normalization: BASIC}
workloads:
  - name: vm
    addresses: [10.1.1.1/32]
custom_providers: {opa: ask}
default_workload: web
reload: {poll: often}
limits: {message_bytes: 0}
",
    )]);
    folder.run(&["policy", "decide", "--config", "portcullis.yaml"]).is(
        1,
        "",
        "\
error: the configuration `portcullis.yaml` has mistakes
  portcullis.yaml:1:11: a list is expected here; start each entry with `- `
  portcullis.yaml:2:1: unknown key `listners`; did you mean `listeners`?
  portcullis.yaml:5:5: unknown key `adress`; did you mean `address`?
  portcullis.yaml:6:11: `normalized` is none of `raw`, `normalised`
  portcullis.yaml:7:14: `localhost` is not an address to listen on: write `127.0.0.1:9191`, `[::1]:9191`, `unix:/path/to.sock` or `systemd:NAME`
  portcullis.yaml:8:13: `sidecat` is none of `auto`, `sidecar`, `gateway`, `waypoint`, `ztunnel`
  portcullis.yaml:9:20: `true` or `false` is expected here
  portcullis.yaml:11:3: unknown key `rootNamspace`; did you mean `rootNamespace`?
  portcullis.yaml:13:38: `BASIC` is none of `DEFAULT`, `NONE`, `BASE`, `MERGE_SLASHES`, `DECODE_AND_MERGE_SLASHES`
  portcullis.yaml:15:5: a workload needs a `namespace`
  portcullis.yaml:16:17: `10.1.1.1/32` is no IPv4 or IPv6 address; write it without port and prefix length
  portcullis.yaml:17:25: `ask` is none of `self`, `proxy`, `call`
  portcullis.yaml:18:19: `web` names no workload; write `NAMESPACE/NAME` or `KIND/NAMESPACE/NAME`
  portcullis.yaml:19:16: `often` is no duration; write a number with `ms`, `s` or `m`, such as `5s`, up to a day
  portcullis.yaml:20:25: `0` is no number of bytes above zero
",
    );
}

#[test]
fn mistakes_about_what_is_seen_are_named_with_their_place() {
    let folder = Folder::new(&[(
        "portcullis.yaml",
        "\
policies: [web.yaml]
management: {adress: 127.0.0.1:9192}
decision_log:
  output: fil
  file: a.jsonl
  allows: 0.5
  denies: 101%
  queue: 0
  query: mask
  headers: user-agent
  rotate_bytes: 1MB
otlp: {traces: perhaps}
",
    )]);
    folder
        .run(&["policy", "decide", "--config", "portcullis.yaml"])
        .is(
            1,
            "",
            "\
error: the configuration `portcullis.yaml` has mistakes
  portcullis.yaml:2:14: unknown key `adress`; did you mean `address`?
  portcullis.yaml:4:11: `fil` is none of `none`, `stdout`, `file`, `otlp`
  portcullis.yaml:5:9: `file` counts only with `output: file`
  portcullis.yaml:6:11: `0.5` is no percentage from `0%` to `100%`, such as `0.5%`
  portcullis.yaml:7:11: `101%` is no percentage from `0%` to `100%`, such as `0.5%`
  portcullis.yaml:8:10: a queue of nothing loses everything; write a number above 0
  portcullis.yaml:9:10: `mask` is none of `drop`, `names`, `keep`
  portcullis.yaml:10:12: a list is expected here; start each entry with `- `
  portcullis.yaml:11:17: `1MB` is no number of bytes above zero
  portcullis.yaml:12:7: `otlp` needs an `endpoint`, such as `http://127.0.0.1:4317`
  portcullis.yaml:12:16: `true` or `false` is expected here
",
        );
}

#[test]
fn a_configuration_that_cannot_be_read_is_1() {
    let folder = Folder::new(&[("broken.yaml", "a: [1\n"), ("two.yaml", "{}\n---\n{}\n")]);
    folder.write("latin.yaml", b"log:\n  level: \xe9\n");
    let said = |file: &str| {
        let outcome = folder.run(&["policy", "check", "--config", file, "-"]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        outcome.stderr
    };
    assert!(
        said("nowhere.yaml").starts_with("error: cannot read the configuration `nowhere.yaml`: ")
    );
    assert!(
        said("broken.yaml").contains("\n  broken.yaml:1:6: "),
        "{}",
        said("broken.yaml")
    );
    assert!(
        said("two.yaml").contains("\n  two.yaml:3:1: a second document; a configuration is one\n")
    );
    assert_eq!(
        said("latin.yaml"),
        "error: the configuration `latin.yaml` has mistakes\n  latin.yaml:2:10: octet 0xe9 at offset 14 is not UTF-8; save the file as UTF-8\n"
    );
}

#[test]
fn settings_reach_the_engine() {
    let folder = Folder::new(&[
        (
            "web.yaml",
            &WEB.replace("namespace: foo, labels", "namespace: bar, labels"),
        ),
        (
            "vm.yaml",
            "\
policies: [web.yaml]
mesh: {rootNamespace: foo, pathNormalization: NONE}
workloads:
  - {namespace: vms, name: web, labels: {app: web}, addresses: [10.0.0.1]}
  - {namespace: vms, name: other, addresses: [10.0.0.2]}
default_workload: vms/other
",
        ),
    ]);
    let decide = |path: &str, destination: &str| {
        let input = request(path).replace("10.0.0.1", destination);
        folder
            .run_with(
                &[
                    "policy", "explain", "--config", "vm.yaml", "--output", "json",
                ],
                input,
            )
            .json()
            .remove(0)
    };
    // The policy is in what is now the root namespace. Without normalisation the path stays.
    let mesh = decide("/public/../a", "10.0.0.1");
    assert_eq!(mesh["destination"], "pod/bar/web", "{mesh}");
    assert_eq!(
        mesh["decision"]["policies"][0], "foo/readers#rule[0]",
        "{mesh}"
    );
    let declared = decide("/public/a", "10.0.0.2");
    assert_eq!(declared["destination"], "declared/vms/other", "{declared}");
    assert_eq!(declared["decision"]["reason"], "no_allow_policy");
    let default = decide("/public/a", "10.0.0.77");
    assert_eq!(default["destination"], "declared/vms/other", "{default}");
}

/// What is said of a listener with this `tls`.
fn tls_mistake(tls: &str) -> String {
    let config =
        format!("policies: [web.yaml]\nlisteners: [{{address: 127.0.0.1:0, tls: {tls}}}]\n");
    let folder = Folder::new(&[("web.yaml", WEB), ("portcullis.yaml", &config)]);
    let outcome = folder.run(&["authz", "serve", "--config", "portcullis.yaml"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    outcome.stderr
}

#[test]
fn tls_that_nobody_can_mean_is_refused_with_its_line() {
    for (tls, words) in [
        (
            "{certificate_file: a}",
            "`tls` needs `certificate_file` with `key_file`, or `workload_api`",
        ),
        (
            "{workload_api: \"unix:/a\", client_ca_file: b}",
            "or `workload_api` without any file",
        ),
        ("{workload_api: here}", "`here` is no Workload API"),
        (
            "{workload_api: \"unix:/a\", hint: edge, spiffe_id: \"spiffe://a/b\"}",
            "`spiffe_id` and `hint` both choose",
        ),
        (
            "{workload_api: \"unix:/a\", spiffe_id: \"spiffe://a/*\"}",
            "`spiffe://a/*` is no SPIFFE ID",
        ),
        (
            "{certificate_file: a, key_file: b, hint: edge}",
            "`hint` chooses among SVIDs of a `workload_api`",
        ),
        (
            "{certificate_file: a, key_file: b, allowed_ids: [\"spiffe://a/b\"]}",
            "`allowed_ids` needs `client_ca_file`",
        ),
        (
            "{workload_api: \"unix:/a\", allowed_ids: [\"example.org/*\"]}",
            "`example.org/*` is no SPIFFE ID to allow",
        ),
        (
            "{workload_api: \"unix:/a\", allowed_ids: []}",
            "nobody is allowed",
        ),
        ("{certificate_fil: a}", "did you mean `certificate_file`?"),
        (
            "{certificate_file: a, key_file: b}",
            "no TLS on `127.0.0.1:0`: cannot read `a`",
        ),
    ] {
        let said = tls_mistake(tls);
        assert!(said.contains(words), "{tls}: {said}");
    }
}
