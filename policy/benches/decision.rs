//! Decision and compile time: `cargo bench -p portcullis-policy`.
//!
//! Every policy of a set is attached to the one workload that the request is for; of their rules 1, 5
//! or 20 match the request. The rest differ in principal, path, address block and port.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark stops at the first surprise"
)]
#![allow(missing_docs, reason = "criterion_group! makes a public function")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use portcullis_policy::compile::{Compiler, Documents, compile};
use portcullis_policy::document::SourceText;
use portcullis_policy::request::{Headers, Http, Identity, IdentityKind, Request};
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::Snapshot;

/// The allocator of the `portcullis` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const INVENTORY: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web}
status: {podIP: 10.0.0.1, phase: Running}
";

/// The `i`th policy; it matches [`request`] when `applies`.
fn policy(i: usize, applies: bool) -> String {
    let account = if applies {
        "client".to_owned()
    } else {
        format!("client-{i}")
    };
    let path = if applies {
        "/api/*".to_owned()
    } else {
        format!("/api/v{i}/*")
    };
    let block = if applies {
        "10.9.0.0/16".to_owned()
    } else {
        format!("10.{}.0.0/16", i % 200)
    };
    let action = if !applies && i.is_multiple_of(10) {
        "DENY"
    } else {
        "ALLOW"
    };
    let mut text = String::new();
    write!(
        text,
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p{i:05}, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  action: {action}
  rules:
  - from:
    - source:
        principals: [\"cluster.local/ns/front/sa/{account}\"]
        ipBlocks: [\"{block}\"]
    to:
    - operation:
        methods: [GET, POST]
        paths: [\"{path}\"]
        ports: [\"8080\"]
"
    )
    .unwrap();
    text
}

/// `policies` files, `applying` of them with a rule that matches.
fn documents(policies: usize, applying: usize) -> Documents {
    let source = |name: String, text: String| SourceText {
        file: name.into(),
        bytes: text.into_bytes().into(),
    };
    let mut base = vec![source("inventory.yaml".into(), INVENTORY.into())];
    base.extend((0..policies).map(|i| source(format!("p{i}.yaml"), policy(i, i < applying))));
    Documents {
        base,
        candidate: None,
    }
}

fn request() -> Request {
    let mut request = Request::empty();
    request.source.identities = vec![Identity {
        kind: IdentityKind::Uri,
        value: "spiffe://cluster.local/ns/front/sa/client".into(),
    }];
    request.source.address = Some(IpAddr::from([10, 9, 1, 1]));
    request.destination.address = Some(IpAddr::from([10, 0, 0, 1]));
    request.destination.port = Some(8080);
    let header = |i: usize| (format!("x-header-{i}"), "value".to_owned());
    request.http = Some(Http {
        method: "GET".into(),
        path: "/api/v1/items?page=2".into(),
        host: "shop.example.com".into(),
        scheme: "https".into(),
        headers: Headers {
            entries: (0..10).map(header).collect(),
            merged: false,
            ..Headers::default()
        },
    });
    request
}

fn snapshot(policies: usize, applying: usize, memo: bool) -> Arc<Snapshot> {
    let settings = Settings {
        memo,
        ..Settings::default()
    };
    Arc::new(compile(&documents(policies, applying), &settings).unwrap())
}

fn decide(c: &mut Criterion) {
    for (memo, name) in [(false, "decide"), (true, "decide, remembered")] {
        let mut group = c.benchmark_group(name);
        for applying in [1, 5, 20] {
            for policies in [1, 10, 100, 1_000, 10_000] {
                if policies < applying || (memo && applying != 5) {
                    continue;
                }
                let snapshot = snapshot(policies, applying, memo);
                let request = request();
                assert!(snapshot.decide(&request).is_allow());
                let id = BenchmarkId::new(format!("{applying} applying"), policies);
                group.bench_function(id, |b| b.iter(|| snapshot.decide(black_box(&request))));
            }
        }
        group.finish();
    }
}

/// The same number of decisions on one thread, and shared by two.
fn threads(c: &mut Criterion) {
    const DECISIONS: usize = 2_000;
    let snapshot = snapshot(100, 5, false);
    let request = request();
    let mut group = c.benchmark_group("2,000 decisions");
    group.sample_size(20);
    for threads in [1, 2] {
        group.bench_function(BenchmarkId::new("threads", threads), |b| {
            b.iter(|| {
                std::thread::scope(|scope| {
                    for _ in 0..threads {
                        scope.spawn(|| {
                            for _ in 0..DECISIONS / threads {
                                black_box(snapshot.decide(black_box(&request)));
                            }
                        });
                    }
                });
            });
        });
    }
    group.finish();
}

fn compile_sets(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    let settings = Settings::default();
    for policies in [1_000, 10_000] {
        let documents = documents(policies, 5);
        group.bench_function(BenchmarkId::new("whole", policies), |b| {
            b.iter(|| compile(black_box(&documents), &settings).unwrap());
        });
    }
    let mut documents = documents(10_000, 5);
    let mut compiler = Compiler::default();
    compiler.compile(&documents, &settings).unwrap();
    let mut flip = false;
    group.bench_function(BenchmarkId::new("one file changed", 10_000), |b| {
        b.iter(|| {
            flip = !flip;
            let text = policy(9_999, flip);
            if let Some(last) = documents.base.last_mut() {
                last.bytes = text.into_bytes().into();
            }
            compiler.compile(black_box(&documents), &settings).unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, decide, threads, compile_sets);
criterion_main!(benches);
