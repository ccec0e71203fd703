//! Tokens against vectors, attacks and issuers that misbehave.

mod attacks;
mod issuers;
mod key_sets;
mod outputs;
mod signer;
mod svids;
mod vectors;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::document::SourceText;
use portcullis_policy::request::{Headers, Http};
use portcullis_policy::request_authentication::TokenRules;
use portcullis_policy::settings::Settings as PolicySettings;
use portcullis_policy::snapshot::Snapshot;
use serde_json::{Value, json};

use super::fetch::Fetcher;
use super::keys::{Keys, Lifetimes};
use super::{Options, Outcome, TokenError, Verifier};

/// 2026-01-01.
const NOW: u64 = 1_767_225_600;

fn clock() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// The rules of RequestAuthentications whose `jwtRules` are these.
fn rules(jwt_rules: &Value) -> TokenRules {
    let snapshot = snapshot(jwt_rules);
    TokenRules::combine(snapshot.policies().request_authentications()).unwrap()
}

fn snapshot(jwt_rules: &Value) -> Arc<Snapshot> {
    let manifest = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": "foo"},
        "spec": {"jwtRules": jwt_rules},
    });
    let documents = Documents {
        base: vec![SourceText {
            file: "tokens.yaml".into(),
            bytes: Arc::from(manifest.to_string().into_bytes()),
        }],
        candidate: None,
    };
    let settings = PolicySettings {
        accept_invalid: true,
        ..PolicySettings::default()
    };
    Arc::new(compile(&documents, &settings).unwrap())
}

fn verifier(hosts: &[String], lifetimes: Lifetimes) -> Verifier {
    let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
    let fetcher = Fetcher::new(hosts, None).unwrap();
    Verifier::new(Keys::new(fetcher, lifetimes), Options::default(), clock)
}

fn http(path: &str, headers: &[(&str, &str)]) -> Http {
    Http {
        method: "GET".to_owned(),
        path: path.to_owned(),
        host: "foo".to_owned(),
        scheme: "https".to_owned(),
        headers: Headers {
            entries: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            merged: false,
            ..Headers::default()
        },
    }
}

fn bearer(token: &str) -> Http {
    http("/", &[("authorization", &format!("Bearer {token}"))])
}

/// Verifies without ever fetching anything.
async fn verify(jwt_rules: &Value, http: &Http) -> Outcome {
    let verifier = verifier(&[], Lifetimes::default());
    verifier.verify(&rules(jwt_rules), http).await
}

#[track_caller]
fn payloads(outcome: &Outcome) -> Vec<&Value> {
    match outcome {
        Outcome::Valid(valid) => valid.iter().map(|verified| &verified.payload).collect(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn error(outcome: Outcome) -> TokenError {
    match outcome {
        Outcome::Invalid(error) => error,
        other => panic!("{other:?}"),
    }
}
