//! Header matching as Envoy does it: each occurrence alone, but a few names as one joined value.

use std::borrow::Cow;

use super::{HttpFacts, Match};
use crate::request::Headers;
use crate::text::{Form, Pattern};

/// Names that Envoy keeps inline: repeats stay one comma-joined value (policy.md 1.15.1).
const INLINE: [&str; 23] = [
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "authorization",
    "cache-control",
    "content-type",
    "expect",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-external-address",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Optional white space around a header's value.
const OWS: [char; 2] = [' ', '\t'];

/// The occurrences of a header.
#[derive(Debug, PartialEq, Eq)]
pub enum Values<'h> {
    /// Known occurrences.
    Known(Vec<Cow<'h, str>>),
    /// One text that was joined on the way and has commas: one header or several.
    Joined(Cow<'h, str>),
    /// The way here carries none: there may have been any.
    Unknown,
}

/// Every occurrence of `name` (lower case), pseudo-headers included.
pub fn values<'h>(http: &'h HttpFacts<'_>, name: &str) -> Values<'h> {
    let single = |s: &'h str| {
        Values::Known(if s.is_empty() {
            Vec::new()
        } else {
            vec![Cow::Borrowed(s)]
        })
    };
    match name {
        ":method" => return single(http.method()),
        ":path" => return single(http.path()),
        ":scheme" => return single(http.scheme()),
        ":authority" | "host" => return single(&http.request().host),
        _ => {}
    }
    let headers = &http.request().headers;
    let found = headers
        .entries
        .iter()
        .filter(|(n, _)| n == name)
        .map(|(_, v)| v.as_str());
    if headers.not_carried.contains(&name) && headers.entries.iter().all(|(n, _)| n != name) {
        return Values::Unknown;
    }
    let inline = INLINE.binary_search(&name).is_ok();
    if headers.merged {
        // Names that differed in case only are one header; each value may have been joined before.
        let all: Vec<&str> = found.collect();
        let value = match all.as_slice() {
            [] => return Values::Known(Vec::new()),
            [one] => Cow::Borrowed(*one),
            many => Cow::Owned(many.join(",")),
        };
        return if !inline && value.contains(',') {
            Values::Joined(value)
        } else {
            Values::Known(vec![value])
        };
    }
    if inline {
        // An empty repeat adds nothing to the joined value (measured).
        let all: Vec<&str> = found.collect();
        let told: Vec<&str> = all.iter().copied().filter(|v| !v.is_empty()).collect();
        return Values::Known(match (all.first(), told.as_slice()) {
            (None, _) => Vec::new(),
            (Some(empty), []) => vec![Cow::Borrowed(*empty)],
            (_, [one]) => vec![Cow::Borrowed(*one)],
            (_, many) => vec![Cow::Owned(many.join(","))],
        });
    }
    Values::Known(found.map(Cow::Borrowed).collect())
}

/// True when `value` was joined and could be split.
pub fn is_joined(http: &HttpFacts<'_>, name: &str) -> bool {
    matches!(values(http, name), Values::Joined(_))
}

/// More pieces than this are not put together in every way: there would be too many ways.
const MOST_PIECES: usize = 16;

/// Names of headers of which [`cut_in_every_way`] does not give every value: those that the way here does
/// not carry, and those with too many pieces.
pub fn not_told(headers: &Headers) -> impl Iterator<Item = &str> {
    let there = |name: &str| headers.entries.iter().any(|(known, _)| known == name);
    let hidden = headers.not_carried.iter().copied();
    let hidden = hidden.filter(move |name| !there(name));
    let pieces = |name: &str| -> usize {
        let same = headers.entries.iter().filter(|(known, _)| known == name);
        same.map(|(_, value)| value.split(',').count()).sum()
    };
    let merged = headers.entries.iter().filter(|_| headers.merged);
    let many = merged
        .map(|(name, _)| name.as_str())
        .filter(move |name| INLINE.binary_search(name).is_err() && pieces(name) > MOST_PIECES);
    hidden.chain(many)
}

/// Takes headers that were merged on the way apart at every comma.
pub fn cut_everywhere(headers: &mut Headers) {
    cut(headers, |pieces, _| {
        pieces.iter().map(|p| (*p).to_owned()).collect()
    });
}

/// Gives headers that were merged on the way every value that one of their occurrences could have had,
/// all at once: an over-approximation.
pub fn cut_in_every_way(headers: &mut Headers) {
    cut(headers, |pieces, whole| {
        if pieces.len() > MOST_PIECES {
            let all = pieces.iter().copied().chain([whole]);
            return all.map(str::to_owned).collect();
        }
        let mut runs = Vec::new();
        for from in 0..pieces.len() {
            for to in from..pieces.len() {
                runs.push(pieces.get(from..=to).unwrap_or_default().join(","));
            }
        }
        runs
    });
}

fn cut(headers: &mut Headers, into: fn(&[&str], &str) -> Vec<String>) {
    let mut merged: Vec<(String, String)> = Vec::new();
    for (name, value) in headers.entries.drain(..) {
        // Names that differed in case only are one header.
        match merged.iter_mut().find(|(n, _)| *n == name) {
            Some((_, joined)) => {
                joined.push(',');
                joined.push_str(&value);
            }
            None => merged.push((name, value)),
        }
    }
    headers.entries = merged
        .into_iter()
        .flat_map(|(name, value)| {
            let inline = INLINE.binary_search(&name.as_str()).is_ok();
            let values = if inline || !value.contains(',') {
                vec![value]
            } else {
                let pieces: Vec<&str> = value.split(',').map(|p| p.trim_matches(OWS)).collect();
                into(&pieces, &value)
            };
            values.into_iter().map(move |value| (name.clone(), value))
        })
        .collect();
    headers.merged = false;
}

pub fn matches(http: &HttpFacts<'_>, name: &str, wanted: &Pattern) -> Match {
    match values(http, name) {
        Values::Known(values) => Match::known(values.iter().any(|v| wanted.matches(v))),
        Values::Joined(value) => joined(wanted, &value),
        Values::Unknown => Match::MAYBE,
    }
}

/// A joined text could be cut at any comma. The form certainly matches only if the first or the last
/// piece decides alone; it possibly matches if some run of pieces does.
fn joined(pattern: &Pattern, value: &str) -> Match {
    let first = value
        .split(',')
        .next()
        .unwrap_or_default()
        .trim_matches(OWS);
    let last = value
        .rsplit(',')
        .next()
        .unwrap_or_default()
        .trim_matches(OWS);
    let (certain, needle, from_start, to_end) = match pattern.form() {
        Form::Any => return Match::YES,
        Form::Exact(text) => (false, text, true, true),
        Form::Prefix(text) => (first.starts_with(text.as_str()), text, true, false),
        Form::Suffix(text) => (last.ends_with(text.as_str()), text, false, true),
        _ => return Match::MAYBE,
    };
    let possible = certain
        || needle.is_empty()
        || value.char_indices().any(|(at, _)| {
            // Every place, overlapping ones too: one of them may end at a comma.
            let rest = value.get(at..).unwrap_or_default();
            let Some(after) = rest.strip_prefix(needle.as_str()) else {
                return false;
            };
            let before = value.get(..at).unwrap_or_default().trim_end_matches(OWS);
            let after = after.trim_start_matches(OWS);
            (!from_start || before.is_empty() || before.ends_with(','))
                && (!to_end || after.is_empty() || after.starts_with(','))
        });
    Match { certain, possible }
}

pub fn describe(http: &HttpFacts<'_>, name: &str) -> String {
    match values(http, name) {
        Values::Known(v) if v.is_empty() => "none".to_owned(),
        Values::Known(v) => {
            let quoted: Vec<String> = v.iter().map(|v| format!("`{v}`")).collect();
            quoted.join(", ")
        }
        Values::Joined(v) => format!("`{v}`, merged on the way: one header or several"),
        Values::Unknown => "unknown: the proxy does not hand it over".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Http;

    fn check(entries: &[(&str, &str)], merged: bool, name: &str, wanted: &str) -> (bool, bool) {
        let http = Http {
            headers: Headers {
                entries: entries
                    .iter()
                    .map(|(n, v)| ((*n).into(), (*v).into()))
                    .collect(),
                merged,
                ..Headers::default()
            },
            ..Http::default()
        };
        let facts = HttpFacts::new(&http, Cow::Borrowed("/"));
        let m = matches(&facts, name, &Pattern::header(wanted));
        (m.certain, m.possible)
    }

    const YES: (bool, bool) = (true, true);
    const NO: (bool, bool) = (false, false);
    const MAYBE: (bool, bool) = (false, true);

    #[test]
    fn inline_names_are_sorted() {
        assert!(INLINE.is_sorted());
    }

    #[test]
    fn repeats_match_alone_and_inline_names_joined() {
        let x = [("x-a", "1"), ("x-a", "2")];
        assert_eq!(check(&x, false, "x-a", "2"), YES);
        assert_eq!(check(&x, false, "x-a", "1,2"), NO);
        let origin = [("origin", "1"), ("origin", "2")];
        assert_eq!(check(&origin, false, "origin", "2"), NO);
        assert_eq!(check(&origin, false, "origin", "1,2"), YES);
        let gaps = [("origin", ""), ("origin", "1"), ("origin", "")];
        assert_eq!(check(&gaps, false, "origin", "1"), YES);
        assert_eq!(
            check(&[("origin", ""), ("origin", "")], false, "origin", "*"),
            YES
        );
    }

    #[test]
    fn an_empty_header_is_present() {
        assert_eq!(check(&[("x-a", "")], false, "x-a", "*"), YES);
        assert_eq!(check(&[], false, "x-a", "*"), NO);
    }

    #[test]
    fn merged_values_are_uncertain_both_ways() {
        let x = [("x-a", "a,b,c")];
        assert_eq!(check(&x, true, "x-a", "b"), MAYBE);
        assert_eq!(check(&x, true, "x-a", "a,b"), MAYBE);
        assert_eq!(check(&x, true, "x-a", "a,b,c"), MAYBE);
        assert_eq!(check(&x, true, "x-a", "a*"), YES);
        assert_eq!(check(&x, true, "x-a", "b*"), MAYBE);
        assert_eq!(check(&x, true, "x-a", "*c"), YES);
        assert_eq!(check(&x, true, "x-a", "*b"), MAYBE);
        assert_eq!(check(&x, true, "x-a", "d"), NO);
        assert_eq!(check(&x, true, "x-a", "*"), YES);
        assert_eq!(check(&[("x-a", "1000,b")], true, "x-a", "*00"), MAYBE);
        assert_eq!(check(&[("x-a", "xa,a,a")], true, "x-a", "a,a"), MAYBE);
        assert_eq!(
            check(&[("x-a", "1"), ("x-a", "2")], true, "x-a", "2"),
            MAYBE
        );
        assert_eq!(check(&[("x-a", "a")], true, "x-a", "a"), YES);
        assert_eq!(check(&[("via", "a,b")], true, "via", "a"), NO);
    }
}
