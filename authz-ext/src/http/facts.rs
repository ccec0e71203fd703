//! A check request in one dialect becomes the engine's own [`Request`].

use std::collections::HashMap;

use portcullis_policy::path;
use portcullis_policy::request::{Destination, Headers, Http, PathForm, Request, Source};
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::request::Parts;

use super::dialect::Original;
use super::header::malformed;
use super::peer::Peer;
use super::{Options, client, hop, identity, stated};
use crate::check::Refusal;
use crate::facts::stated::Stated;

/// Reads the facts of one check. `num_trusted_proxies` is the mesh's, for X-Forwarded-For.
///
/// # Errors
/// [`Refusal`] when the check is malformed, is in another dialect, or states an identity that is not
/// to be believed.
pub fn request(
    parts: &Parts,
    peer: &Peer,
    options: &Options,
    num_trusted_proxies: Option<u32>,
) -> Result<Request, Refusal> {
    let headers = &parts.headers;
    // RFC 9112 section 3.2, also where another header names the host that is asked for.
    if headers.get_all("host").iter().count() > 1 {
        return Err(malformed("the check has two Host headers"));
    }
    let original = options.dialect.original(parts, options)?;
    let host = host(&original, options.path_form)?;
    if original.method.is_empty() || !original.method.bytes().all(is_token) {
        return Err(malformed("the original method is no token"));
    }
    let scheme = scheme(original.scheme)?;
    let presented = identity::read(headers, options.identity.as_ref(), &options.trusted, peer)?;
    let metadata = stated::read(headers, options, peer)?;
    let no_extensions = HashMap::new();
    let stated = Stated::new(&no_extensions, &metadata);
    let seen = rules_see(headers, options, host);
    let addresses = client::addresses(headers, &seen, options, &stated, peer, num_trusted_proxies)?;
    Ok(Request {
        source: Source {
            identities: presented.identities,
            certificate_presented: presented.certificate,
            address: addresses.direct,
        },
        remote: addresses.remote,
        destination: Destination {
            workload: stated.workload()?.or_else(|| options.workload.clone()),
            service: stated.service()?,
            address: None,
            port: options.port,
            principal: None,
        },
        target: stated.target()?.unwrap_or(options.target),
        http: Some(Http {
            method: original.method.to_owned(),
            path: original.target.to_owned(),
            host: host.to_owned(),
            scheme: scheme.to_owned(),
            headers: seen,
        }),
        path_form: options.path_form,
        ..Request::empty()
    })
}

/// `http` or `https`; empty where the dialect has none. Traefik tells websockets by `ws` and `wss`, which
/// are these two on the wire (RFC 6455 section 3).
fn scheme(text: &str) -> Result<&'static str, Refusal> {
    match text.to_ascii_lowercase().as_str() {
        "" => Ok(""),
        "http" | "ws" => Ok("http"),
        "https" | "wss" => Ok("https"),
        _ => Err(malformed(
            "`x-forwarded-proto` is none of `http`, `https`, `ws` and `wss`",
        )),
    }
}

/// The host that the request is for. A target in absolute form names it, too, and must name the same.
fn host<'a>(original: &Original<'a>, path_form: PathForm) -> Result<&'a str, Refusal> {
    let host = original.host;
    if host.is_empty() || !host.bytes().all(is_host) {
        return Err(malformed(
            "the host of the original request is empty or malformed",
        ));
    }
    if path_form == PathForm::Raw
        && let Some(authority) = path::authority(original.target)
        && !authority.eq_ignore_ascii_case(host)
    {
        return Err(malformed(
            "the target names another host than the Host header",
        ));
    }
    Ok(host)
}

/// What rules on headers see: the client's own, not what the dialect adds.
fn rules_see(headers: &HeaderMap, options: &Options, host: &str) -> Headers {
    let carriers = options.dialect.carriers();
    let mut entries: Vec<(String, String)> = headers
        .iter()
        .filter(|(name, _)| {
            let name = name.as_str();
            name != "host"
                && !hop::NAMES.contains(&name)
                && !carriers.contains(&name)
                && !name.starts_with(stated::PREFIX)
        })
        .map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes());
            (
                name.as_str().to_owned(),
                text.trim_matches([' ', '\t']).to_owned(),
            )
        })
        .collect();
    entries.push(("host".to_owned(), host.to_owned()));
    Headers {
        entries,
        merged: options.dialect.merges_headers(),
        not_carried: hop::NAMES,
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}

/// RFC 3986 `host [ ":" port ]`, sub-delims but for the comma, which joins two hosts.
fn is_host(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&octet)
}
