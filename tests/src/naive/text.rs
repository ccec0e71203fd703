//! String forms of Istio's policies (policy.md 1.4): `*`, `*suffix`, `prefix*`, exact.

use std::cell::RefCell;
use std::collections::HashMap;

use regex::Regex;

thread_local! {
    static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::new(HashMap::new());
}

/// Whether all of `text` matches the regular expression.
#[must_use]
pub fn full_match(pattern: &str, text: &str) -> bool {
    COMPILED.with_borrow_mut(|compiled| {
        compiled
            .entry(pattern.to_owned())
            .or_insert_with(|| Regex::new(&format!("^(?:{pattern})$")).expect("own pattern"))
            .is_match(text)
    })
}

/// A value of a field against a text: `*` needs one that is not empty.
#[must_use]
pub fn string_match(value: &str, text: &str) -> bool {
    if value == "*" {
        !text.is_empty()
    } else if let Some(suffix) = value.strip_prefix('*') {
        text.ends_with(suffix)
    } else if let Some(prefix) = value.strip_suffix('*') {
        text.starts_with(prefix)
    } else {
        text == value
    }
}

/// A value of a header field against a header: `*` is satisfied by an empty one.
#[must_use]
pub fn header_match(value: &str, header: &str) -> bool {
    value == "*" || string_match(value, header)
}

/// A value of `hosts` against `:authority`: case of ASCII letters does not matter.
#[must_use]
pub fn host_match(value: &str, host: &str) -> bool {
    header_match(&value.to_ascii_lowercase(), &host.to_ascii_lowercase())
}
