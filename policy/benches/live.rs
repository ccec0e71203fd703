//! From one change of a cluster to the next snapshot: `cargo bench -p portcullis-policy --bench live`.
//!
//! Policies of 50 namespaces, each for one application of its namespace; 5,000 pods behind Services with
//! EndpointSlices, each with a service account. A new snapshot is asked once, as its first request would.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark stops at the first surprise"
)]
#![allow(missing_docs, reason = "criterion_group! makes a public function")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, ObjectKey, Store};
use portcullis_policy::request::{Headers, Http, Request};
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::Snapshot;

/// The allocator of the `portcullis` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAMESPACES: usize = 50;
const APPS: usize = 20;
const PODS: usize = 5_000;

fn apply(key: ObjectKey, text: String) -> Change {
    let text = SourceText {
        file: key.file(),
        bytes: text.into_bytes().into(),
    };
    Change::Apply { key, text }
}

/// The `i`th policy, in its `version`th version.
fn policy(i: usize, version: usize) -> Change {
    let (namespace, app) = (i % NAMESPACES, i / NAMESPACES % APPS);
    let action = if i.is_multiple_of(10) {
        "DENY"
    } else {
        "ALLOW"
    };
    let text = format!(
        r#"{{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy","metadata":{{"name":"p{i}","namespace":"ns-{namespace}"}},"spec":{{"selector":{{"matchLabels":{{"app":"app-{app}"}}}},"action":"{action}","rules":[{{"from":[{{"source":{{"principals":["cluster.local/ns/ns-{namespace}/sa/client-{version}","cluster.local/ns/front/sa/web"]}}}}],"to":[{{"operation":{{"methods":["GET"],"paths":["/v{version}/*"],"ports":["8080"]}}}}]}},{{"from":[{{"source":{{"namespaces":["monitoring"]}}}}],"to":[{{"operation":{{"paths":["/metrics"],"ports":["8080"]}}}}]}}]}}}}"#
    );
    let key = ObjectKey::new(
        "security.istio.io",
        "AuthorizationPolicy",
        &format!("ns-{namespace}"),
        &format!("p{i}"),
    );
    apply(key, text)
}

fn pod_key(i: usize) -> ObjectKey {
    ObjectKey::new(
        "",
        "Pod",
        &format!("ns-{}", i % NAMESPACES),
        &format!("pod-{i}"),
    )
}

/// The `i`th pod; its address changes with the version.
fn pod(i: usize, version: usize) -> Change {
    let (namespace, app) = (i % NAMESPACES, i / NAMESPACES % APPS);
    let (a, b) = (i / 250, i % 250);
    let text = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"pod-{i}","namespace":"ns-{namespace}","labels":{{"app":"app-{app}","version":"v1","pod-template-hash":"{i:x}","app.kubernetes.io/managed-by":"Helm"}}}},"spec":{{"serviceAccountName":"app-{app}","containers":[{{"name":"main","ports":[{{"containerPort":8080}}]}}]}},"status":{{"phase":"Running","podIP":"10.{}.{a}.{b}"}}}}"#,
        // Another one each time round.
        version % 251
    );
    apply(pod_key(i), text)
}

/// Namespaces, service accounts, services, EndpointSlices that name the pods.
fn rest() -> Vec<Change> {
    let mut changes = Vec::new();
    for n in 0..NAMESPACES {
        let namespace = format!("ns-{n}");
        let text = format!(
            r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{namespace}"}}}}"#
        );
        changes.push(apply(ObjectKey::new("", "Namespace", "", &namespace), text));
        for app in 0..APPS {
            let name = format!("app-{app}");
            let meta = format!(r#""metadata":{{"name":"{name}","namespace":"{namespace}""#);
            changes.push(apply(
                ObjectKey::new("", "ServiceAccount", &namespace, &name),
                format!(r#"{{"apiVersion":"v1","kind":"ServiceAccount",{meta}}}}}"#),
            ));
            changes.push(apply(
                ObjectKey::new("", "Service", &namespace, &name),
                format!(r#"{{"apiVersion":"v1","kind":"Service",{meta}}},"spec":{{"selector":{{"app":"{name}"}},"clusterIP":"172.16.{n}.{app}","ports":[{{"port":80,"targetPort":8080}}]}}}}"#),
            ));
            let mut endpoints = String::new();
            for i in (0..PODS).filter(|i| i % NAMESPACES == n && i / NAMESPACES % APPS == app) {
                let comma = if endpoints.is_empty() { "" } else { "," };
                write!(endpoints, r#"{comma}{{"addresses":["10.0.{}.{}"],"targetRef":{{"kind":"Pod","name":"pod-{i}","namespace":"{namespace}"}}}}"#, i / 250, i % 250).unwrap();
            }
            changes.push(apply(
                ObjectKey::new("discovery.k8s.io", "EndpointSlice", &namespace, &name),
                format!(r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice",{meta},"labels":{{"kubernetes.io/service-name":"{name}"}}}},"addressType":"IPv4","endpoints":[{endpoints}]}}"#),
            ));
        }
    }
    changes
}

fn cluster(policies: usize) -> Store {
    let mut store = Store::new(Settings::default());
    store.change(rest());
    store.change((0..PODS).map(|i| pod(i, 0)));
    store.change((0..policies).map(|i| policy(i, 0)));
    let snapshot = store.snapshot();
    assert_eq!(snapshot.policy_count(), policies);
    assert_eq!(snapshot.inventory().len(), PODS);
    store
}

/// Asks a new snapshot one thing.
fn first_request(snapshot: &Arc<Snapshot>, pod: usize) {
    let mut request = Request::empty();
    request.destination.workload = Some(format!("ns-{}/pod-{pod}", pod % NAMESPACES));
    request.destination.port = Some(8080);
    request.http = Some(Http {
        method: "GET".into(),
        path: "/v0/items".into(),
        host: "shop.example.com".into(),
        scheme: "https".into(),
        headers: Headers::default(),
    });
    black_box(snapshot.decide(black_box(&request)));
}

fn changes(c: &mut Criterion) {
    for policies in [1_000, 2_000] {
        let mut store = cluster(policies);
        let mut group = c.benchmark_group("one change to the next snapshot");
        let mut version = 0;
        group.bench_function(BenchmarkId::new("pod", policies), |b| {
            b.iter(|| {
                version += 1;
                store.change([pod(version % PODS, version)]);
                first_request(&store.snapshot(), version % PODS);
            });
        });
        group.bench_function(BenchmarkId::new("pod comes and goes", policies), |b| {
            b.iter(|| {
                store.change([pod(PODS + 1, 0)]);
                first_request(&store.snapshot(), PODS + 1);
                store.change([Change::Delete(pod_key(PODS + 1))]);
                black_box(store.snapshot());
            });
        });
        group.bench_function(BenchmarkId::new("policy", policies), |b| {
            b.iter(|| {
                version += 1;
                store.change([policy(version % policies, version)]);
                first_request(&store.snapshot(), version % policies);
            });
        });
        group.finish();
        let mut group = c.benchmark_group("proposal");
        let verdict = |store: &mut Store, version: usize| {
            let proposal = store
                .propose(&[policy(version % policies, version)])
                .unwrap();
            first_request(&proposal.snapshot, version % policies);
            black_box(proposal.diagnostics);
        };
        group.bench_function(BenchmarkId::new("policy", policies), |b| {
            b.iter(|| {
                version += 1;
                verdict(&mut store, version);
            });
        });
        // Pods change all the time, and with them what there is to compare with.
        group.bench_function(BenchmarkId::new("policy, behind a pod", policies), |b| {
            b.iter(|| {
                version += 1;
                store.change([pod(version % PODS, version)]);
                verdict(&mut store, version);
            });
        });
        group.finish();
    }
}

/// All objects of the cluster at once, as after the first sync.
fn load(c: &mut Criterion) {
    let mut group = c.benchmark_group("first sync");
    group.sample_size(10);
    group.bench_function("2,000 policies, 5,000 pods", |b| {
        b.iter(|| black_box(cluster(2_000)));
    });
    group.finish();
}

criterion_group!(benches, changes, load);
criterion_main!(benches);
