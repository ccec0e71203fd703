//! Good and bad changes, warnings, dry runs, labels, break-glass, cases; and what happens when nobody judges.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kube::Client;
use portcullis_tests::component;
use portcullis_tests::process;
use portcullis_wire::kube::{Cluster as Kubeconfig, config, connect};
use serde_json::{Value, json};

use super::webhook::{
    Replica, Said, Service, bad, configuration, good, judged_namespace, path, policy, send,
};
use crate::cluster::{self, Cluster, until};

const PLURAL: &str = "authorizationpolicies";

/// A client in the name of `user` with these groups.
async fn impersonated(cluster: &Cluster, user: &str, groups: &[&str]) -> Client {
    let kubeconfig = Kubeconfig {
        kubeconfig: Some(cluster.server.kubeconfig()),
        context: None,
    };
    let mut config = config(&kubeconfig).await.unwrap();
    config.auth_info.impersonate = Some(user.to_owned());
    config.auth_info.impersonate_groups =
        Some(groups.iter().map(|&group| group.to_owned()).collect());
    connect(config).unwrap()
}

async fn create(client: &Client, namespace: &str, object: &Value) -> Said {
    send(client, "POST", &path(namespace, PLURAL, "", ""), object).await
}

/// What a person sees of a refusal.
fn printed_by_kubectl(cluster: &Cluster, folder: &Path, namespace: &str) {
    let Some(kubectl) = component::require(component::kubectl()) else {
        return;
    };
    let file = folder.join("worse.yaml");
    std::fs::write(&file, policy("worse", bad()).to_string()).unwrap();
    let mut command = Command::new(&kubectl.executable);
    command.args(["--namespace", namespace, "create", "--filename"]);
    command.arg(&file).arg("--kubeconfig");
    command.arg(cluster.server.kubeconfig());
    command.env("HOME", folder);
    let said = process::run(&mut command, Duration::from_secs(60)).unwrap();
    let printed = String::from_utf8_lossy(&said.stderr).into_owned();
    let wanted = format!(
        "Error from server (Forbidden): error when creating \"{}\": admission webhook \"policies.portcullis.dev\" \
         denied the request: AuthorizationPolicy {namespace}/worse: PC0102\n  PC0102: ",
        file.display()
    );
    assert!(printed.starts_with(&wanted), "{printed}");
    assert!(!said.status.success());
}

/// Waits until the API server has the webhook.
async fn asked(client: &Client, namespace: &str) {
    let path = path(namespace, PLURAL, "", "?dryRun=All");
    until("the API server asks the webhook", async || {
        let said = send(client, "POST", &path, &policy("probe", bad())).await;
        said.status == 403 && said.message().contains("denied the request")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_judged_as_clients_send_them() {
    let Some((cluster, client, folder)) = super::webhook::cluster("kubernetes-admission").await
    else {
        return;
    };
    let more = "  webhook_configuration: judged\n  floor: audit\n  codes: {PC0120: deny}\n  break_glass: {groups: [oncall]}\n";
    let replica = Replica::start(&cluster, &folder, "replica", more);
    // Nobody knows its authority yet, and it says so.
    until("the management listener", async || {
        replica.managed("/livez").is_some()
    })
    .await;
    let (status, missing) = replica.managed("/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(missing.contains("\"missing\":["), "{missing}");
    let service = Service::start();
    service.add(replica.address);
    let configuration_of_ours = configuration(&service.url(), "judged", "judged", &[]);
    cluster::apply(&client, &configuration_of_ours)
        .await
        .unwrap();
    replica.ready().await;
    let namespace = judged_namespace(&client, "judged", json!({})).await;
    asked(&client, &namespace).await;
    let at = |name: &str, query: &str| path(&namespace, PLURAL, name, query);

    // Create, replace, patch, delete.
    let said = create(&client, &namespace, &policy("web", good())).await;
    assert_eq!(said.status, 201, "{said:?}");
    let said = create(&client, &namespace, &policy("worse", bad())).await;
    assert_eq!(said.status, 403, "{said:?}");
    let first = said.message().lines().next().unwrap().to_owned();
    let wanted = format!(
        "admission webhook \"policies.portcullis.dev\" denied the request: AuthorizationPolicy {namespace}/worse: PC0102"
    );
    assert_eq!(first, wanted);
    assert!(said.message().contains("\n  PC0102: "), "{said:?}");
    assert_eq!(said.body["reason"], "Forbidden", "{said:?}");
    let cause = &said.body["details"]["causes"][0];
    assert_eq!(cause["reason"], "PC0102", "{said:?}");
    assert_eq!(cause["field"], "spec.rules", "{said:?}");
    printed_by_kubectl(&cluster, &folder, &namespace);
    let patch = json!({ "spec": { "rules": null } });
    let said = send(&client, "PATCH", &at("web", ""), &patch).await;
    assert_eq!(said.status, 403, "{said:?}");
    let mut replaced = send(&client, "GET", &at("web", ""), &Value::Null)
        .await
        .body;
    assert_eq!(replaced["spec"], good(), "a refused change changes nothing");
    replaced["spec"] = bad();
    let said = send(&client, "PUT", &at("web", ""), &replaced).await;
    assert_eq!(said.status, 403, "{said:?}");
    let status = json!({ "status": { "conditions": [] } });
    let said = send(&client, "PATCH", &at("web/status", ""), &status).await;
    assert_eq!(said.status, 200, "{said:?}");

    // Server-side dry run: judged, and nothing is kept.
    let said = send(
        &client,
        "POST",
        &at("", "?dryRun=All"),
        &policy("dry", good()),
    )
    .await;
    assert_eq!(said.status, 201, "{said:?}");
    let said = send(
        &client,
        "POST",
        &at("", "?dryRun=All"),
        &policy("dry", bad()),
    )
    .await;
    assert_eq!(said.status, 403, "{said:?}");
    assert_eq!(
        send(&client, "GET", &at("dry", ""), &Value::Null)
            .await
            .status,
        404
    );

    // A name that the API server makes.
    let mut generated = policy("", good());
    generated["metadata"] = json!({ "generateName": "web-" });
    assert_eq!(create(&client, &namespace, &generated).await.status, 201);

    // Warnings reach the client, with code, path and hint.
    let source = json!({ "principals": ["cluster.local/ns/*/sa/a"] });
    let odd = json!({ "rules": [{ "from": [{ "source": source }] }] });
    let said = create(&client, &namespace, &policy("odd", odd)).await;
    assert_eq!(said.status, 201, "{said:?}");
    let warning = said.warnings.iter().find(|w| w.contains("PC0121: "));
    let warning = warning.unwrap_or_else(|| panic!("{said:?}"));
    assert!(
        warning.contains("(spec.rules[0].from[0].source.principals[0]); "),
        "{warning}"
    );
    // A code that is configured to refuse.
    let source = json!({ "principals": ["spiffe://cluster.local/ns/a/sa/a"] });
    let strict = json!({ "rules": [{ "from": [{ "source": source }] }] });
    let said = create(&client, &namespace, &policy("strict", strict.clone())).await;
    assert!(
        said.status == 403 && said.message().contains("PC0120"),
        "{said:?}"
    );

    // A namespace that loosens: what is refused elsewhere is a warning, or only in the audit log.
    let label = |level: &str| json!({ "portcullis.dev/enforcement": level });
    let warned = judged_namespace(&client, "judged", label("warn")).await;
    until("the label is known", async || {
        let said = create(&client, &warned, &policy("bad", bad())).await;
        said.status == 201 && said.warnings.iter().any(|w| w.contains("PC0102: "))
            || said.status == 409
    })
    .await;
    let audited = judged_namespace(&client, "judged", label("audit")).await;
    until("the label is known", async || {
        let said = send(
            &client,
            "POST",
            &path(&audited, PLURAL, "", "?dryRun=All"),
            &policy("strict", strict.clone()),
        )
        .await;
        said.status == 201 && said.warnings.is_empty()
    })
    .await;

    // Break-glass: the annotation and the group.
    let mut broken = policy("glass", bad());
    broken["metadata"]["annotations"] = json!({ "portcullis.dev/break-glass": "incident 7" });
    let admin = "system:masters";
    let ann = impersonated(&cluster, "ann", &[admin]).await;
    let said = create(&ann, &namespace, &broken).await;
    assert_eq!(said.status, 403, "{said:?}");
    assert!(
        said.message().contains("`ann` sets the annotation"),
        "{said:?}"
    );
    let bob = impersonated(&cluster, "bob", &[admin, "oncall"]).await;
    let said = create(&bob, &namespace, &broken).await;
    assert_eq!(said.status, 201, "{said:?}");
    assert!(
        said.warnings.iter().any(|w| w.contains("incident 7")),
        "{said:?}"
    );
    let said = create(&bob, &namespace, &policy("plain", bad())).await;
    assert_eq!(said.status, 403, "the group alone is not enough: {said:?}");
    let log = replica.daemon.log();
    assert!(
        log.contains("incident 7") && log.contains("break_glass"),
        "{log}"
    );

    // Bookkeeping on what is bad passes: finalizers must come off.
    let patch = json!({ "metadata": { "finalizers": ["portcullis.dev/test"] } });
    for name in ["glass"] {
        assert_eq!(send(&ann, "PATCH", &at(name, ""), &patch).await.status, 200);
    }
    assert_eq!(
        send(&ann, "DELETE", &at("glass", ""), &Value::Null)
            .await
            .status,
        200
    );
    let patch = json!({ "metadata": { "finalizers": null } });
    assert_eq!(
        send(&ann, "PATCH", &at("glass", ""), &patch).await.status,
        200
    );
    assert_eq!(
        send(&ann, "GET", &at("glass", ""), &Value::Null)
            .await
            .status,
        404
    );

    cases(&client).await;

    let (_, metrics) = replica.managed("/metrics").unwrap();
    for wanted in [
        "portcullis_admission_decisions_total{kind=\"AuthorizationPolicy\",operation=\"CREATE\",decision=\"deny\",cause=\"invalid\",dry_run=\"true\"}",
        "portcullis_admission_break_glass_total{result=\"granted\"} 1",
        "portcullis_admission_break_glass_total{result=\"refused\"} 1",
        "cause=\"cases_break\"",
        "portcullis_source_synced 1",
        "portcullis_source_kind_state{resource=\"pods\",state=\"following\"} 1",
    ] {
        assert!(metrics.contains(wanted), "{wanted}\n{metrics}");
    }
    nobody_judges(&client, replica, service).await;
}

/// A case that must hold refuses the change, and the deletion, that breaks it.
async fn cases(client: &Client) {
    let namespace = judged_namespace(client, "judged", json!({})).await;
    cluster::pod(client, &namespace, "web", "10.9.0.1").await;
    let closed = json!({ "selector": { "matchLabels": { "app": "web" } }, "action": "DENY", "rules": [{ "to": [{ "operation": { "paths": ["/admin"], "ports": ["8080"] } }] }] });
    let made = |plural: &str, object: Value| {
        let path = path(&namespace, plural, "", "");
        async move { send(client, "POST", &path, &object).await }
    };
    let said = made(PLURAL, policy("closed", closed)).await;
    assert_eq!(said.status, 201, "{said:?}");
    // Without a test nothing refuses its deletion; what comes of that is told. The pod is followed a moment later.
    until("the deletion of a DENY policy is a warning", async || {
        let path = path(&namespace, PLURAL, "closed", "?dryRun=All");
        let said = send(client, "DELETE", &path, &Value::Null).await;
        assert_eq!(said.status, 200, "{said:?}");
        let wanted =
            format!("what `{namespace}/closed#rule[0]` denied is denied by no rule any more");
        let mut warnings = said.warnings.iter();
        warnings.any(|w| w.contains("PC0523: ") && w.contains(&wanted) && w.contains("/web`"))
    })
    .await;
    let request = |path: &str| {
        let address =
            |a: &str, p: u16| json!({ "socketAddress": { "address": a, "portValue": p } });
        json!({ "attributes": {
            "source": { "address": address("10.1.0.7", 40000), "principal": "spiffe://cluster.local/ns/a/sa/b" },
            "destination": { "address": address("10.9.0.1", 8080) },
            "request": { "http": { "method": "GET", "path": path, "host": "web" } },
        } })
    };
    let test = json!({
        "apiVersion": "portcullis.dev/v1alpha1", "kind": "PolicyTest", "metadata": { "name": "admin" },
        "spec": { "cases": [
            { "name": "the admin page is closed", "request": request("/admin"), "decision": "deny", "reason": "denied_by" },
            { "name": "shoppers come in", "request": request("/"), "decision": "allow", "reason": "no_allow_policy" },
        ] },
    });
    // The pod and the policy are followed a moment later: until then the cases are told to fail, and taken all the same.
    until("the test's cases hold", async || {
        let path = path(&namespace, "policytests", "", "?dryRun=All");
        let said = send(client, "POST", &path, &test).await;
        assert_eq!(said.status, 201, "{said:?}");
        said.warnings.is_empty()
    })
    .await;
    assert_eq!(made("policytests", test).await.status, 201);
    until("a change that breaks a case is refused", async || {
        let path = path(&namespace, PLURAL, "closed", "?dryRun=All");
        let said = send(client, "DELETE", &path, &Value::Null).await;
        said.status == 403
            && said
                .message()
                .contains("case `the admin page is closed`: wants deny")
    })
    .await;
    let said = made(
        PLURAL,
        policy(
            "nobody",
            json!({ "selector": { "matchLabels": { "app": "web" } } }),
        ),
    )
    .await;
    assert_eq!(said.status, 403, "{said:?}");
    assert!(
        said.message()
            .contains("case `shoppers come in`: wants allow"),
        "{said:?}"
    );
    let other = judged_namespace(client, "judged", json!({})).await;
    let said = send(
        client,
        "POST",
        &path(&other, PLURAL, "", ""),
        &policy("nobody", json!({})),
    )
    .await;
    assert_eq!(
        said.status, 201,
        "tests of another namespace do not bind: {said:?}"
    );
}

/// The failure policy decides.
async fn nobody_judges(client: &Client, mut replica: Replica, service: Service) {
    replica.daemon.kill();
    let namespace = judged_namespace(client, "judged", json!({})).await;
    // That the namespace is one to judge in, the API server knows a moment later.
    until("the failure policy refuses", async || {
        let path = path(&namespace, PLURAL, "", "?dryRun=All");
        let said = send(client, "POST", &path, &policy("web", good())).await;
        let failed = "failed calling webhook \"policies.portcullis.dev\"";
        said.status == 500 && said.message().contains(failed)
    })
    .await;
    let ignoring = configuration(
        &service.url(),
        "judged",
        "judged",
        &["--failure-policy", "ignore"],
    );
    cluster::apply(client, &ignoring).await.unwrap();
    until("nobody is asked", async || {
        let path = path(&namespace, PLURAL, "", "?dryRun=All");
        send(client, "POST", &path, &policy("web", bad()))
            .await
            .status
            == 201
    })
    .await;
}
