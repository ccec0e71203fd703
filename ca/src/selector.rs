//! Selectors: facts that attestation found out about a caller.

use std::fmt;
use std::str::FromStr;

use crate::trust_domain::shorten;

/// Longest selector, bytes, type and value together.
pub const MAX_SELECTOR: usize = 2048;

/// One fact: `unix:uid:1000` is type `unix`, value `uid:1000`.
///
/// An entry matches a caller when every selector of the entry is one of the caller's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    kind: Box<str>,
    value: Box<str>,
}

/// Text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// No colon, or nothing before it.
    #[error("the selector `{0}` has no type: write `type:value`, such as `unix:uid:1000`")]
    NoType(String),
    /// Nothing after the colon.
    #[error("the selector `{0}` has no value: write `type:value`, such as `unix:uid:1000`")]
    NoValue(String),
    /// A colon in the type.
    #[error("the selector's type `{0}` has a colon in it")]
    ColonInType(String),
    /// Of a type whose facts we know, and none of them.
    #[error("no caller ever has the selector `{selector}`: those of type `{kind}` are {known}, each with a value", kind = .selector.kind(), known = known(.selector.kind()))]
    NeverFound {
        /// The selector.
        selector: Selector,
    },
    /// Too long to be a fact.
    #[error("the selector has {0} bytes, at most 2048 are allowed")]
    TooLong(usize),
}

/// Facts of the types that our own attestors find out; those of other types come from agents.
const KINDS: [(&str, &[&str]); 2] = [
    (
        "unix",
        &[
            "uid",
            "gid",
            "user",
            "group",
            "supplementary_gid",
            "supplementary_group",
            "path",
            "sha256",
        ],
    ),
    ("systemd", &["id"]),
];

fn facts(kind: &str) -> Option<&'static [&'static str]> {
    let known = KINDS.iter().find(|(known, _)| *known == kind);
    known.map(|(_, facts)| *facts)
}

fn known(kind: &str) -> String {
    let facts = facts(kind).unwrap_or_default().iter();
    let facts: Vec<String> = facts.map(|fact| format!("`{kind}:{fact}:`")).collect();
    facts.join(", ")
}

impl Selector {
    /// A selector from its two parts.
    ///
    /// # Errors
    /// When a part is empty or too long, or the type has a colon in it.
    pub fn new(kind: &str, value: &str) -> Result<Self, SelectorError> {
        let length = kind.len() + 1 + value.len();
        if length > MAX_SELECTOR {
            return Err(SelectorError::TooLong(length));
        }
        if kind.is_empty() {
            return Err(SelectorError::NoType(format!(":{value}")));
        }
        if kind.contains(':') {
            return Err(SelectorError::ColonInType(kind.to_owned()));
        }
        if value.is_empty() {
            return Err(SelectorError::NoValue(format!("{kind}:")));
        }
        Ok(Self {
            kind: kind.into(),
            value: value.into(),
        })
    }

    /// Refuses one that no caller can have: `unix:uid`, `unix:name:web`.
    ///
    /// # Errors
    /// [`SelectorError::NeverFound`].
    pub fn can_be_found(&self) -> Result<(), SelectorError> {
        let Some(facts) = facts(&self.kind) else {
            return Ok(());
        };
        match self.value.split_once(':') {
            Some((fact, value)) if facts.contains(&fact) && !value.is_empty() => Ok(()),
            _ => Err(SelectorError::NeverFound {
                selector: self.clone(),
            }),
        }
    }

    /// What stands before the first colon: `unix`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What stands after the first colon: `uid:1000`.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        match text.split_once(':') {
            Some((kind, value)) => Self::new(kind, value),
            None => Err(SelectorError::NoType(shorten(text))),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_colon_ends_the_type() {
        let selector: Selector = "unix:uid:1000".parse().unwrap();
        assert_eq!((selector.kind(), selector.value()), ("unix", "uid:1000"));
        assert_eq!(selector.to_string(), "unix:uid:1000");
    }

    #[test]
    fn what_no_caller_has_is_told() {
        for text in [
            "unix:uid:0",
            "unix:path:/a:b",
            "systemd:id:a.service",
            "k8s:ns",
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().can_be_found(), Ok(()));
        }
        for text in ["unix:uid", "unix:uid:", "unix:name:web", "systemd:web"] {
            let selector: Selector = text.parse().unwrap();
            let error = selector.can_be_found().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn half_a_selector_is_refused() {
        for text in ["", "unix", ":", ":uid:0", "unix:"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
        assert!(Selector::new("a:b", "c").is_err());
        let long = format!("unix:{}", "x".repeat(MAX_SELECTOR));
        assert!(matches!(
            long.parse::<Selector>(),
            Err(SelectorError::TooLong(_))
        ));
    }
}
