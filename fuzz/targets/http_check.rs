//! Any head of a check request in any dialect: refused with a reason, or facts that the engine decides.

#![no_main]

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use portcullis_authz::http::identity::{self, IdentitySource};
use portcullis_authz::http::{Dialect, Options, Peer, StatedFact, TrustList, request};
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::decision::Reason;
use portcullis_policy::document::SourceText;
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::Snapshot;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{HeaderName, HeaderValue, Request};

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let source = |file: &str, text: &str| SourceText {
        file: file.into(),
        bytes: text.as_bytes().into(),
    };
    let documents = Documents {
        base: vec![
            source(
                "policies.yaml",
                include_str!("../../policies/examples/bookshop/policies.yaml"),
            ),
            source(
                "workloads.yaml",
                include_str!("../../policies/examples/bookshop/workloads.yaml"),
            ),
        ],
        candidate: None,
    };
    let snapshot = compile(&documents, &Settings::default());
    Arc::new(snapshot.unwrap_or_else(|diagnostics| panic!("{diagnostics:?}")))
});

/// `METHOD TARGET`, then a header on each line, as octets.
fn parts(input: &[u8]) -> Option<Parts> {
    let mut lines = input.split(|octet| *octet == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let mut built = Request::builder().method(method).uri(target).body(()).ok()?;
    for line in lines.take(64) {
        let at = line.iter().position(|octet| *octet == b':')?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?;
        built.headers_mut().append(name, value);
    }
    Some(built.into_parts().0)
}

fn options(dialect: Dialect, source: IdentitySource) -> Options {
    let peers = vec!["127.0.0.1".parse().unwrap()];
    Options {
        identity: Some(identity::Options {
            source,
            require_svid: true,
        }),
        trusted: TrustList::new(peers),
        stated: StatedFact::ALL.to_vec(),
        ..Options::new(dialect)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some(parts) = parts(input) else {
        return;
    };
    let at = |address: [u8; 4]| Peer {
        address: Some(IpAddr::from(address)),
        ..Peer::default()
    };
    let sources = [
        IdentitySource::ForwardedClientCert { trusted_hops: 0 },
        IdentitySource::Certificate {
            header: "x-client-cert".to_owned(),
        },
    ];
    for dialect in Dialect::ALL {
        for source in &sources {
            let options = options(dialect, source.clone());
            match request(&parts, &at([192, 0, 2, 1]), &options, Some(1)) {
                // Whoever is not trusted, states no identity and no fact.
                Ok(request) => {
                    assert!(request.source.identities.is_empty());
                    assert!(!request.source.certificate_presented);
                    assert_eq!(request.destination.workload, None);
                }
                Err(refusal) => assert_refused(refusal.reason),
            }
            match request(&parts, &at([127, 0, 0, 1]), &options, None) {
                Err(refusal) => assert_refused(refusal.reason),
                Ok(request) => {
                    let http = request.http.as_ref().expect("every check is HTTP");
                    assert!(!http.host.is_empty() && !http.method.is_empty());
                    let ours = |(name, _): &(String, String)| name.starts_with("x-portcullis-");
                    assert!(!http.headers.entries.iter().any(ours));
                    let decision = SNAPSHOT.decide(&request);
                    assert_eq!(decision, SNAPSHOT.decide(&request));
                }
            }
        }
    }
});

fn assert_refused(reason: Reason) {
    assert!(matches!(
        reason,
        Reason::InvalidRequest | Reason::UntrustedIdentitySource | Reason::AmbiguousIdentity
    ));
}
