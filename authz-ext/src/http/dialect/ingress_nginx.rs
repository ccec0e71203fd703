//! ingress-nginx `auth-url`: X-Original-Method, and X-Original-URL as `$scheme://$http_host$request_uri`.
//! The Host of the check request is that of `auth-url`.

use tonic::codegen::http::request::Parts;

use super::Original;
use crate::check::Refusal;
use crate::http::header::{malformed, required};

pub(super) const CARRIERS: &[&str] = &["x-original-method", "x-original-url", "x-original-uri"];

pub(super) fn original(parts: &Parts) -> Result<Original<'_>, Refusal> {
    let headers = &parts.headers;
    let url = required(headers, "x-original-url")?;
    let (scheme, rest) = url
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        .ok_or_else(|| malformed("`x-original-url` is no absolute URL"))?;
    // The first slash ends the host: nginx lets none into a Host header.
    let slash = rest
        .find('/')
        .ok_or_else(|| malformed("`x-original-url` has no path"))?;
    let (host, target) = rest.split_at_checked(slash).unwrap_or((rest, ""));
    Ok(Original {
        method: required(headers, "x-original-method")?,
        target,
        host,
        scheme,
    })
}
