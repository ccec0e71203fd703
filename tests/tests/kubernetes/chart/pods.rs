//! Pods are what Pod Security `restricted` lets in; the certificate authority's alone asks for more, and says so.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use super::applied::{Mode, apply, stage};
use super::helm::{Helm, helm, named};
use super::matrix::MATRIX;

/// A pod of each template.
fn pods(helm: &Helm, values: &str) -> Vec<(String, Value)> {
    let objects = helm.objects("pods", values);
    let pods = objects.iter().filter_map(|one| {
        let template = one["spec"].get("template")?;
        let name = one["metadata"]["name"].as_str()?;
        let spec = &template["spec"];
        // What is in a claim's template is mounted by the claim's name.
        let mut spec = spec.clone();
        for claim in one["spec"]["volumeClaimTemplates"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let name = &claim["metadata"]["name"];
            let volume = json!({ "name": name, "persistentVolumeClaim": { "claimName": name } });
            spec["volumes"].as_array_mut().unwrap().push(volume);
        }
        // Service accounts are made by the chart.
        spec.as_object_mut().unwrap().remove("serviceAccountName");
        let mut metadata = template["metadata"].clone();
        metadata["name"] = json!(name);
        Some((
            named(one),
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }),
        ))
    });
    pods.collect()
}

#[test]
fn restricted_namespaces_take_every_pod_but_the_authoritys() {
    let Some(helm) = helm() else { return };
    let Some(stage) = stage() else { return };
    let levels = ["restricted", "baseline", "privileged"];
    let verdicts: Vec<(String, Vec<String>)> = stage.run(async |client| {
        for level in levels {
            let labels = json!({ "pod-security.kubernetes.io/enforce": level });
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": level, "labels": labels } });
            apply(client, &namespace, Mode::Real).await.unwrap();
        }
        let mut verdicts = Vec::new();
        for (name, values) in MATRIX {
            for (of, pod) in pods(&helm, values) {
                let pod: Pod = serde_json::from_value(pod).unwrap();
                let mut taken = Vec::new();
                for level in levels {
                    if create(client, level, &pod).await {
                        taken.push(level.to_owned());
                    }
                }
                verdicts.push((format!("{name}: {of}"), taken));
            }
        }
        verdicts
    });
    assert!(verdicts.len() >= 8, "{verdicts:?}");
    for (pod, taken) in verdicts {
        let on_the_node = pod.contains("StatefulSet/portcullis-ca")
            && !pod.starts_with("authority-alone")
            || pod.contains("DaemonSet/portcullis-csi");
        let expected: &[&str] = if on_the_node {
            &["privileged"]
        } else {
            &levels
        };
        assert_eq!(taken, expected, "{pod}");
    }
}

/// Whether the namespace takes it; other refusals than Pod Security's are failures.
async fn create(client: &kube::Client, namespace: &str, pod: &Pod) -> bool {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for _ in 0..200 {
        match api.create(&params, pod).await {
            Ok(_) => return true,
            Err(kube::Error::Api(status)) if status.message.contains("violates PodSecurity") => {
                return false;
            }
            // The namespace is new.
            Err(kube::Error::Api(status))
                if status
                    .message
                    .contains("serviceaccount \"default\" not found") =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(cause) => panic!("{namespace}: {cause}"),
        }
    }
    panic!("no service account in `{namespace}`");
}
