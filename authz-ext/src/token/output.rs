//! What becomes of a request whose tokens were verified: `outputClaimToHeaders`,
//! `outputPayloadToHeader`, `forwardOriginalToken`.
//!
//! The policies' rules see the request as the workload gets it, since in Istio they stand behind the
//! filter that verifies tokens: without the token, unless it is forwarded, and with the headers made
//! from it. A header that some rule makes is never the client's own, whether or not there is a token.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_policy::request::Http;
use portcullis_policy::request_authentication::TokenRules;
use portcullis_policy::request_authentication::place::{self, Place};
use serde_json::Value;

use super::Verified;
use crate::check::HeaderChange;

/// Changes to a request, made where it is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// To its headers.
    pub headers: Vec<HeaderChange>,
    /// Query parameters that go.
    pub parameters: Vec<String>,
}

/// Changes `http` as the proxy is then told to.
#[must_use]
pub fn apply(rules: &TokenRules, valid: &[Verified], http: &mut Http) -> Changes {
    let mut changes = Changes::default();
    let mut removed: BTreeSet<String> = BTreeSet::new();
    for verified in valid {
        if verified.provider.rule.forward_original_token {
            continue;
        }
        match &verified.place {
            Place::Header(name) => {
                removed.insert(name.clone());
            }
            Place::Param(name) => {
                let written = place::written_parameters(http, name);
                changes.parameters.extend(written);
            }
            // Envoy cannot take a cookie away.
            Place::Cookie(_) => continue,
        }
        place::remove(http, &verified.place);
    }
    for provider in rules.providers() {
        let claims = provider.rule.output_claim_to_headers.iter();
        let names = claims.map(|(header, _)| header);
        for name in names.chain(&provider.rule.output_payload_to_header) {
            let name = name.to_ascii_lowercase();
            http.headers.entries.retain(|(entry, _)| *entry != name);
            removed.insert(name);
        }
    }
    for verified in valid {
        for (name, value) in headers(verified) {
            // The first token's, where several make one header.
            if http.headers.entries.iter().any(|(entry, _)| *entry == name) {
                continue;
            }
            removed.remove(&name);
            http.headers.entries.push((name.clone(), value.clone()));
            changes.headers.push(HeaderChange::Set { name, value });
        }
    }
    let removed = removed.into_iter();
    changes
        .headers
        .extend(removed.map(|name| HeaderChange::Remove { name }));
    changes
}

/// The headers that a token's rule makes of it, names in lower case.
fn headers(verified: &Verified) -> Vec<(String, String)> {
    let rule = &verified.provider.rule;
    let mut headers = Vec::new();
    if let Some(name) = &rule.output_payload_to_header {
        headers.push((name.to_ascii_lowercase(), verified.payload_text.clone()));
    }
    for (name, claim) in &rule.output_claim_to_headers {
        let value = claim.split('.').try_fold(&verified.payload, |value, key| {
            value.as_object().and_then(|object| object.get(key))
        });
        let text = value.and_then(text).filter(|text| is_header_value(text));
        headers.extend(text.map(|text| (name.to_ascii_lowercase(), text)));
    }
    headers
}

/// A claim as a header has it (Envoy's authenticator.cc): lists and objects as base64 of their JSON.
fn text(claim: &Value) -> Option<String> {
    match claim {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(_) | Value::Object(_) => Some(STANDARD.encode(claim.to_string())),
    }
}

/// An issuer's claim must not end the header that it stands in.
fn is_header_value(text: &str) -> bool {
    text.len() <= super::jws::LONGEST
        && text.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f))
}
