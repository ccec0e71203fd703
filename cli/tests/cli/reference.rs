//! The reference pages say what the code says.

use std::path::{Path, PathBuf};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference")
}

/// Compares a page with what the code would write; `UPDATE_DOCS=1` writes it.
#[track_caller]
fn check(page: &str, expected: &str) {
    let path = docs().join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == expected,
        "docs/reference/{page} does not say what the code says: run `UPDATE_DOCS=1 cargo test -p portcullis --test cli reference` and read the difference"
    );
}

#[test]
fn commands_are_documented_as_their_help_says() {
    let mut page = String::from(
        "# Commands\n\n\
         What `--help` says of each command. Flags win over environment variables, these over \
         [portcullis.yaml](configuration.md), that over defaults.\n\n\
         | exit code | meaning |\n|---|---|\n\
         | 0 | yes, or nothing wrong |\n\
         | 1 | could not run: wrong usage, a missing path, a mistake in the configuration, a socket that is taken |\n\
         | 2 | the answer is no: a denial, errors in documents (with `--deny-warnings` warnings too) |\n\n\
         `decide` and `explain` answer with 2 for a single request only; of several requests they make a report, which is 0, \
         unless no line is a request, which is 1. Documents with errors are 2 everywhere.\n\n\
         With `--output json` standard output holds one JSON object per line and nothing else:\n\n\
         | command | each line |\n|---|---|\n\
         | `policy check` | a diagnostic: `code`, `severity`, `file`, `line`, `column`, `resource`, `field`, `message`, `hint` |\n\
         | `policy decide` | an answer to one line of input: `line`, then `decision`, `reason`, `policies`, `audit`, `provider`, `dry_run`, `snapshot`; or `line` and `error` |\n\
         | `policy explain` | `line`, `decision` (as above), `destination`, `destination_from`, `target`, `protocol`, `normalised_path`, `steps`, `rules` |\n\
         | `policy translate` | a Cedar policy: `id`, `file`, `line`, `column`, `cedar` |\n\
         | `policy test` | a case: `test`, `case`, `holds`, `file`, `line`, `column`, `field`, `wanted`, `got`; where it does not hold `rules`, the nearest; with `explain: true` `explanation` |\n\
         | `crds` | one List of custom resource definitions |\n\
         | `policy explain-code` | `code`, `severity`, `title`, `explanation` |\n\n\
         Where documents have errors, `decide`, `explain` and `translate` write nothing to standard output and the diagnostics to standard error.\n",
    );
    let mut command = portcullis::command();
    command.build();
    write(&command, "", &mut page);
    page.push_str(
        "\n# As a plugin of kubectl\n\n\
         Under the name `kubectl-portcullis` on PATH the binary is `kubectl portcullis`.\n",
    );
    let mut command = portcullis::kubectl_command();
    command.build();
    write(&command, "", &mut page);
    check("commands.md", &page);
}

fn write(command: &clap::Command, path: &str, page: &mut String) {
    let path = format!("{path} {}", command.get_name());
    let path = path.trim_start();
    let mut command = command
        .clone()
        .term_width(100)
        .color(clap::ColorChoice::Never);
    // The help of the whole is not the same in every environment: variables that are set show up.
    for argument in command
        .get_arguments()
        .map(|argument| argument.get_id().clone())
        .collect::<Vec<_>>()
    {
        command = command.mut_arg(argument, |argument| argument.hide_env_values(true));
    }
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    page.push_str(&format!(
        "\n## {path}\n\n```text\n{}\n```\n",
        help.join("\n")
    ));
    for inner in command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set())
    {
        write(inner, path, page);
    }
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let mut page = String::from(
        "# portcullis.yaml\n\n\
         One YAML file, named by `--config` or PORTCULLIS_CONFIG; without it everything has its default. \
         What is not a key is an error that names the nearest one. Relative paths are relative to the file. \
         `[]` stands for each entry of a list, `{}` for each entry of a mapping with names of your own.\n\n\
         ```yaml\n\
         policies: [manifests/]\n\
         listeners:\n\
         \x20 - address: 127.0.0.1:9191\n\
         \x20   path: normalised\n\
         mesh:\n\
         \x20 rootNamespace: istio-system\n\
         \x20 trustDomain: cluster.local\n\
         workloads:\n\
         \x20 - {namespace: vms, name: billing, labels: {app: billing}, addresses: [10.8.0.4]}\n\
         custom_providers: {oauth2-proxy: proxy}\n\
         log: {level: info, format: json}\n\
         ```\n\n\
         | key | type | default | meaning |\n|---|---|---|---|\n",
    );
    for key in portcullis::configuration_keys() {
        let default = if key.default.is_empty() {
            "-"
        } else {
            key.default
        };
        page.push_str(&format!(
            "| `{}` | {} | {default} | {} |\n",
            key.path, key.kind, key.meaning
        ));
    }
    check("configuration.md", &page);
    let example = page
        .split("```")
        .nth(1)
        .unwrap()
        .trim_start_matches("yaml\n");
    let folder = super::run::Folder::new(&[
        ("portcullis.yaml", example),
        ("manifests/web.yaml", super::run::WEB),
    ]);
    folder
        .run_with(
            &["policy", "decide", "--config", "portcullis.yaml"],
            super::run::request("/public/a"),
        )
        .is(0, "   1  ALLOW  allowed_by foo/readers#rule[0]  GET web.foo/public/a from 10.0.0.9 to 10.0.0.1:8080\n", "");
}

/// A row of the table of metrics: full name, type, labels with their values, meaning.
fn metric(name: &str, kind: &str, labels: &[(&str, &str)], meaning: &str) -> String {
    let labels = labels.iter();
    let labels: Vec<String> = labels
        .map(|(name, values)| format!("`{name}`: {values}"))
        .collect();
    let labels = match labels.as_slice() {
        [] => "-".to_owned(),
        labels => labels.join("<br>"),
    };
    format!("| `{name}` | {kind} | {labels} | {meaning} |\n")
}

#[test]
fn every_metric_is_documented() {
    const HEAD: &str = "| metric | type | labels | meaning |\n|---|---|---|---|\n";
    let mut page = String::from(
        "# Metrics\n\n\
         What `/metrics` of the [management listeners](configuration.md) shows, in the OpenMetrics text format, which \
         Prometheus reads as it is. Values of labels are words of this page, or names from the configuration and the \
         manifests: never values of a request. [A page](../tasks/observe.md) tells of the dashboards and the alert rules in \
         deploy/.\n\n\
         ## The authorization service\n\n",
    );
    page.push_str(HEAD);
    for one in portcullis_authz::observe::metrics::TABLE {
        let (name, kind) = (one.full_name(), one.kind.as_str());
        page.push_str(&metric(&name, kind, one.labels, one.meaning));
    }
    page.push_str("\n### Reasons\n\n| reason | decision |\n|---|---|\n");
    for reason in portcullis_policy::decision::Reason::ALL {
        let (reason, verdict) = (reason.as_str(), reason.verdict().as_str());
        page.push_str(&format!("| `{reason}` | {verdict} |\n"));
    }
    page.push_str("\n## The certificate authority\n\n");
    page.push_str(HEAD);
    for one in portcullis_ca::observe::metrics::TABLE {
        let (name, kind) = (one.full_name(), one.kind.as_str());
        page.push_str(&metric(&name, kind, one.labels, one.meaning));
    }
    page.push_str("\n## The admission webhook\n\n");
    page.push_str(HEAD);
    for one in portcullis_admission::metrics::TABLE {
        let (name, kind) = (one.full_name(), one.kind.as_str());
        page.push_str(&metric(&name, kind, one.labels, one.meaning));
    }
    page.push_str(
        "\n## Where an API server is followed\n\n\
         The authorization service shows these where it follows an API server, and the admission webhook always.\n\n",
    );
    page.push_str(HEAD);
    for one in portcullis_source::metrics::TABLE {
        let (name, kind) = (one.full_name(), one.kind.as_str());
        page.push_str(&metric(&name, kind, one.labels, one.meaning));
    }
    check("metrics.md", &page);
}
