//! The corpus asked as Envoy asks: each request as a `CheckRequest` in protobuf JSON gives the same
//! facts, and so the same verdict, as a real Envoy's own filters saw.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is a failed test"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use portcullis_authz::check_request;
use portcullis_authz::decide::decide;
use portcullis_authz::facts;
use portcullis_policy::compile::compile;
use portcullis_policy::request::{IdentityKind, PathForm, Request};
use portcullis_tests::authority::{Authority, Names};
use portcullis_tests::convert;
use portcullis_tests::corpus::{self, Case, CaseRequest};
use portcullis_tests::naive::Target;
use serde_json::{Value, json};
use tonic::metadata::MetadataMap;

/// Certificates by names: signing one takes longer than deciding.
struct Certificates {
    authority: Authority,
    signed: BTreeMap<Names, String>,
}

impl Certificates {
    /// Percent-encoded as Envoy does it; `None` without a name.
    fn of(&mut self, names: Names) -> Option<String> {
        if names == Names::default() {
            return None;
        }
        let authority = &self.authority;
        let pem = self.signed.entry(names).or_insert_with_key(|names| {
            let pem = authority.leaf(names).unwrap().certificate;
            [
                ("\n", "%0A"),
                (" ", "%20"),
                ("+", "%2B"),
                ("/", "%2F"),
                ("=", "%3D"),
            ]
            .iter()
            .fold(pem, |pem, (from, to)| pem.replace(from, to))
        });
        Some(pem.clone())
    }
}

/// What Envoy would send with everything switched on. From filter state only the first URI is known.
fn asked(case: &Case, request: &CaseRequest, certificates: &mut Certificates) -> Value {
    let facts = request.facts(case.use_filter_state).unwrap();
    let common_name = facts.subject.as_ref().map(|subject| {
        let name = subject.strip_prefix("CN=").unwrap();
        assert!(
            !name.contains(['=', '\\']),
            "a plain common name: {subject}"
        );
        name.to_owned()
    });
    let names = [
        &facts.uri_sans,
        &facts.dns_sans,
        &facts.subject.iter().cloned().collect(),
    ];
    let mut source = json!({
        "address": {"socketAddress": {"address": request.source.ip, "portValue": 40000}},
        "principal": names.iter().find_map(|names| names.first()).cloned().unwrap_or_default(),
    });
    let names = Names {
        uris: facts.uri_sans.clone(),
        dns: facts.dns_sans.clone(),
        common_name,
    };
    if let Some(certificate) = certificates.of(names).filter(|_| !case.use_filter_state) {
        source["certificate"] = certificate.into();
    }
    let world = case.world();
    let target = match world.target {
        Target::Gateway => "gateway",
        _ => "sidecar",
    };
    let mut attributes = json!({
        "source": source,
        "destination": {"address": {"socketAddress": {
            "address": request.destination.ip, "portValue": request.destination.port}}},
        "contextExtensions": {
            "portcullis.workload": format!("{}/{}", world.workload.namespace, convert::POD),
            "portcullis.target": target,
            "portcullis.remote_address": request.remote_ip,
        },
    });
    if let Some(sni) = &request.sni {
        attributes["tlsSession"] = json!({"sni": sni});
    }
    if let Some(payload) = &request.jwt {
        let filters = json!({"envoy.filters.http.jwt_authn": {"payload": payload}});
        attributes["metadataContext"] = json!({"filterMetadata": filters});
    }
    if let Some(http) = &request.request {
        let scheme = if facts.tls { "https" } else { "http" };
        let pseudo = [
            (":authority", &http.host),
            (":path", &http.path),
            (":method", &http.method),
            (":scheme", &scheme.to_owned()),
        ];
        let pseudo = pseudo.map(|(name, value)| (name.to_owned(), value.clone()));
        let headers = pseudo
            .iter()
            .chain(&http.headers)
            .map(|(name, value)| json!({"key": name, "rawValue": BASE64_STANDARD.encode(value)}));
        attributes["request"] = json!({"http": {
            "method": http.method, "path": http.path, "host": http.host, "scheme": scheme,
            "headerMap": {"headers": headers.collect::<Vec<_>>()},
        }});
    }
    json!({"attributes": attributes})
}

/// Without what the two ways to a request say differently and rules cannot see: where an identity
/// stood, the metadata that the JWT payload came in, and `host`, which is `:authority` once more.
fn comparable(mut request: Request) -> Request {
    for identity in &mut request.source.identities {
        identity.kind = IdentityKind::Principal;
    }
    request.metadata.clear();
    if let Some(http) = &mut request.http {
        http.headers.entries.retain(|(name, _)| name != "host");
    }
    request
}

#[test]
fn every_request_of_the_corpus_is_decided_as_envoy_did() {
    let mut certificates = Certificates {
        authority: Authority::new().unwrap(),
        signed: BTreeMap::new(),
    };
    let options = facts::Options {
        path_form: PathForm::Raw,
        ..facts::Options::default()
    };
    let none = MetadataMap::new();
    let mut decided = 0;
    let mut differ = Vec::new();
    for case in &corpus::cases().unwrap() {
        let world = case.world();
        let documents = convert::documents(&convert::manifests(&world));
        let snapshot = Arc::new(compile(&documents, &convert::settings(&world.mesh)).unwrap());
        let asked: Vec<_> = case
            .requests
            .iter()
            .map(|request| asked(case, request, &mut certificates).to_string())
            .collect();
        let input = asked.join("\n");
        for (line, request) in check_request::lines(input.as_bytes()).zip(&case.requests) {
            let check = line.request.unwrap();
            let facts = request.facts(case.use_filter_state).unwrap();
            let expected = comparable(convert::request(&world, &facts));
            let read = facts::request(check.clone(), &none, &options).unwrap();
            assert_eq!(comparable(read), expected, "{}:{}", case.id, line.number);

            let decision = decide(&snapshot, check, &none, &options);
            let verdict = if decision.is_allow() { "allow" } else { "deny" };
            decided += 1;
            if verdict != request.verdict {
                differ.push(format!("{}:{}: {decision:?}", case.id, line.number));
            }
        }
    }
    assert_eq!(decided, 4506, "the corpus is whole");
    assert!(
        differ.is_empty(),
        "{} of {decided} differ:\n{}",
        differ.len(),
        differ.join("\n")
    );
}
