//! X-Forwarded-Method, -Uri and -Host, as forward authentication has them.

use tonic::codegen::http::request::Parts;

use super::Original;
use crate::check::Refusal;
use crate::http::header::{once, required};

pub(super) const CARRIERS: &[&str] = &["x-forwarded-method", "x-forwarded-uri"];

pub(super) fn original(parts: &Parts) -> Result<Original<'_>, Refusal> {
    let headers = &parts.headers;
    Ok(Original {
        method: required(headers, "x-forwarded-method")?,
        target: required(headers, "x-forwarded-uri")?,
        host: required(headers, "x-forwarded-host")?,
        scheme: once(headers, "x-forwarded-proto")?.unwrap_or(""),
    })
}
