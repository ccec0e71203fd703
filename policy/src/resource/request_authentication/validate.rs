//! What Istio's schema and webhook refuse in a RequestAuthentication.

use std::time::Duration;

use super::jwks;
use crate::diagnostic::code;
use crate::document::{Entry, Excerpt, Node};
use crate::resource::path::Path;
use crate::resource::reader::Reader;
use crate::resource::{JwtRule, Located};

/// Longest `jwksUri`.
const LONGEST_URI: usize = 2048;

pub(super) fn not_empty(text: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) {
    if text.value.is_empty() {
        reader.report(
            &code::EMPTY_VALUE,
            text.at.clone(),
            path,
            "an empty string",
            "write a value, or remove the entry",
        );
    }
}

/// A field of `node` that must be there and not be empty.
pub(super) fn required(
    text: Option<&Located<String>>,
    node: &Node,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) {
    match text {
        Some(text) => not_empty(text, path, reader),
        None => reader.report(
            &code::MISSING_FIELD,
            reader.location(node.at),
            path,
            format!("`{}` is missing", path.last()),
            "add it",
        ),
    }
}

pub(super) fn header_name(name: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) {
    let ok = name
        .value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !ok {
        reader.report(
            &code::HEADER_NAME,
            name.at.clone(),
            path,
            format!("`{}` is not a header name", Excerpt(&name.value)),
            "letters, digits, `-` and `_`",
        );
    }
}

/// A duration of whole milliseconds, at least one, in protobuf's form.
pub(super) fn timeout(
    text: &Located<String>,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Duration> {
    let timeout = milliseconds(&text.value).filter(|n| *n > 0);
    if timeout.is_none() {
        reader.report(
            &code::DURATION,
            text.at.clone(),
            path,
            format!(
                "`{}` is not a duration of at least 1 ms",
                Excerpt(&text.value)
            ),
            "write seconds, as in `5s` or `0.250s`",
        );
    }
    timeout.map(Duration::from_millis)
}

/// A duration in protobuf's form; only whole milliseconds.
pub(in crate::resource) fn milliseconds(text: &str) -> Option<u64> {
    /// Longest duration of protobuf, in seconds.
    const LONGEST: u64 = 315_576_000_000;
    let seconds = text.strip_suffix('s')?;
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse::<u64>().ok()?;
    if nanoseconds % 1_000_000 != 0 {
        return None;
    }
    let seconds = whole.parse::<u64>().ok().filter(|s| *s <= LONGEST)?;
    Some(seconds * 1000 + nanoseconds / 1_000_000)
}

/// What concerns a rule as a whole.
pub(super) fn rule(rule: &JwtRule, entries: &[Entry], path: &Path<'_>, reader: &mut Reader<'_>) {
    let place = |name: &str| {
        entries
            .iter()
            .find(|entry| entry.key == name && !entry.value.is_null())
    };
    if place("issuer").is_none() && rule.jwks_uri.is_none() {
        reader.report(
            &code::MISSING_FIELD,
            rule.issuer.at.clone(),
            &path.key("issuer"),
            "neither `issuer` nor `jwksUri` is set",
            "name the issuer of the tokens",
        );
    }
    let key_sources: Vec<&Entry> = ["jwks", "jwksUri", "jwks_uri"]
        .iter()
        .filter_map(|name| place(name))
        .collect();
    if let [first, second, ..] = key_sources.as_slice() {
        reader.report(
            &code::TWO_KEY_SOURCES,
            reader.location(second.key_at),
            &path.key(&second.key),
            format!("both `{}` and `{}` are set", first.key, second.key),
            "keep one of them",
        );
    }
    if let Some(uri) = &rule.jwks_uri {
        jwks_uri(uri, &path.key("jwksUri"), reader);
    }
    if let Some(keys) = rule.jwks.as_ref().filter(|keys| !keys.value.is_empty()) {
        jwks::check(keys, &path.key("jwks"), reader);
    }
}

fn jwks_uri(uri: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) {
    let fault = if uri.value.is_empty() {
        Some("it is empty")
    } else if uri.value.chars().count() > LONGEST_URI {
        Some("it has more than 2048 characters")
    } else {
        bad_uri(&uri.value)
    };
    if let Some(fault) = fault {
        reader.report(
            &code::JWKS_URI,
            uri.at.clone(),
            path,
            format!(
                "`{}` is not the address of a key set: {fault}",
                Excerpt(&uri.value)
            ),
            "write an `http://` or `https://` address",
        );
    }
}

/// What Go's `url.Parse` and Istio's port check say.
fn bad_uri(uri: &str) -> Option<&'static str> {
    if uri.chars().any(char::is_control) {
        return Some("it has a control character");
    }
    let Some((scheme, rest)) = uri.split_once(':') else {
        return Some("its scheme is neither `http` nor `https`");
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Some("its scheme is neither `http` nor `https`");
    }
    let rest = rest.split('#').next().unwrap_or_default();
    let rest = rest.split('?').next().unwrap_or_default();
    let hierarchy = rest.strip_prefix("//")?;
    let (authority, path) = hierarchy.split_once('/').unwrap_or((hierarchy, ""));
    if bad_escape(path) {
        return Some("it has a `%` that escapes nothing");
    }
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}']) {
        return Some("its host has a character that no host has");
    }
    let port = match host.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((_, port)) => port,
            None => return Some("its `[` is not closed"),
        },
        None => host
            .find(':')
            .and_then(|at| host.get(at..))
            .unwrap_or_default(),
    };
    let digits = port.strip_prefix(':');
    let port_ok = port.is_empty()
        || digits.is_some_and(|digits| {
            digits.is_empty()
                || (digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<i64>().is_ok())
        });
    (!port_ok).then_some("its port is not a number")
}

fn bad_escape(path: &str) -> bool {
    path.split('%').skip(1).any(|after| {
        !after
            .get(..2)
            .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
    })
}
