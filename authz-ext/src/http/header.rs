//! Headers of the check request, read so that nothing is silently one of several.

use portcullis_policy::decision::Reason;
use tonic::codegen::http::{HeaderMap, HeaderValue};

use crate::check::Refusal;

/// A refusal of a request that is malformed.
pub(super) fn malformed(words: impl Into<String>) -> Refusal {
    Refusal::new(Reason::InvalidRequest, words)
}

/// The value of a header that the proxy sets exactly once; `None` when it is absent or empty.
pub(super) fn once<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        // The proxy overwrites it: of two, one is the client's.
        return Err(malformed(format!("`{name}` is there twice")));
    }
    let text = text(name, value)?.trim_matches([' ', '\t']);
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// As [`once`], and the header must be there.
pub(super) fn required<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refusal> {
    once(headers, name)?.ok_or_else(|| {
        malformed(format!(
            "the check request has no `{name}`: does the proxy set it, and is this its dialect?"
        ))
    })
}

/// The value as text; rules and grammars are about visible ASCII.
pub(super) fn text<'a>(name: &str, value: &'a HeaderValue) -> Result<&'a str, Refusal> {
    value
        .to_str()
        .map_err(|_| malformed(format!("`{name}` is not ASCII text")))
}
