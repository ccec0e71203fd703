//! An answer as HTTP: 200 is an allow, 401 or 403 a denial; a decision is never anything else.

use portcullis_policy::decision::Verdict;
use tonic::codegen::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use tonic::codegen::http::{Response, StatusCode};

use super::{Dialect, hop};
use crate::check::{Answer, Denied, HeaderChange};
use crate::respond::{self, Options};

/// Envoy takes the names of headers to remove from this one.
const REMOVE: &str = "x-envoy-auth-headers-to-remove";

/// The response to the proxy. Headers that it is to set in the request stand in the response under
/// their own names: each proxy copies those that its configuration lists.
pub(super) fn response(answer: &Answer, dialect: Dialect, options: &Options) -> Response<String> {
    let mut headers: Vec<(&str, &str)> = Vec::new();
    if options.debug_headers {
        headers.extend(respond::debug_headers(&answer.decision));
    }
    let (status, body, removed) = match answer.decision.decision {
        Verdict::Allow => {
            let mut removed = Vec::new();
            for change in &answer.request_headers {
                match change {
                    HeaderChange::Set { name, .. } if is_ours(name) => {
                        tracing::warn!(
                            header = name,
                            "a header of an answer is left out: it would be one of the answer itself"
                        );
                    }
                    HeaderChange::Set { name, value } => headers.push((name, value)),
                    HeaderChange::Remove { name } => removed.push(name.as_str()),
                }
            }
            (StatusCode::OK, None, removed.join(","))
        }
        Verdict::Deny => {
            let status = options.denied_status(answer);
            headers.extend(respond::denied_headers(answer, status));
            if let Some(denied) = &answer.denied {
                return in_provider_words(denied, headers);
            }
            let status = match status {
                401 => StatusCode::UNAUTHORIZED,
                _ => StatusCode::FORBIDDEN,
            };
            (status, options.body(&answer.decision), String::new())
        }
    };
    if dialect == Dialect::Envoy && !removed.is_empty() {
        headers.push((REMOVE, &removed));
    }
    if let Some((content_type, _)) = &body {
        headers.push(("content-type", content_type));
    }
    let mut response = uncached(String::new());
    *response.status_mut() = status;
    insert(&mut response, headers);
    if let Some((_, text)) = body {
        *response.body_mut() = text;
    }
    response
}

/// Headers of our own answer, which mean something to whoever reads it as HTTP.
fn is_ours(name: &str) -> bool {
    matches!(name, "host" | "date" | "cache-control") || hop::NAMES.contains(&name)
}

/// A CUSTOM provider's denial. A status of 2xx would be an allow for most proxies, and one of 5xx an
/// outage: both become 403. A redirect reaches the client through those that hand any answer on.
fn in_provider_words(denied: &Denied, headers: Vec<(&str, &str)>) -> Response<String> {
    let mut response = uncached(denied.body.clone());
    *response.status_mut() = match denied.status {
        300..=499 => StatusCode::from_u16(denied.status).unwrap_or(StatusCode::FORBIDDEN),
        _ => StatusCode::FORBIDDEN,
    };
    insert(&mut response, headers);
    for (name, value) in &denied.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value))
            && (!is_ours(name.as_str()) || name == "cache-control")
        {
            // Several values of one header are several headers, as of `set-cookie`.
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// A verdict is that of one moment.
fn uncached(body: String) -> Response<String> {
    let mut response = Response::new(body);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

fn insert(response: &mut Response<String>, headers: Vec<(&str, &str)>) {
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value);
        match (name, value) {
            (Ok(name), Ok(value)) => {
                response.headers_mut().insert(name, value);
            }
            // A claim may hold anything. Left out, the proxy removes what the client sent there.
            _ => {
                tracing::warn!("a header of an answer cannot be sent: its value is no header value")
            }
        }
    }
}
