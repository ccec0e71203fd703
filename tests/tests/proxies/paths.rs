//! The paths that were measured at a real Envoy, through every proxy: the verdict is that on Envoy's own result.

use std::collections::BTreeMap;

use portcullis_policy::path;
use portcullis_policy::resource::PathNormalization;
use portcullis_tests::client::{Client, Exchange};
use serde::Deserialize;
use serde_json::json;

use crate::proxy::Kind;
use crate::stage::Stage;

/// One measurement: what Envoy 1.40 in `mode` made of a raw path, query cut; its status where it refused.
#[derive(Deserialize)]
struct Measured {
    mode: String,
    #[serde(rename = "in")]
    raw: String,
    out: Option<String>,
    status: u16,
}

const PATHS: &str = include_str!("../../corpora/real-envoy/paths.json");

/// A policy that allows about every other result, so that a wrong path shows as a wrong verdict.
fn policy(cases: &[&Measured]) -> (String, BTreeMap<String, bool>) {
    let mut allowed = BTreeMap::new();
    for case in cases {
        let Some(out) = &case.out else { continue };
        let sum: u32 = out.bytes().map(u32::from).sum();
        // A star at either end and braces are patterns: those are left denied.
        let literal = !out.contains(['*', '{', '}']) && !out.is_empty();
        allowed.insert(
            out.clone(),
            literal && (sum + out.len() as u32).is_multiple_of(2),
        );
    }
    let paths: Vec<&String> = allowed
        .iter()
        .filter(|(_, yes)| **yes)
        .map(|(path, _)| path)
        .collect();
    let policy = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": "some", "namespace": "shop" },
        "spec": { "rules": [ { "to": [ { "operation": { "paths": paths } } ] },
                             { "to": [ { "operation": { "paths": ["/ready"] } } ] } ] },
    });
    (policy.to_string(), allowed)
}

fn check(mode: &str) {
    let measured: Vec<Measured> = serde_json::from_str(PATHS).unwrap();
    let cases: Vec<&Measured> = measured.iter().filter(|case| case.mode == mode).collect();
    assert!(cases.len() > 40, "{mode}: {}", cases.len());
    let (policy, allowed) = policy(&cases);
    assert!(allowed.values().filter(|yes| **yes).count() > 10);
    let stage = Stage::start(
        &format!("proxies-paths-{}", mode.to_ascii_lowercase()),
        mode,
        &policy,
    );
    let mut wrong = Vec::new();
    for proxy in &stage.proxies {
        let client = Client::plain(proxy.plain);
        // Those in Go write the path anew before they ask and before they send it on: what they ask about is what
        // the workload gets, but it is not always what the client sent.
        let rewrites = matches!(proxy.kind, Kind::Traefik | Kind::Caddy);
        // Envoy has normalised; where a second pass would change the result, both readings must be allowed.
        let envoy = proxy.kind.is_envoy();
        let unstable = |case: &Measured| {
            let mode = match mode {
                "NONE" => PathNormalization::None,
                "BASE" => PathNormalization::Base,
                "MERGE_SLASHES" => PathNormalization::MergeSlashes,
                _ => PathNormalization::DecodeAndMergeSlashes,
            };
            let out = case.out.as_ref();
            out.is_some_and(|out| !path::is_stable(out, mode))
        };
        let (mut decided, mut passed, mut to_pass) = (0, 0, 0);
        for case in &cases {
            let status = client
                .send(&Exchange::get(&case.raw))
                .map(|answer| answer.status);
            let expected = case.status == 200
                && case
                    .out
                    .as_ref()
                    .is_some_and(|out| allowed.get(out) == Some(&true));
            let right = match status {
                Ok(200) => expected || (rewrites && rewritten(&client, &case.raw, &allowed)),
                Ok(403) => {
                    !expected || (rewrites && !is_plain(&case.raw)) || (envoy && unstable(case))
                }
                // The proxy itself refuses it, and never asks.
                Ok(400..=404) => true,
                Ok(_) => false,
                Err(_) => true,
            };
            decided += usize::from(matches!(status, Ok(200 | 403)));
            passed += usize::from(matches!(status, Ok(200)));
            to_pass += usize::from(expected);
            if !right {
                wrong.push(format!(
                    "{} {mode} {:?}: {status:?}, expected {expected}",
                    proxy.kind.name(),
                    case.raw
                ));
            }
        }
        let least = cases.len() * 2 / 3;
        assert!(
            decided >= least,
            "{}: only {decided} of {} were decided",
            proxy.kind.name(),
            cases.len()
        );
        assert!(
            passed * 2 >= to_pass,
            "{}: {passed} of {to_pass} passed",
            proxy.kind.name()
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// True for a path that nobody would write in another way.
fn is_plain(raw: &str) -> bool {
    let segment = |text: &str| !matches!(text, "" | "." | "..");
    let usual = |c: u8| c.is_ascii_alphanumeric() || b"/-._~".contains(&c);
    raw.strip_prefix('/')
        .is_some_and(|rest| rest.split('/').all(segment))
        && raw.bytes().all(usual)
}

/// True when the path that reached the workload is one that is allowed as it stands.
fn rewritten(client: &Client, raw: &str, allowed: &BTreeMap<String, bool>) -> bool {
    let answer = client.send(&Exchange::get(raw)).unwrap();
    let path = answer.body.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    allowed.get(path) == Some(&true)
}

#[test]
fn without_normalisation() {
    check("NONE");
}

#[test]
fn in_base() {
    check("BASE");
}

#[test]
fn merging_slashes() {
    check("MERGE_SLASHES");
}

#[test]
fn decoding_and_merging_slashes() {
    check("DECODE_AND_MERGE_SLASHES");
}
