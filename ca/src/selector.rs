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
    /// Too long to be a fact.
    #[error("the selector has {0} bytes, at most 2048 are allowed")]
    TooLong(usize),
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
