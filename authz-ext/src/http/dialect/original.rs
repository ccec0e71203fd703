//! X-Original-Method and X-Original-URI, with the client's own Host: nginx, and what we wrote for
//! proxies that have no habit of their own.

use tonic::codegen::http::request::Parts;

use super::Original;
use crate::check::Refusal;
use crate::http::header::{once, required};

pub(super) const CARRIERS: &[&str] = &["x-original-method", "x-original-uri"];

pub(super) fn original(parts: &Parts) -> Result<Original<'_>, Refusal> {
    let headers = &parts.headers;
    Ok(Original {
        method: required(headers, "x-original-method")?,
        target: required(headers, "x-original-uri")?,
        host: required(headers, "host")?,
        scheme: once(headers, "x-forwarded-proto")?.unwrap_or(""),
    })
}
