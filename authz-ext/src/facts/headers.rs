//! The HTTP part: pseudo-headers, header forms, names and values as rules match them.

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use portcullis_policy::request::{Headers, Http};

/// Reads the HTTP part; empty fields are filled from the pseudo-headers.
pub(super) fn http(request: HttpRequest) -> Http {
    let raw = request
        .header_map
        .map(|map| map.headers)
        .filter(|headers| !headers.is_empty());
    let merged = raw.is_none();
    let mut entries: Vec<(String, String)> = match raw {
        Some(headers) => headers.into_iter().map(raw_header).collect(),
        None => request.headers.into_iter().collect(),
    };
    if merged {
        // A protobuf map has no order of its own; a decision must not hang on a hash seed.
        entries.sort();
    }
    for (name, value) in &mut entries {
        name.make_ascii_lowercase();
        trim(value);
    }
    let mut http = Http {
        method: request.method,
        path: request.path,
        host: request.host,
        scheme: request.scheme,
        headers: Headers {
            entries: Vec::with_capacity(entries.len()),
            merged,
            ..Headers::default()
        },
    };
    for (name, value) in entries {
        let field = match name.as_str() {
            ":method" => &mut http.method,
            ":path" => &mut http.path,
            ":authority" => &mut http.host,
            ":scheme" => &mut http.scheme,
            _ if name.starts_with(':') => continue,
            _ => {
                http.headers.entries.push((name, value));
                continue;
            }
        };
        // Envoy sends both, and they are the same.
        if field.is_empty() {
            *field = value;
        }
    }
    set_host(&mut http);
    http
}

/// Envoy reads HTTP/1's Host as `:authority` and keeps one of the two; rules may name either.
fn set_host(http: &mut Http) {
    let host = http.headers.entries.iter().find(|(name, _)| name == "host");
    match host {
        Some((_, host)) if http.host.is_empty() => http.host.clone_from(host),
        Some(_) => {}
        None if http.host.is_empty() => {}
        None => {
            let host = ("host".to_owned(), http.host.clone());
            http.headers.entries.push(host);
        }
    }
}

fn raw_header(header: HeaderValue) -> (String, String) {
    let value = if header.raw_value.is_empty() {
        header.value
    } else {
        match String::from_utf8(header.raw_value) {
            Ok(value) => value,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }
    };
    (header.key, value)
}

/// Values reach Envoy's matchers without spaces and tabs around them.
fn trim(value: &mut String) {
    const BLANK: [char; 2] = [' ', '\t'];
    let trimmed = value.trim_matches(BLANK);
    if trimmed.len() != value.len() {
        *value = trimmed.to_owned();
    }
}
