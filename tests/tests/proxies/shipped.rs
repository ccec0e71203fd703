//! The snippets, read as text: none forgets a header, none fails open.

use portcullis_authz::http::identity::{CERTIFICATE_HEADERS, XFCC};
use portcullis_authz::http::{Dialect, StatedFact};

use crate::proxy::{Kind, snippet};

/// What Portcullis may read in some dialect or configuration, beside the facts.
const READ: [&str; 9] = [
    XFCC,
    "ssl-client-verify",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-forwarded-method",
    "x-forwarded-uri",
    "x-forwarded-host",
    "x-forwarded-for",
];

/// Headers that the proxy itself overwrites, whatever the snippet says (its documentation, and the tests beside this).
fn overwritten(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::IngressNginx => &[
            "x-original-method",
            "x-original-url",
            "x-forwarded-for",
            "ssl-client-cert",
            "ssl-client-verify",
        ],
        Kind::Traefik => &["x-forwarded-host", "x-forwarded-for"],
        // `forward_client_cert_details` and `use_remote_address`.
        Kind::Envoy => &[XFCC, "x-forwarded-for"],
        _ => &[],
    }
}

#[test]
fn every_header_that_is_read_is_deleted_or_overwritten() {
    for kind in Kind::ALL {
        // Over gRPC none of them is read: Envoy states its facts beside the client's headers.
        if kind == Kind::EnvoyGrpc {
            continue;
        }
        let text: String = kind.files().iter().map(|file| snippet(file)).collect();
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.trim().to_ascii_lowercase())
            .filter(|line| !line.starts_with(['#', '-']) || line.starts_with("- remove"))
            .collect();
        let facts = StatedFact::ALL.map(StatedFact::header);
        let headers = READ.iter().chain(&CERTIFICATE_HEADERS).chain(&facts);
        for header in headers {
            if overwritten(kind).contains(header) {
                continue;
            }
            let names = |line: &String| {
                let mut words =
                    line.split(|c: char| !(c.is_ascii_alphanumeric() || "-*_".contains(c)));
                words.any(|word| {
                    let word = word.trim_start_matches('-');
                    let family = word.strip_suffix('*').or(word.strip_suffix('-'));
                    word == *header
                        || family.is_some_and(|family| {
                            family.len() > 8
                                && header.starts_with(family)
                                && line.contains("header")
                        })
                })
            };
            assert!(
                lines.iter().any(names),
                "{}: `{header}` is not overwritten",
                kind.name()
            );
        }
    }
}

#[test]
fn none_fails_open_and_each_is_named() {
    for kind in Kind::ALL {
        let text: String = kind.files().iter().map(|file| snippet(file)).collect();
        for open in [
            "failure_mode_allow: true",
            "insecure: true }",
            "optional_no_ca;",
            "verify none",
        ] {
            assert!(!text.contains(open), "{}: `{open}`", kind.name());
        }
    }
    // Every dialect has a snippet.
    for dialect in Dialect::ALL {
        let name = dialect.as_str();
        let found = Kind::ALL
            .iter()
            .any(|kind| kind.listener("127.0.0.1:1".parse().unwrap())["dialect"] == name);
        assert!(found, "{name}");
    }
}
