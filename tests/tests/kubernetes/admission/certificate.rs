//! Two replicas whose certificates and authorities change while policies are applied: no call fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{Api, Client};
use serde_json::json;

use super::webhook::{
    Replica, Service, bad, configuration, good, judged_namespace, path, policy, send,
};
use crate::cluster::{self, until};

const PLURAL: &str = "authorizationpolicies";

/// Roots that API servers are told.
async fn roots(client: &Client) -> Vec<String> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let found = api.get("rolling").await.unwrap();
    let webhooks = found.webhooks.unwrap_or_default();
    let bundle = webhooks[0]
        .client_config
        .ca_bundle
        .clone()
        .map(|pem| pem.0)
        .unwrap_or_default();
    let text = String::from_utf8(bundle).unwrap();
    text.split_inclusive("-----END CERTIFICATE-----\n")
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_authorities_and_replicas_change() {
    let Some((cluster, client, folder)) = super::webhook::cluster("kubernetes-certificate").await
    else {
        return;
    };
    let more = "  webhook_configuration: rolling\n  \
        certificate: {secret: {authority_ttl: 24s, certificate_ttl: 6s, lead: 3s}}\n";
    let service = Service::start();
    let rolling = configuration(&service.url(), "rolling", "rolling", &[]);
    cluster::apply(&client, &rolling).await.unwrap();
    let (one, mut two) = (
        Replica::start(&cluster, &folder, "one", more),
        Replica::start(&cluster, &folder, "two", more),
    );
    one.ready().await;
    two.ready().await;
    service.add(one.address);
    let second = service.add(two.address);
    let namespace = judged_namespace(&client, "rolling", json!({})).await;
    let probe = path(&namespace, PLURAL, "", "?dryRun=All");
    until("the API server asks the webhook", async || {
        send(&client, "POST", &probe, &policy("probe", bad()))
            .await
            .status
            == 422
    })
    .await;
    let first = roots(&client).await;
    assert_eq!(first.len(), 1, "both replicas share one authority");

    // From here on somebody applies policies without a pause.
    let over = Arc::new(AtomicBool::new(false));
    let applying = {
        let (client, over, probe) = (client.clone(), Arc::clone(&over), probe.clone());
        tokio::spawn(async move {
            let (mut calls, mut failed) = (0, Vec::new());
            while !over.load(Ordering::SeqCst) {
                for (spec, wanted) in [(good(), 201), (bad(), 422)] {
                    let said = send(&client, "POST", &probe, &policy("web", spec)).await;
                    calls += 1;
                    if said.status != wanted || said.is_failure() {
                        failed.push(format!("{} {}", said.status, said.message()));
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (calls, failed)
        })
    };
    // A successor is published, and then signs.
    until("a second authority is published", async || {
        roots(&client).await.len() == 2
    })
    .await;
    let published = Instant::now();
    let certificates = |replica: &Replica| {
        let (_, text) = replica.managed("/metrics").unwrap_or_default();
        let line = "portcullis_admission_certificates_total{result=\"success\"} ";
        let count = text
            .lines()
            .find_map(|l| l.strip_prefix(line)?.parse::<u64>().ok());
        count.unwrap_or(0)
    };
    let before = [certificates(&one), certificates(&two)];
    until("both serve certificates of the successor", async || {
        certificates(&one) > before[0] + 1
            && certificates(&two) > before[1] + 1
            && published.elapsed() > Duration::from_secs(6)
    })
    .await;
    // A rolling update: an endpoint goes, its process is told to stop, another comes.
    let stopping = tokio::task::spawn_blocking(move || {
        let ended = Instant::now();
        let flag = second;
        let terminated = std::thread::spawn(move || two.daemon.terminate(Duration::from_secs(20)));
        // Endpoints follow a moment after the signal.
        std::thread::sleep(Duration::from_millis(300));
        flag.store(false, Ordering::SeqCst);
        let status = terminated.join().unwrap().unwrap();
        (status, ended.elapsed())
    });
    let (status, took) = stopping.await.unwrap();
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    let three = Replica::start(&cluster, &folder, "three", more);
    three.ready().await;
    service.add(three.address);
    tokio::time::sleep(Duration::from_secs(1)).await;
    over.store(true, Ordering::SeqCst);
    let (calls, failed) = applying.await.unwrap();
    assert!(calls > 50, "{calls}");
    assert_eq!(failed, [""; 0], "of {calls} calls");
    assert!(
        roots(&client)
            .await
            .iter()
            .any(|root| !first.contains(root))
    );
}
