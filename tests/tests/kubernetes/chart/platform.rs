//! What whoever runs a cluster asks of a chart: the same text each time, his own words on every pod, pods that move and scale.

use std::fs;

use portcullis_tests::component::workspace;
use serde_json::Value;

use super::helm::{documents, find, helm, named};
use super::matrix::MATRIX;

/// Everything at once, with the words that a platform puts on each pod.
const EVERYTHING: &str = r"
imagePullSecrets: [{name: registry}]
authz: &words
  nodeSelector: {pool: identity}
  tolerations: [{key: pool, operator: Exists}]
  affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: []}}
  priorityClassName: critical
  podLabels: {team: platform}
  podAnnotations: {note: kept}
  extraEnv: [{name: REGION, value: north}]
  resources: {requests: {cpu: 250m}}
admission: *words
ca:
  <<: *words
  enabled: true
  csi: {enabled: true, driverImage: 'mirror.example/csi:1', registrarImage: 'mirror.example/registrar:1'}
image: {repository: mirror.example/portcullis, pullPolicy: Always}
";

fn workloads(objects: &[Value]) -> Vec<&Value> {
    let is_one = |one: &&Value| one["spec"]["template"]["spec"]["containers"].is_array();
    objects.iter().filter(is_one).collect()
}

#[test]
fn the_same_values_make_the_same_text_and_nothing_is_left_to_helm() {
    let Some(helm) = helm() else { return };
    for (name, values) in MATRIX {
        let once = helm.template(&format!("same-{name}"), values).unwrap();
        let again = helm.template(&format!("same-{name}"), values).unwrap();
        assert!(once == again, "{name}: rendered anew it differs");
        for object in documents(&once) {
            let annotations = object["metadata"]["annotations"].to_string();
            assert!(
                !annotations.contains("helm.sh/hook"),
                "{name}: {} is a hook",
                named(&object)
            );
        }
    }
    // What asks the cluster, the clock or chance renders to something else where there is no cluster.
    let mut folders = vec![workspace().join("deploy/chart/templates")];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for word in [
                "lookup ",
                "rand",
                "genCA",
                "genSelfSigned",
                "uuidv4",
                "now ",
                "| now",
                "shuffle",
            ] {
                for line in text.lines().filter(|line| line.contains("{{")) {
                    assert!(!line.contains(word), "{}: {line}", path.display());
                }
            }
            read += 1;
        }
    }
    assert!(read > 12, "{read}");
}

#[test]
fn every_pod_has_what_the_platform_puts_on_pods() {
    let Some(helm) = helm() else { return };
    let objects = helm.objects("everything", EVERYTHING);
    let workloads = workloads(&objects);
    assert_eq!(workloads.len(), 4, "authz, admission, ca, csi");
    for workload in workloads {
        let whose = named(workload);
        let template = &workload["spec"]["template"];
        let pod = &template["spec"];
        assert_eq!(pod["nodeSelector"]["pool"], "identity", "{whose}");
        assert_eq!(pod["tolerations"][0]["key"], "pool", "{whose}");
        assert!(pod["affinity"]["nodeAffinity"].is_object(), "{whose}");
        assert_eq!(pod["priorityClassName"], "critical", "{whose}");
        assert_eq!(pod["imagePullSecrets"][0]["name"], "registry", "{whose}");
        assert_eq!(
            template["metadata"]["labels"]["team"], "platform",
            "{whose}"
        );
        assert_eq!(
            template["metadata"]["annotations"]["note"], "kept",
            "{whose}"
        );
        for container in pod["containers"].as_array().unwrap() {
            let image = container["image"].as_str().unwrap();
            assert!(image.starts_with("mirror.example/"), "{whose}: {image}");
            assert_eq!(container["imagePullPolicy"], "Always", "{whose}");
            assert!(container["resources"]["requests"].is_object(), "{whose}");
            if !whose.ends_with("-csi") {
                assert_eq!(container["resources"]["requests"]["cpu"], "250m", "{whose}");
                let env = container["env"].as_array().unwrap();
                assert!(env.iter().any(|one| one["name"] == "REGION"), "{whose}");
            }
        }
        // Replicas are spread by the labels that they have, and each generation of them by itself.
        for one in pod["topologySpreadConstraints"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let labels = &template["metadata"]["labels"];
            let selector = one["labelSelector"]["matchLabels"].as_object().unwrap();
            assert!(selector.len() >= 3, "{whose}: {selector:?}");
            assert!(
                selector.iter().all(|(key, value)| labels[key] == *value),
                "{whose}"
            );
            assert_eq!(one["matchLabelKeys"][0], "pod-template-hash", "{whose}");
            assert_eq!(
                workload["kind"], "Deployment",
                "only its pods have that label"
            );
        }
    }
    // Beside workloads, too.
    let values = format!("{EVERYTHING}\n").replace(
        "authz: &words\n",
        "authz: &words\n  mode: sidecar\n  sidecar: {workloads: [{namespace: shop, serviceAccount: web}]}\n",
    );
    let values = values
        .replace("admission: *words\n", "")
        .replace("  <<: *words\n", "");
    let objects = helm.objects("everything-sidecar", &values);
    let map = find(&objects, "ConfigMap/portcullis-sidecar");
    let patch = documents(map["data"]["sidecar.yaml"].as_str().unwrap()).remove(0);
    let pod = &patch["spec"]["template"]["spec"];
    assert_eq!(pod["imagePullSecrets"][0]["name"], "registry");
    let container = &pod["initContainers"][0];
    assert_eq!(container["resources"]["requests"]["cpu"], "250m");
    assert_eq!(container["image"], "mirror.example/portcullis:0.1.0");
}

#[test]
fn probes_and_services_ask_where_the_configuration_listens() {
    let Some(helm) = helm() else { return };
    let mut probed = 0;
    for (name, values) in MATRIX {
        let objects = helm.objects(&format!("probes-{name}"), values);
        for workload in workloads(&objects) {
            let whose = named(workload);
            let container = &workload["spec"]["template"]["spec"]["containers"][0];
            if container["livenessProbe"].is_null() {
                assert!(whose.ends_with("-csi"), "{name}: {whose} has no probes");
                continue;
            }
            let map = find(
                &objects,
                &format!(
                    "ConfigMap/{}",
                    workload["metadata"]["name"].as_str().unwrap()
                ),
            );
            let config = documents(map["data"]["portcullis.yaml"].as_str().unwrap()).remove(0);
            let management = [
                &config["management"]["address"],
                &config["admission"]["management"],
                &config["ca"]["management"]["address"],
            ];
            let management = management.iter().find_map(|one| one.as_str()).unwrap();
            let port = |named: &Value| {
                let ports = container["ports"].as_array().unwrap();
                let mut of = ports.iter().filter(|port| port["name"] == *named);
                let found = of
                    .next()
                    .unwrap_or_else(|| panic!("{name}: {whose}: no port {named}"));
                assert!(of.next().is_none(), "{name}: {whose}: {named} twice");
                found["containerPort"].as_u64().unwrap()
            };
            for (probe, path) in [
                ("startupProbe", "/livez"),
                ("livenessProbe", "/livez"),
                ("readinessProbe", "/readyz"),
            ] {
                let get = &container[probe]["httpGet"];
                assert_eq!(get["path"], path, "{name}: {whose}");
                let at = format!(":{}", port(&get["port"]));
                assert!(
                    management.ends_with(&at),
                    "{name}: {whose}: {management}, {at}"
                );
                // From outside the pod nobody reaches its loopback.
                assert!(
                    !management.starts_with("127."),
                    "{name}: {whose}: {management}"
                );
            }
            for listener in config["listeners"].as_array().into_iter().flatten() {
                let address = listener["address"].as_str().unwrap();
                let ports = container["ports"].as_array().unwrap();
                let is_open =
                    |port: &Value| address.ends_with(&format!(":{}", port["containerPort"]));
                assert!(ports.iter().any(is_open), "{name}: {whose}: {address}");
            }
            probed += 1;
        }
    }
    assert!(probed >= MATRIX.len(), "{probed}");
}

#[test]
fn budgets_let_nodes_be_drained_and_scaling_is_one_s_alone() {
    let Some(helm) = helm() else { return };
    for (values, said) in [
        (
            "authz: {mode: daemonset, autoscaling: {enabled: true}}",
            "only a Deployment is scaled",
        ),
        (
            "authz: {autoscaling: {enabled: true, minReplicas: 9, maxReplicas: 3}}",
            "minReplicas is more than maxReplicas",
        ),
        (
            "ca: {enabled: true, csi: {enabled: true}, workloadAPI: {hostPath: ''}}",
            "ca.csi.enabled",
        ),
        (
            "admission: {certManager: {enabled: true}}",
            "name the issuer",
        ),
    ] {
        let refused = helm.template("contradictory", values);
        let refused = refused.err().unwrap_or_else(|| panic!("taken: {values}"));
        assert!(refused.contains(said), "{values}: {refused}");
    }
    let one = helm.objects(
        "one-replica",
        "authz: {replicas: 1}\nadmission: {replicas: 1}",
    );
    for budget in one
        .iter()
        .filter(|one| one["kind"] == "PodDisruptionBudget")
    {
        // With `minAvailable: 1` the node of a single replica could never be drained.
        assert_eq!(budget["spec"]["maxUnavailable"], 1, "{}", named(budget));
        assert!(
            budget["spec"].get("minAvailable").is_none(),
            "{}",
            named(budget)
        );
    }
}

#[test]
fn one_authority_has_one_volume() {
    let Some(helm) = helm() else { return };
    for (values, mode) in [
        ("ca: {enabled: true}", "ReadWriteOncePod"),
        (
            "ca: {enabled: true, persistence: {accessMode: ReadWriteOnce}}",
            "ReadWriteOnce",
        ),
    ] {
        let objects = helm.objects("one-volume", values);
        let set = find(&objects, "StatefulSet/portcullis-ca");
        assert_eq!(set["spec"]["replicas"], 1);
        let claims = set["spec"]["volumeClaimTemplates"].as_array().unwrap();
        assert_eq!(claims.len(), 1);
        assert_eq!(claims[0]["spec"]["accessModes"], serde_json::json!([mode]));
        let scaled = |one: &&Value| one["spec"]["scaleTargetRef"]["name"] == "portcullis-ca";
        assert!(objects.iter().find(scaled).is_none());
    }
}

#[test]
fn what_a_network_asks_for_is_rendered() {
    let Some(helm) = helm() else { return };
    let values = "admission: {hostNetwork: true}\nnetworkPolicy: {dnsPorts: [53, 5353]}";
    let objects = helm.objects("network", values);
    let pod = &find(&objects, "Deployment/portcullis-admission")["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["dnsPolicy"], "ClusterFirstWithHostNet");
    let authz = &find(&objects, "Deployment/portcullis-authz")["spec"]["template"]["spec"];
    assert!(authz.get("hostNetwork").is_none());
    let policy = find(&objects, "NetworkPolicy/portcullis-authz");
    let names = policy["spec"]["egress"][0]["ports"].as_array().unwrap();
    let ports: Vec<_> = names
        .iter()
        .map(|port| port["port"].as_u64().unwrap())
        .collect();
    assert_eq!(ports, [53, 53, 5353, 5353]);
    // An empty list of peers would mean everybody.
    for policy in objects.iter().filter(|one| one["kind"] == "NetworkPolicy") {
        for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in policy["spec"][rules].as_array().into_iter().flatten() {
                let is_empty = rule[peers].as_array().is_some_and(Vec::is_empty);
                assert!(!is_empty, "{}: {rule}", named(policy));
            }
        }
    }
}
