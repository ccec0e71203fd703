//! The name of a trust domain (SPIFFE-ID §2.1).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest trust domain name, bytes (SPIFFE-ID §2.3).
pub const MAX_TRUST_DOMAIN: usize = 255;

/// A trust domain: a namespace of SPIFFE IDs backed by one issuing authority.
///
/// Always in canonical form, lower case: `[a-z0-9._-]`, 1 to 255 bytes. A name that looks like a
/// DNS name or an IPv4 address is treated like any other (SPIFFE-ID §2.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// Text that names no trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustDomainError {
    /// Nothing there.
    #[error("the trust domain is empty: write one such as `example.org`")]
    Empty,
    /// More than 255 bytes.
    #[error("the trust domain has {0} bytes, at most 255 are allowed (SPIFFE-ID §2.3)")]
    TooLong(usize),
    /// Upper case where only the canonical form is accepted.
    #[error("the trust domain `{0}` is not in lower case: write `{lower}` (SPIFFE-ID §2.1)", lower = .0.to_ascii_lowercase())]
    UpperCase(String),
    /// User information, a port, an escape, another character outside the set.
    #[error(
        "the trust domain `{name}` has `{found}` in it: only a to z, 0 to 9, `.`, `-` and `_` are allowed (SPIFFE-ID §2.1)"
    )]
    Character {
        /// The name, shortened.
        name: String,
        /// First character that is not allowed.
        found: char,
    },
    /// A SPIFFE ID with a path where a trust domain was asked for.
    #[error("`{0}` has a path: a trust domain is `spiffe://name` or `name`")]
    HasPath(String),
}

impl TrustDomain {
    /// Reads a name in canonical form, as it stands in credentials and on the wire.
    ///
    /// # Errors
    /// With the rule of SPIFFE-ID §2.1 or §2.3 that the name breaks.
    pub fn new(name: &str) -> Result<Self, TrustDomainError> {
        match name.bytes().find(|byte| !is_name_byte(*byte)) {
            _ if name.is_empty() => Err(TrustDomainError::Empty),
            _ if name.len() > MAX_TRUST_DOMAIN => Err(TrustDomainError::TooLong(name.len())),
            None => Ok(Self(name.into())),
            Some(_) => Err(first_wrong(name)),
        }
    }

    /// Reads what a person wrote: with or without `spiffe://`, in any case (SPIFFE-ID §2.4).
    ///
    /// # Errors
    /// As [`TrustDomain::new`]; a path is an error, too.
    pub fn from_input(text: &str) -> Result<Self, TrustDomainError> {
        let name = match text.split_at_checked("spiffe://".len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("spiffe://") => rest,
            _ => text,
        };
        if name.contains('/') {
            return Err(TrustDomainError::HasPath(shorten(text)));
        }
        Self::new(&name.to_ascii_lowercase())
    }

    /// The name: `example.org`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SPIFFE ID of the trust domain itself: `spiffe://example.org`.
    #[must_use]
    pub fn id_string(&self) -> String {
        format!("spiffe://{}", self.0)
    }
}

fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')
}

fn first_wrong(name: &str) -> TrustDomainError {
    let is_wrong =
        |found: &char| !found.is_ascii_alphanumeric() && !matches!(found, '.' | '-' | '_');
    match name.chars().find(is_wrong) {
        Some(found) => TrustDomainError::Character {
            name: shorten(name),
            found,
        },
        None => TrustDomainError::UpperCase(name.to_owned()),
    }
}

/// The first characters of a text that may be of any length.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
    }
}

impl FromStr for TrustDomain {
    type Err = TrustDomainError;

    fn from_str(name: &str) -> Result<Self, TrustDomainError> {
        Self::new(name)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.0)
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_nothing_in_particular_are_accepted() {
        let longest = "a".repeat(255);
        for name in [
            "example.org",
            "a..b",
            "-a",
            "1.2.3.4",
            "a_b",
            ".",
            longest.as_str(),
        ] {
            assert_eq!(TrustDomain::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn each_rule_refuses_by_its_own_name() {
        assert_eq!(TrustDomain::new(""), Err(TrustDomainError::Empty));
        assert_eq!(
            TrustDomain::new(&"a".repeat(256)),
            Err(TrustDomainError::TooLong(256))
        );
        let upper = TrustDomain::new("Example.org").unwrap_err();
        assert!(upper.to_string().contains("write `example.org`"), "{upper}");
        for (name, wrong) in [
            ("a b", ' '),
            ("user@td", '@'),
            ("td:443", ':'),
            ("%61", '%'),
            ("[::1]", '['),
            ("bücher", 'ü'),
            ("td/x", '/'),
            ("td?q", '?'),
            ("A#", '#'),
        ] {
            let error = TrustDomain::new(name).unwrap_err();
            assert!(
                matches!(&error, TrustDomainError::Character { found, .. } if *found == wrong),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn a_person_may_write_the_scheme_and_capitals() {
        for text in [
            "example.org",
            "spiffe://example.org",
            "SPIFFE://Example.ORG",
        ] {
            let domain = TrustDomain::from_input(text).unwrap();
            assert_eq!(domain.id_string(), "spiffe://example.org");
        }
        for text in [
            "spiffe://example.org/",
            "example.org/x",
            "https://example.org",
        ] {
            assert!(TrustDomain::from_input(text).is_err(), "{text}");
        }
    }
}
