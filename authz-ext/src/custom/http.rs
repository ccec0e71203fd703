//! `envoyExtAuthzHttp`: the provider answers 200, or what the client gets instead.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue,
};
use hyper::{Method, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use portcullis_policy::request::Request;
use portcullis_policy::resource::ExtAuthzCall;
use tokio::time::{Instant, timeout_at};

use super::connect::{Connector, authority};
use super::{ASKED_BY, Allowed, Change, Failure, Verdict};
use crate::check::Denied;
use crate::http::hop;

/// Longest body of a denial, in octets.
const LONGEST: usize = 64 << 10;
/// Header by which a provider removes others (Envoy's).
const HEADERS_TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";

/// Connections to providers, kept open between questions.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pool: Pool<Connector, Empty<Bytes>>,
}

impl Client {
    pub(super) fn new(connector: Connector) -> Self {
        let mut builder = Pool::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(32);
        Self {
            pool: builder.build(connector),
        }
    }
}

/// Asks, and waits at most `limit` for the answer. A denial is one as soon as its status is there,
/// whatever becomes of its body.
pub(super) async fn ask(
    client: &Client,
    instance: &str,
    call: &ExtAuthzCall,
    request: &Request,
    limit: Duration,
) -> Result<Verdict, Failure> {
    let question = question(instance, call, request)?;
    let deadline = Instant::now() + limit;
    let answer = timeout_at(deadline, client.pool.request(question)).await;
    let answer = answer.map_err(|_| Failure::late(limit))?;
    let answer = answer.map_err(|error| Failure::of(&error))?;
    let (parts, body) = answer.into_parts();
    let status = parts.status;
    if status.is_server_error() {
        return Err(Failure::new(format!("it answered {}", status.as_u16())));
    }
    let headers = texts(&parts.headers);
    if status.as_u16() == 200 {
        return Ok(Verdict::Allowed(allowed(call, headers)));
    }
    let mut headers = downstream(call, headers);
    let body = String::from_utf8(beginning(body, deadline).await).unwrap_or_else(|_| {
        // Compressed, say. An answer of ours holds text only.
        headers.retain(|(name, _)| name != CONTENT_ENCODING.as_str());
        String::new()
    });
    Ok(Verdict::Denied(Denied {
        // 200 alone is an allow; a denial must not look like one to anybody.
        status: if status.is_success() {
            403
        } else {
            status.as_u16()
        },
        headers,
        body,
    }))
}

/// What there is of a body until `deadline`, up to [`LONGEST`] octets and to the end of a character.
async fn beginning(mut body: Incoming, deadline: Instant) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < LONGEST {
        let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await else {
            break;
        };
        if let Ok(data) = frame.into_data() {
            read.extend_from_slice(&data);
        }
    }
    read.truncate(LONGEST);
    if let Err(error) = std::str::from_utf8(&read)
        && error.error_len().is_none()
    {
        read.truncate(error.valid_up_to());
    }
    read
}

/// What `http::Uri` does not take and a proxy may have passed on.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The original method, and the original path behind the prefix; the headers that are asked for.
fn question(
    instance: &str,
    call: &ExtAuthzCall,
    request: &Request,
) -> Result<hyper::Request<Empty<Bytes>>, Failure> {
    let http = request.http.as_ref();
    let http = http.ok_or_else(|| Failure::question("an HTTP provider is not asked about TCP"))?;
    let path = http.path.split('#').next().unwrap_or_default();
    let path = utf8_percent_encode(path, ESCAPED);
    let uri: Uri = Uri::builder()
        .scheme("http")
        .authority(authority(&call.service, call.port))
        .path_and_query(format!("{}{path}", call.path_prefix))
        .build()
        .map_err(Failure::question)?;
    let mut question = hyper::Request::new(Empty::new());
    *question.method_mut() =
        Method::from_bytes(http.method.as_bytes()).map_err(Failure::question)?;
    *question.uri_mut() = uri;
    let headers = question.headers_mut();
    for (name, value) in &http.headers.entries {
        let wanted = name == AUTHORIZATION.as_str() || listed(&call.include_request_headers, name);
        if wanted && !is_hop_by_hop(name) {
            insert(headers, name, value, false)?;
        }
    }
    for (name, value) in &call.include_additional_headers {
        insert(headers, &name.to_ascii_lowercase(), value, true)?;
    }
    insert(headers, HOST.as_str(), &http.host, true)?;
    insert(headers, ASKED_BY, instance, true)?;
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(question)
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str, only: bool) -> Result<(), Failure> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(Failure::question)?;
    let value = HeaderValue::from_bytes(value.as_bytes()).map_err(Failure::question)?;
    if only {
        headers.insert(name, value);
    } else {
        headers.append(name, value);
    }
    Ok(())
}

/// Headers about one connection; they are not the request's.
fn is_hop_by_hop(name: &str) -> bool {
    name == HOST.as_str() || hop::NAMES.contains(&name)
}

/// Headers that a provider has no say in.
fn is_ours(name: &str) -> bool {
    is_hop_by_hop(name) || name.starts_with("x-portcullis-")
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect()
}

fn allowed(call: &ExtAuthzCall, headers: Vec<(String, String)>) -> Allowed {
    let mut allowed = Allowed::default();
    for (name, value) in headers {
        if name == HEADERS_TO_REMOVE {
            let names = value
                .split(',')
                .map(|name| name.trim().to_ascii_lowercase());
            let names = names.filter(|name| !name.is_empty());
            allowed.changes.extend(names.map(Change::Remove));
            continue;
        }
        if is_ours(&name) {
            continue;
        }
        if listed(&call.headers_to_upstream_on_allow, &name) {
            let again = allowed
                .changes
                .iter()
                .any(|change| matches!(change, Change::Set(known, _) if *known == name));
            allowed.changes.push(if again {
                Change::Append(name.clone(), value.clone())
            } else {
                Change::Set(name.clone(), value.clone())
            });
        }
        if listed(&call.headers_to_downstream_on_allow, &name) {
            allowed.response_headers.push((name, value));
        }
    }
    allowed
}

/// All of them without a list; with one, those on it and what a denial cannot do without.
fn downstream(call: &ExtAuthzCall, headers: Vec<(String, String)>) -> Vec<(String, String)> {
    const ALWAYS: [&str; 3] = ["www-authenticate", "proxy-authenticate", "location"];
    let list = &call.headers_to_downstream_on_deny;
    let wanted = |name: &str| list.is_empty() || ALWAYS.contains(&name) || listed(list, name);
    headers
        .into_iter()
        .filter(|(name, _)| wanted(name) && !is_ours(name))
        .collect()
}

/// Names, `prefix*` or `*suffix`, whatever their case.
fn listed(list: &[String], name: &str) -> bool {
    list.iter().any(|entry| {
        let entry = entry.to_ascii_lowercase();
        match (entry.strip_prefix('*'), entry.strip_suffix('*')) {
            (Some(suffix), _) => name.ends_with(suffix),
            (None, Some(prefix)) => name.starts_with(prefix),
            (None, None) => name == entry,
        }
    })
}
