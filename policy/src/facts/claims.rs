//! JWT claims and dynamic metadata: strings, or lists that have a string.

use std::sync::Arc;

use serde_json::Value;

use crate::request_authentication::{SPACE_DELIMITED_CLAIMS, TokenRules};
use crate::text::Pattern;

/// True when the top-level claim is a string that matches; lists do not count for `iss` and `sub`.
pub fn is_string(payload: Option<&Value>, claim: &str, pattern: &Pattern) -> bool {
    payload
        .and_then(|p| p.get(claim))
        .and_then(Value::as_str)
        .is_some_and(|s| pattern.matches(s))
}

/// The strings that a claim holds: itself, its words where it is space-delimited, or the strings of
/// its list. Numbers, booleans and nested lists never match (policy.md 1.15.9).
pub fn texts<'v>(
    payload: Option<&'v Value>,
    path: &[Arc<str>],
    rules: Option<&TokenRules>,
) -> Vec<&'v str> {
    match find(payload, path) {
        Some(Value::String(s)) => {
            let split = matches!(path, [name] if is_space_delimited(payload, name, rules));
            let words: Vec<&str> = s.split(' ').filter(|w| split && !w.is_empty()).collect();
            // Without a word there is nothing to split: the string stays one.
            if words.is_empty() {
                vec![s.as_str()]
            } else {
                words
            }
        }
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// True when one of the claim's strings matches.
pub fn matches(
    payload: Option<&Value>,
    path: &[Arc<str>],
    pattern: &Pattern,
    rules: Option<&TokenRules>,
) -> bool {
    texts(payload, path, rules)
        .into_iter()
        .any(|s| pattern.matches(s))
}

fn is_space_delimited(payload: Option<&Value>, name: &str, rules: Option<&TokenRules>) -> bool {
    match rules {
        Some(rules) => {
            let issuer = payload.and_then(|p| p.get("iss")).and_then(Value::as_str);
            rules.is_space_delimited(issuer.unwrap_or_default(), name)
        }
        None => SPACE_DELIMITED_CLAIMS.contains(&name),
    }
}

fn find<'v>(payload: Option<&'v Value>, path: &[Arc<str>]) -> Option<&'v Value> {
    path.iter()
        .try_fold(payload?, |value, key| value.as_object()?.get(key.as_ref()))
}

/// Dynamic metadata of one filter.
pub fn metadata(of_filter: Option<&Value>, key: &str, list: bool, pattern: &Pattern) -> bool {
    match of_filter
        .and_then(Value::as_object)
        .and_then(|m| m.get(key))
    {
        Some(Value::String(s)) => !list && pattern.matches(s),
        Some(Value::Array(items)) => {
            list && items
                .iter()
                .filter_map(Value::as_str)
                .any(|s| pattern.matches(s))
        }
        _ => false,
    }
}

/// What stands at a claim, in words.
pub fn describe(payload: Option<&Value>, path: &[Arc<str>]) -> String {
    match (payload, find(payload, path)) {
        (None, _) => "none: the request carries no verified token".to_owned(),
        (Some(_), None) => "none: the token has no such claim".to_owned(),
        (_, Some(v)) => format!("`{v}`"),
    }
}

/// `iss/sub` of the token, in words.
pub fn describe_principal(payload: Option<&Value>) -> String {
    let Some(payload) = payload else {
        return "none: the request carries no verified token".to_owned();
    };
    let claim = |c: &str| payload.get(c).and_then(Value::as_str).unwrap_or_default();
    format!("`{}/{}`", claim("iss"), claim("sub"))
}
