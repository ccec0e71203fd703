//! security.istio.io RequestAuthentication.

use super::annotations;
use super::attachment::Attachment;
use super::path::Path;
use super::reader::Reader;
use super::{HeaderLocation, JwtRule, Located, Metadata, RequestAuthentication};
use crate::diagnostic::code;
use crate::document::{Entry, Node};

mod jwks;
mod validate;

pub(super) use validate::milliseconds;

const SPEC: &[&str] = &["selector", "targetRefs", "targetRef", "jwtRules"];
const RULE: &[&str] = &[
    "issuer",
    "audiences",
    "jwksUri",
    "jwks",
    "fromHeaders",
    "fromParams",
    "fromCookies",
    "outputPayloadToHeader",
    "outputClaimToHeaders",
    "forwardOriginalToken",
    "timeout",
    "spaceDelimitedClaims",
    "presence",
];

/// Reads the document; `None` when no faithful typed form exists, which is reported.
pub(super) fn read(
    root: &Node,
    meta: Metadata,
    reader: &mut Reader<'_>,
) -> Option<RequestAuthentication> {
    let parent = Path::Root;
    let path = parent.key("spec");
    let mut policy = RequestAuthentication {
        meta,
        selector: None,
        target_refs: Vec::new(),
        jwt_rules: Vec::new(),
    };
    annotations::check(&policy.meta, None, reader);
    let mut attachment = Attachment::default();
    let entries = match root.get("spec") {
        None => &[],
        Some(spec) => reader.object(spec, &path)?,
    };
    for entry in entries {
        let (node, field) = (&entry.value, path.key(&entry.key));
        if node.is_null() && SPEC.contains(&entry.key.as_str()) {
            continue;
        }
        if entry.key == "jwtRules" {
            let nodes = reader.list(node, &field).unwrap_or_default();
            if nodes.len() > 4096 {
                reader.report(
                    &code::OUT_OF_BOUNDS,
                    reader.location(node.at),
                    &field,
                    format!("{} rules, more than 4096", nodes.len()),
                    "split the policy",
                );
            }
            for (index, node) in nodes.iter().enumerate() {
                policy
                    .jwt_rules
                    .extend(rule(node, &field.index(index), reader));
            }
            continue;
        }
        let key_at = reader.location(entry.key_at);
        if !attachment.take(&entry.key, key_at, node, &field, reader) {
            reader.unknown_field(entry, &path, SPEC);
        }
    }
    attachment.check(&path, reader);
    policy.selector = attachment.selector;
    policy.target_refs = attachment.target_refs;
    (!reader.is_unreadable()).then_some(policy)
}

fn rule(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<JwtRule> {
    let entries = reader.object(node, path)?;
    let mut rule = JwtRule {
        issuer: Located {
            value: String::new(),
            at: reader.location(node.at),
        },
        audiences: Vec::new(),
        jwks_uri: None,
        jwks: None,
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        output_payload_to_header: None,
        output_claim_to_headers: Vec::new(),
        forward_original_token: false,
        timeout: None,
        space_delimited_claims: Vec::new(),
    };
    for entry in entries {
        if entry.value.is_null() && RULE.contains(&entry.key.as_str()) {
            continue;
        }
        let (node, field) = (&entry.value, path.key(&entry.key));
        match entry.key.as_str() {
            "issuer" => {
                if let Some(issuer) = reader.string(node, &field) {
                    validate::not_empty(&issuer, &field, reader);
                    rule.issuer = issuer;
                }
            }
            "audiences" => rule.audiences = texts(node, &field, reader),
            // The schema knows both spellings of this one.
            "jwksUri" | "jwks_uri" => rule.jwks_uri = reader.string(node, &field),
            "jwks" => rule.jwks = reader.string(node, &field),
            "fromHeaders" => rule.from_headers = from_headers(node, &field, reader),
            "fromParams" => rule.from_params = texts(node, &field, reader),
            "fromCookies" => rule.from_cookies = texts(node, &field, reader),
            "outputPayloadToHeader" => {
                rule.output_payload_to_header = reader.string(node, &field).map(|text| text.value);
            }
            "outputClaimToHeaders" => {
                rule.output_claim_to_headers = claim_headers(node, &field, reader);
            }
            "forwardOriginalToken" => {
                rule.forward_original_token = reader.boolean(node, &field).unwrap_or_default();
            }
            "timeout" => {
                if let Some(text) = reader.string(node, &field) {
                    rule.timeout = validate::timeout(&text, &field, reader);
                }
            }
            "spaceDelimitedClaims" => {
                let claims = texts(node, &field, reader);
                if claims.len() > 64 {
                    reader.report(
                        &code::OUT_OF_BOUNDS,
                        reader.location(node.at),
                        &field,
                        format!("{} claims, more than 64", claims.len()),
                        "name fewer",
                    );
                }
                rule.space_delimited_claims = claims.into_iter().map(|text| text.value).collect();
            }
            "presence" => {
                let required =
                    reader.word(node, &field, &[("OPTIONAL", false), ("REQUIRED", true)]);
                if required == Some(true) {
                    reader.report(
                        &code::PRESENCE_IGNORED,
                        reader.location(node.at),
                        &field,
                        "`presence: REQUIRED` does not make istiod refuse requests without a token",
                        "add a DENY policy on `notRequestPrincipals: [\"*\"]`",
                    );
                }
            }
            _ => reader.unknown_field(entry, path, RULE),
        }
    }
    validate::rule(&rule, entries, path, reader);
    Some(rule)
}

/// A list of strings, none of them empty.
fn texts(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Vec<Located<String>> {
    let texts = reader.strings(node, path);
    for (index, text) in texts.iter().enumerate() {
        validate::not_empty(text, &path.index(index), reader);
    }
    texts
}

fn from_headers(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Vec<HeaderLocation> {
    let mut headers = Vec::new();
    for (index, node) in reader
        .list(node, path)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = path.index(index);
        let Some(fields) = pair(node, &path, ("name", "prefix"), reader) else {
            continue;
        };
        validate::required(fields.0.as_ref(), node, &path.key("name"), reader);
        headers.push(HeaderLocation {
            name: fields.0.map(|text| text.value).unwrap_or_default(),
            prefix: fields.1.map(|text| text.value).unwrap_or_default(),
        });
    }
    headers
}

fn claim_headers(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (index, node) in reader
        .list(node, path)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = path.index(index);
        let Some((header, claim)) = pair(node, &path, ("header", "claim"), reader) else {
            continue;
        };
        validate::required(header.as_ref(), node, &path.key("header"), reader);
        validate::required(claim.as_ref(), node, &path.key("claim"), reader);
        if let Some(header) = &header {
            validate::header_name(header, &path.key("header"), reader);
        }
        pairs.push((
            header.map(|text| text.value).unwrap_or_default(),
            claim.map(|text| text.value).unwrap_or_default(),
        ));
    }
    pairs
}

type Pair = (Option<Located<String>>, Option<Located<String>>);

/// An object of two strings.
fn pair(
    node: &Node,
    path: &Path<'_>,
    (first, second): (&str, &str),
    reader: &mut Reader<'_>,
) -> Option<Pair> {
    let mut pair: Pair = (None, None);
    for entry in reader.object(node, path)? {
        let Entry { key, value, .. } = entry;
        let slot = if key == first {
            &mut pair.0
        } else if key == second {
            &mut pair.1
        } else {
            reader.unknown_field(entry, path, &[first, second]);
            continue;
        };
        if !value.is_null() {
            *slot = reader.string(value, &path.key(key));
        }
    }
    Some(pair)
}
