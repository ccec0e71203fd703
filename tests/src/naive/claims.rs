//! JWT claims and dynamic metadata (policy.md 1.4, 1.15.6, 1.15.9).

use serde_json::Value;

use super::text::string_match;

/// `requestPrincipals`: issuer and subject, split at the last slash.
#[must_use]
pub fn request_principal(value: &str, payload: Option<&Value>) -> bool {
    let claim = |name: &str| payload.and_then(|payload| payload[name].as_str());
    let (Some(iss), Some(sub)) = (claim("iss"), claim("sub")) else {
        return false;
    };
    let present = |text: &str| !text.is_empty();
    let Some((issuer, subject)) = value.rsplit_once('/') else {
        return match (value.strip_prefix('*'), value.strip_suffix('*')) {
            (Some(suffix), _) => {
                present(iss)
                    && if suffix.is_empty() {
                        present(sub)
                    } else {
                        sub.ends_with(suffix)
                    }
            }
            (None, Some(prefix)) => iss.starts_with(prefix) && present(sub),
            (None, None) => iss == value && sub.is_empty(),
        };
    };
    if let Some(suffix) = issuer.strip_prefix('*') {
        let issued = if suffix.is_empty() {
            present(iss)
        } else {
            iss.ends_with(suffix)
        };
        return issued && sub == subject;
    }
    iss == issuer
        && match subject.strip_suffix('*') {
            Some("") => present(sub),
            Some(prefix) => sub.starts_with(prefix),
            None => sub == subject,
        }
}

/// A claim value: a string, or a list with a string, that matches.
#[must_use]
pub fn claim(value: &str, names: &[String], payload: Option<&Value>) -> bool {
    let Some(claim) = payload.and_then(|payload| walk(payload, names)) else {
        return false;
    };
    text_or_list(&claim)
        .iter()
        .any(|text| string_match(value, text))
}

fn text_or_list(claim: &Value) -> Vec<String> {
    match claim {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list
            .iter()
            .filter_map(|entry| entry.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// Follows the names through nested objects.
fn walk(value: &Value, names: &[String]) -> Option<Value> {
    match names.split_first() {
        None => Some(value.clone()),
        Some((name, rest)) => walk(value.as_object()?.get(name)?, rest),
    }
}

/// The payload as Envoy keeps it: `scope`, `permission` and `more` split at spaces.
#[must_use]
pub fn split_at_spaces(payload: &Value, more: &[String]) -> Value {
    let mut payload = payload.clone();
    let names = ["scope", "permission"].into_iter().map(str::to_owned);
    for name in names.chain(more.iter().cloned()) {
        if let Some(text) = payload[name.as_str()].as_str() {
            let words: Vec<Value> = text
                .split(' ')
                .filter(|word| !word.is_empty())
                .map(Value::from)
                .collect();
            if !words.is_empty() {
                payload[name.as_str()] = Value::from(words);
            }
        }
    }
    payload
}

/// The names in `[a][b]`; brackets that do not nest plainly make one name of the whole.
///
/// # Errors
/// The text is not in brackets.
pub fn bracketed_names(text: &str) -> Result<Vec<String>, ()> {
    let mut names = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let inner = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        match inner {
            Some((name, after)) if !name.contains('[') => {
                names.push(name.to_owned());
                rest = after;
            }
            _ => return Ok(vec![bracketed_name(text)?]),
        }
    }
    Ok(names)
}

/// The name in `[a]`.
///
/// # Errors
/// The text is not in brackets.
pub fn bracketed_name(text: &str) -> Result<String, ()> {
    if !text.starts_with('[') || !text.ends_with(']') {
        return Err(());
    }
    let text = text.strip_suffix(']').unwrap_or(text);
    Ok(text.strip_prefix('[').unwrap_or(text).to_owned())
}

/// `experimental.envoy.filters.NAME[KEY]`: metadata that a filter left.
///
/// # Errors
/// The key has no bracket.
pub fn filter_metadata(
    key: &str,
    value: &str,
    metadata: &std::collections::BTreeMap<String, Value>,
) -> Result<bool, ()> {
    let key = key.strip_prefix("experimental.").unwrap_or(key);
    let key = key.strip_suffix(']').unwrap_or(key);
    let (filter, name) = key.split_once('[').ok_or(())?;
    let found = metadata.get(filter).and_then(|fields| fields.get(name));
    if value.starts_with('[') && value.ends_with(']') {
        let wanted = value.trim_matches(['[', ']']);
        let list = found.and_then(Value::as_array);
        return Ok(list.is_some_and(|list| {
            list.iter()
                .filter_map(Value::as_str)
                .any(|entry| string_match(wanted, entry))
        }));
    }
    Ok(found
        .and_then(Value::as_str)
        .is_some_and(|text| string_match(value, text)))
}
