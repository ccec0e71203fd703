//! What the chart carries is what the repository has, and what it renders holds together.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use portcullis_tests::component::{run_folder, workspace};
use portcullis_tests::process;
use serde_json::Value;

use super::helm::{Helm, documents, find, helm, named};
use super::matrix::MATRIX;

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|cause| panic!("`{path}`: {cause}"))
}

#[test]
fn the_linter_finds_nothing() {
    let Some(helm) = helm() else { return };
    for (name, values) in MATRIX {
        let file = run_folder(&format!("chart-lint-{name}")).join("values.yaml");
        fs::write(&file, values).unwrap();
        let file = file.to_str().unwrap();
        let output = helm.run(&["lint", "--strict", "deploy/chart", "--values", file]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {said}");
        for bad in ["[WARNING]", "[ERROR]"] {
            assert!(!said.contains(bad), "{name}: {said}");
        }
    }
}

#[test]
fn dashboards_and_alerts_are_those_of_the_repository() {
    let mut compared = 0;
    for (ours, charts) in [("grafana", ".json"), ("prometheus", ".rules.yaml")] {
        let folder = workspace().join("deploy").join(ours);
        let names: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(charts))
            .collect();
        let copied: BTreeSet<String> =
            fs::read_dir(workspace().join("deploy/chart/files").join(ours))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
        assert_eq!(copied, names, "deploy/chart/files/{ours}");
        for name in names {
            assert!(
                read(&format!("deploy/chart/files/{ours}/{name}"))
                    == read(&format!("deploy/{ours}/{name}")),
                "copy deploy/{ours}/{name} into deploy/chart/files/{ours}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 4);
}

/// portcullis.yaml as each ConfigMap has it.
fn configurations(objects: &[Value]) -> Vec<(String, String)> {
    let maps = objects.iter().filter(|one| one["kind"] == "ConfigMap");
    maps.filter_map(|map| {
        let text = map["data"]["portcullis.yaml"].as_str()?;
        Some((named(map), text.to_owned()))
    })
    .collect()
}

#[test]
fn every_configuration_is_one_that_portcullis_reads() {
    let Some(helm) = helm() else { return };
    let folder = run_folder("chart-configurations");
    let mut read = 0;
    for (name, values) in MATRIX {
        for (map, text) in configurations(&helm.objects(&format!("config-{name}"), values)) {
            let file = folder.join("portcullis.yaml");
            fs::write(&file, &text).unwrap();
            // It reads the whole file before it prints anything.
            let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis-e2e"));
            command
                .args(["authz", "config", "envoy", "--config"])
                .arg(&file);
            let output = process::run(&mut command, Duration::from_secs(20)).unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}, {map}: {said}\n{text}");
            read += 1;
        }
    }
    assert!(read >= MATRIX.len());
}

#[test]
fn names_that_objects_give_each_other_exist() {
    let Some(helm) = helm() else { return };
    for (name, values) in MATRIX {
        let objects = helm.objects(&format!("names-{name}"), values);
        let there: BTreeSet<String> = objects.iter().map(named).collect();
        assert_eq!(
            there.len() + same_names(&objects),
            objects.len(),
            "{name}: every name is one object's"
        );
        for object in &objects {
            let whose = named(object);
            // Every namespaced object says its namespace, so that `helm template | kubectl apply` works, too.
            let cluster = [
                "ClusterRole",
                "ClusterRoleBinding",
                "CSIDriver",
                "CustomResourceDefinition",
                "ValidatingWebhookConfiguration",
            ];
            let has = object["metadata"].get("namespace").is_some();
            assert_eq!(
                has,
                !cluster.contains(&object["kind"].as_str().unwrap()),
                "{name}: {whose}"
            );
            if let Some(role) = object["roleRef"]["name"].as_str() {
                let role = format!("{}/{role}", object["roleRef"]["kind"].as_str().unwrap());
                assert!(there.contains(&role), "{name}: {whose} names {role}");
            }
            let spec = &object["spec"]["template"]["spec"];
            if let Some(account) = spec["serviceAccountName"]
                .as_str()
                .filter(|account| *account != "own")
            {
                assert!(
                    there.contains(&format!("ServiceAccount/{account}")),
                    "{name}: {whose}"
                );
            }
            for volume in spec["volumes"].as_array().into_iter().flatten() {
                if let Some(map) = volume["configMap"]["name"].as_str() {
                    assert!(
                        there.contains(&format!("ConfigMap/{map}")),
                        "{name}: {whose} mounts {map}"
                    );
                }
            }
            // A selector that misses its own pods selects nobody.
            let selector = object["spec"]["selector"]["matchLabels"].as_object();
            if let (Some(selector), Some(_)) = (selector, object["spec"].get("template")) {
                let labels = &object["spec"]["template"]["metadata"]["labels"];
                assert!(
                    selector.iter().all(|(key, value)| labels[key] == *value),
                    "{name}: {whose}"
                );
            }
        }
        services_find_their_pods(name, &objects);
    }
}

/// Objects whose kind and name another namespace has as well.
fn same_names(objects: &[Value]) -> usize {
    let all: Vec<_> = objects
        .iter()
        .map(|one| {
            (
                named(one),
                one["metadata"]["namespace"].as_str().map(str::to_owned),
            )
        })
        .collect();
    let whole: BTreeSet<_> = all.iter().collect();
    assert_eq!(whole.len(), all.len(), "twice: {all:?}");
    let names: BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
    all.len() - names.len()
}

fn services_find_their_pods(name: &str, objects: &[Value]) {
    let selecting = [
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceMonitor",
    ];
    let templates: Vec<&Value> = objects
        .iter()
        .map(|one| &one["spec"]["template"])
        .filter(|one| !one.is_null())
        .collect();
    for object in objects
        .iter()
        .filter(|one| selecting.contains(&one["kind"].as_str().unwrap()))
    {
        let spec = &object["spec"];
        let selector = match object["kind"].as_str().unwrap() {
            "Service" => &spec["selector"],
            "NetworkPolicy" => &spec["podSelector"]["matchLabels"],
            _ => &spec["selector"]["matchLabels"],
        };
        let selector = selector.as_object().unwrap();
        let services = objects
            .iter()
            .filter(|one| one["kind"] == "Service")
            .map(|one| &one["metadata"]["labels"]);
        let candidates: Vec<&Value> = match object["kind"] == "ServiceMonitor" {
            true => services.collect(),
            false => templates
                .iter()
                .map(|one| &one["metadata"]["labels"])
                .collect(),
        };
        let found = candidates
            .iter()
            .filter(|labels| selector.iter().all(|(key, value)| labels[key] == *value))
            .count();
        let everything = object["metadata"]["name"]
            .as_str()
            .unwrap()
            .ends_with("default-deny");
        assert!(
            if everything { found >= 1 } else { found == 1 },
            "{name}: {} selects {found}",
            named(object)
        );
        // Ports by name are ports of the pods.
        for port in spec["ports"].as_array().into_iter().flatten() {
            let wanted = port["targetPort"].as_str().unwrap();
            let has = templates
                .iter()
                .flat_map(|one| one["spec"]["containers"].as_array().unwrap())
                .any(|container| {
                    container["ports"]
                        .as_array()
                        .is_some_and(|ports| ports.iter().any(|port| port["name"] == wanted))
                });
            assert!(has, "{name}: {}: {wanted}", named(object));
        }
    }
}

#[test]
fn what_is_given_reaches_where_it_counts() {
    let Some(helm) = helm() else { return };
    let objects = helm.objects("reaches-scaled", value("scaled"));
    let deployment = find(&objects, "Deployment/portcullis-authz");
    // Two that count replicas would fight.
    assert!(deployment["spec"].get("replicas").is_none());
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(
        pod["containers"][0]["image"],
        "portcullis@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    );
    assert_eq!(pod["imagePullSecrets"][0]["name"], "registry");
    let scaler = find(&objects, "HorizontalPodAutoscaler/portcullis-authz");
    assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], "portcullis-authz");
    assert_eq!(
        find(&objects, "PodDisruptionBudget/portcullis-authz")["spec"]["maxUnavailable"],
        "25%"
    );

    let objects = helm.objects("reaches-proxies", value("proxies"));
    let service = find(&objects, "Service/portcullis");
    let ports = service["spec"]["ports"].as_array().unwrap();
    let ports: Vec<_> = ports
        .iter()
        .map(|port| {
            (
                port["name"].as_str().unwrap(),
                port["port"].as_u64().unwrap(),
                port["appProtocol"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        ports,
        [("grpc", 9191, "kubernetes.io/h2c"), ("nginx", 9192, "http")]
    );
    let config = documents(
        find(&objects, "ConfigMap/portcullis-authz")["data"]["portcullis.yaml"]
            .as_str()
            .unwrap(),
    )
    .remove(0);
    assert_eq!(config["listeners"][1]["dialect"], "ingress-nginx");
    assert_eq!(config["limits"]["deadline"], "2s");
    assert_eq!(config["limits"]["drain"], "10s");
    assert_eq!(config["mesh"]["trustDomain"], "corp.example");
    let policy = find(&objects, "NetworkPolicy/portcullis-authz");
    let egress = policy["spec"]["egress"].as_array().unwrap();
    assert!(egress.iter().any(|rule| rule["ports"][0]["port"] == 4317));
    assert!(
        egress
            .iter()
            .any(|rule| rule["to"][0]["ipBlock"]["cidr"] == "10.96.0.1/32")
    );

    let objects = helm.objects("reaches-daemonset", value("daemonset"));
    assert_eq!(
        find(&objects, "Service/portcullis")["spec"]["internalTrafficPolicy"],
        "Local"
    );
    let pod = &find(&objects, "DaemonSet/portcullis-authz")["spec"]["template"]["spec"];
    assert!(
        pod["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["csi"]["driver"] == "csi.spiffe.io")
    );
    assert!(!objects.iter().any(|one| {
        [
            "PodDisruptionBudget/portcullis-authz",
            "HorizontalPodAutoscaler/portcullis-authz",
        ]
        .contains(&&*named(one))
    }));
}

fn value(name: &str) -> &'static str {
    MATRIX.iter().find(|(other, _)| *other == name).unwrap().1
}

#[test]
fn pods_end_after_they_have_drained_and_start_anew_with_a_new_configuration() {
    let Some(helm) = helm() else { return };
    let template = |helm: &Helm, values: &str| {
        let objects = helm.objects("drain", values);
        find(&objects, "Deployment/portcullis-authz")["spec"]["template"].clone()
    };
    let before = template(&helm, "authz: {drainDelaySeconds: 20, drainSeconds: 40}");
    assert_eq!(before["spec"]["terminationGracePeriodSeconds"], 65);
    let same = template(
        &helm,
        "authz: {drainDelaySeconds: 20, drainSeconds: 40, replicas: 5}",
    );
    assert_eq!(before, same, "replicas start no pod anew");
    let after = template(
        &helm,
        "authz: {drainDelaySeconds: 20, drainSeconds: 40, config: {limits: {deadline: 1s}}}",
    );
    let sum = |template: &Value| template["metadata"]["annotations"]["checksum/config"].clone();
    assert!(sum(&before).is_string());
    assert_ne!(sum(&before), sum(&after));
}

#[test]
fn the_definitions_are_those_that_portcullis_prints() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis-e2e"));
    let output = process::run(command.arg("crds"), Duration::from_secs(20)).unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    let file = "deploy/chart/files/crds.yaml";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(workspace().join(file), printed).unwrap();
        return;
    }
    assert!(
        read(file) == printed,
        "write what `portcullis crds` prints into {file}"
    );
    let Some(helm) = helm() else { return };
    // Rendered, they are the same, but for what has Helm keep them.
    let mut rendered = helm.objects("definitions", "{}");
    rendered.retain(|one| one["kind"] == "CustomResourceDefinition");
    for one in &mut rendered {
        let annotations = one["metadata"]["annotations"].as_object_mut().unwrap();
        let keep = annotations.remove("helm.sh/resource-policy");
        assert_eq!(keep, Some(Value::from("keep")));
        if annotations.is_empty() {
            one["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("annotations");
        }
    }
    let mut wanted = documents(&printed);
    assert_eq!(wanted.len(), 3);
    // Helm writes 0.0 as 0.
    wanted.iter_mut().chain(&mut rendered).for_each(whole);
    let order = |list: &mut Vec<Value>| list.sort_by_key(named);
    order(&mut rendered);
    order(&mut wanted);
    assert_eq!(rendered, wanted);
}

/// A number without a fraction is a whole one.
fn whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let exact = number.as_f64().filter(|number| number.fract() == 0.0);
            if let (Some(exact), true) = (exact, number.is_f64()) {
                *value = Value::from(exact as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole),
        Value::Object(fields) => fields.values_mut().for_each(whole),
        _ => {}
    }
}
