//! SPIFFE IDs (SPIFFE-ID §2).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::trust_domain::{TrustDomain, TrustDomainError, shorten};

/// Longest SPIFFE ID, bytes (SPIFFE-ID §2.3).
pub const MAX_SPIFFE_ID: usize = 2048;

const SCHEME: &str = "spiffe://";

/// A SPIFFE ID in canonical form: `spiffe://trust-domain/path`, the path possibly empty.
///
/// There is one text for one ID, so equality of texts is equality of IDs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Arc<str>,
    trust_domain: TrustDomain,
}

/// Text that is no SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Nothing there.
    #[error("the SPIFFE ID is empty: write one such as `spiffe://example.org/web`")]
    Empty,
    /// More than 2048 bytes.
    #[error("the SPIFFE ID has {0} bytes, at most 2048 are allowed (SPIFFE-ID §2.3)")]
    TooLong(usize),
    /// Another scheme, or none.
    #[error("`{0}` does not start with `spiffe://` (SPIFFE-ID §2)")]
    Scheme(String),
    /// The trust domain breaks a rule.
    #[error(transparent)]
    TrustDomain(#[from] TrustDomainError),
    /// `//`, or a `/` at the end.
    #[error("the path of `{0}` has an empty segment: no `//`, no `/` at the end (SPIFFE-ID §2.2)")]
    EmptySegment(String),
    /// `.` or `..`.
    #[error("the path of `{0}` has a segment `.` or `..` (SPIFFE-ID §2.2)")]
    DotSegment(String),
    /// A query, a fragment, an escape, another character outside the set.
    #[error(
        "the path of `{id}` has `{found}` in it: only letters, digits, `.`, `-` and `_` are allowed between slashes (SPIFFE-ID §2.2)"
    )]
    Character {
        /// The ID, shortened.
        id: String,
        /// First character that is not allowed.
        found: char,
    },
    /// A path that does not start with `/`.
    #[error("the path `{0}` does not start with `/` (SPIFFE-ID §2.2)")]
    RelativePath(String),
}

impl SpiffeId {
    /// Reads an ID in canonical form, as it stands in credentials and on the wire.
    ///
    /// # Errors
    /// With the rule of SPIFFE-ID §2 that the text breaks.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.is_empty() {
            return Err(SpiffeIdError::Empty);
        }
        if text.len() > MAX_SPIFFE_ID {
            return Err(SpiffeIdError::TooLong(text.len()));
        }
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| SpiffeIdError::Scheme(shorten(text)))?;
        let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let trust_domain = TrustDomain::new(name)?;
        check_path(path, text)?;
        Ok(Self {
            uri: text.into(),
            trust_domain,
        })
    }

    /// Reads what a person wrote: scheme and trust domain in any case (SPIFFE-ID §2.4), the path as it stands.
    ///
    /// # Errors
    /// As [`SpiffeId::parse`].
    pub fn from_input(text: &str) -> Result<Self, SpiffeIdError> {
        let authority_end = text
            .match_indices('/')
            .nth(2)
            .map_or(text.len(), |(at, _)| at);
        let (authority, path) = text.split_at(authority_end);
        Self::parse(&format!("{}{path}", authority.to_ascii_lowercase()))
    }

    /// The ID of `path` in `trust_domain`; an empty path is the trust domain's own ID.
    ///
    /// # Errors
    /// When the path breaks a rule of SPIFFE-ID §2.2, or the whole is too long.
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, SpiffeIdError> {
        if !path.is_empty() && !path.starts_with('/') {
            return Err(SpiffeIdError::RelativePath(shorten(path)));
        }
        Self::parse(&format!("{SCHEME}{trust_domain}{path}"))
    }

    /// The ID of a trust domain, which its signing authorities carry (SPIFFE-ID §3.1).
    #[must_use]
    pub fn of_trust_domain(trust_domain: &TrustDomain) -> Self {
        Self {
            uri: trust_domain.id_string().into(),
            trust_domain: trust_domain.clone(),
        }
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash, or nothing.
    #[must_use]
    pub fn path(&self) -> &str {
        let start = SCHEME.len() + self.trust_domain.as_str().len();
        self.uri.get(start..).unwrap_or_default()
    }
}

fn check_path(path: &str, id: &str) -> Result<(), SpiffeIdError> {
    // The first piece is what stands before the leading slash: nothing.
    for segment in path.split('/').skip(1) {
        match segment {
            "" => return Err(SpiffeIdError::EmptySegment(shorten(id))),
            "." | ".." => return Err(SpiffeIdError::DotSegment(shorten(id))),
            _ => {}
        }
        let is_wrong =
            |found: &char| !found.is_ascii_alphanumeric() && !matches!(found, '.' | '-' | '_');
        if let Some(found) = segment.chars().find(is_wrong) {
            return Err(SpiffeIdError::Character {
                id: shorten(id),
                found,
            });
        }
    }
    Ok(())
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(text)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_trust_domain_and_its_path() {
        for (text, domain, path) in [
            ("spiffe://example.org", "example.org", ""),
            ("spiffe://example.org/a", "example.org", "/a"),
            (
                "spiffe://1.2.3.4/a/B-c_d.e/...",
                "1.2.3.4",
                "/a/B-c_d.e/...",
            ),
        ] {
            let id = SpiffeId::parse(text).unwrap();
            assert_eq!((id.trust_domain().as_str(), id.path()), (domain, path));
            assert_eq!(id.to_string(), text);
            assert_eq!(SpiffeId::new(id.trust_domain(), id.path()).unwrap(), id);
        }
    }

    #[test]
    fn an_id_of_2048_bytes_is_accepted_and_one_more_is_not() {
        let id = format!("spiffe://td/{}", "a".repeat(2048 - "spiffe://td/".len()));
        assert_eq!(SpiffeId::parse(&id).unwrap().as_str(), id);
        let error = SpiffeId::parse(&format!("{id}a")).unwrap_err();
        assert_eq!(error, SpiffeIdError::TooLong(2049));
    }

    #[test]
    fn each_rule_refuses_by_its_own_name() {
        let error = |text: &str| SpiffeId::parse(text).unwrap_err();
        assert_eq!(error(""), SpiffeIdError::Empty);
        for text in [
            "http://td/x",
            "spiffe:/td",
            "Spiffe://td/x",
            "td/x",
            "spiffe",
        ] {
            assert!(matches!(error(text), SpiffeIdError::Scheme(_)), "{text}");
        }
        for text in [
            "spiffe://",
            "spiffe:///x",
            "spiffe://TD/x",
            "spiffe://u@td/x",
            "spiffe://td:1/x",
            "spiffe://td?q",
            "spiffe://td#f",
            "spiffe://%74d/x",
        ] {
            assert!(
                matches!(error(text), SpiffeIdError::TrustDomain(_)),
                "{text}"
            );
        }
        for text in ["spiffe://td/", "spiffe://td//x", "spiffe://td/x/"] {
            assert!(
                matches!(error(text), SpiffeIdError::EmptySegment(_)),
                "{text}"
            );
        }
        for text in ["spiffe://td/.", "spiffe://td/../x", "spiffe://td/x/.."] {
            assert!(
                matches!(error(text), SpiffeIdError::DotSegment(_)),
                "{text}"
            );
        }
        for text in [
            "spiffe://td/x?q",
            "spiffe://td/x#f",
            "spiffe://td/%61",
            "spiffe://td/ü",
            "spiffe://td/a b",
            "spiffe://td/a:b",
            "spiffe://td/a\0",
        ] {
            assert!(
                matches!(error(text), SpiffeIdError::Character { .. }),
                "{text}"
            );
        }
    }

    #[test]
    fn a_person_may_write_capitals_before_the_path() {
        let id = SpiffeId::from_input("SPIFFE://Example.ORG/Web").unwrap();
        assert_eq!(id.as_str(), "spiffe://example.org/Web");
        assert!(SpiffeId::from_input("Example.org/Web").is_err());
    }
}
