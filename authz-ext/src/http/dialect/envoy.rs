//! Envoy's ext_authz with an `http_service`: the check request is the original one, without its body,
//! and with `path_prefix` before its path.

use tonic::codegen::http::request::Parts;

use super::Original;
use crate::check::Refusal;
use crate::http::header::{malformed, required};

pub(super) fn original<'a>(parts: &'a Parts, prefix: &str) -> Result<Original<'a>, Refusal> {
    // Envoy reduces absolute targets before any filter runs: what is in that form, is not from it.
    if parts.uri.authority().is_some() {
        return Err(malformed("the target of the check request is no path"));
    }
    let target = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let target = target.strip_prefix(prefix).ok_or_else(|| {
        malformed(format!(
            "the path of the check request does not begin with `{prefix}`, the listener's `path_prefix`"
        ))
    })?;
    Ok(Original {
        method: parts.method.as_str(),
        target,
        host: required(&parts.headers, "host")?,
        scheme: "",
    })
}
