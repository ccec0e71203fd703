//! From manifests to a decision on every target: which policies bind where, each case beside a
//! neighbour that differs in one thing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod ambient;
mod gateway;
mod mtls;
mod tokens;

use std::sync::Arc;

use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::document::SourceText;
use portcullis_policy::request::{Http, Identity, IdentityKind, Request, Target};
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::Snapshot;

fn snapshot(manifests: &[&str]) -> Arc<Snapshot> {
    snapshot_with(manifests, &Settings::default())
}

fn snapshot_with(manifests: &[&str], settings: &Settings) -> Arc<Snapshot> {
    let text = manifests.join("\n---\n");
    let file = SourceText {
        file: "test.yaml".into(),
        bytes: text.as_bytes().into(),
    };
    let documents = Documents {
        base: vec![file],
        candidate: None,
    };
    let compiled = compile(&documents, settings);
    let lines =
        |refused: Vec<Diagnostic>| refused.iter().map(ToString::to_string).collect::<Vec<_>>();
    Arc::new(compiled.map_err(lines).unwrap())
}

/// `allow no_allow_policy`, `deny denied_by foo/p#rule[0]`.
fn decide(snapshot: &Arc<Snapshot>, request: &Request) -> String {
    let decision = snapshot.decide(request);
    let verdict = if decision.is_allow() { "allow" } else { "deny" };
    let mut words = vec![verdict, decision.reason.as_str()];
    words.extend(decision.policies.iter().map(String::as_str));
    words.join(" ")
}

/// A GET of `/` on port 8080 by `spiffe://cluster.local/ns/foo/sa/client`.
fn get(workload: &str) -> Request {
    let mut request = tcp(workload);
    request.http = Some(Http {
        method: "GET".into(),
        path: "/".into(),
        host: "example.com".into(),
        scheme: "http".into(),
        ..Http::default()
    });
    request
}

fn tcp(workload: &str) -> Request {
    let mut request = Request::empty();
    request.destination.workload = Some(workload.into());
    request.destination.port = Some(8080);
    request.source.certificate_presented = true;
    request.source.identities = vec![Identity {
        kind: IdentityKind::Uri,
        value: "spiffe://cluster.local/ns/foo/sa/client".into(),
    }];
    request
}

fn plaintext(mut request: Request) -> Request {
    request.source.certificate_presented = false;
    request.source.identities.clear();
    request
}

fn on(target: Target, mut request: Request) -> Request {
    request.target = Some(target);
    request
}

fn at_port(port: u16, mut request: Request) -> Request {
    request.destination.port = Some(port);
    request
}

const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: foo, labels: {app: web}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.1}
";
