//! Which SPIFFE IDs may connect.

use std::fmt;
use std::str::FromStr;

/// One entry of an allow-list: an id, or everything below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedId {
    /// `spiffe://example.org/ns/ingress/sa/envoy`: this one.
    Exact(String),
    /// `spiffe://example.org/*` or `spiffe://example.org/ns/ingress/*`: those whose path goes on here. The
    /// text ends with the slash.
    Below(String),
}

/// Text that is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no SPIFFE ID to allow: write `spiffe://TRUST_DOMAIN/PATH`, or `/*` at the end for everything below"
)]
pub struct NotAnId(String);

impl FromStr for AllowedId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let wrong = || NotAnId(text.to_owned());
        let (id, below) = match text.strip_suffix("/*") {
            Some(id) => (id, true),
            None => (text, false),
        };
        let id: spiffe::SpiffeId = id.parse().map_err(|_| wrong())?;
        match below {
            true => Ok(Self::Below(format!("{id}/"))),
            false if id.path().is_empty() => Err(wrong()),
            false => Ok(Self::Exact(id.to_string())),
        }
    }
}

impl fmt::Display for AllowedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => f.write_str(id),
            Self::Below(id) => write!(f, "{id}*"),
        }
    }
}

/// The identities that may connect; empty admits nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<AllowedId>);

impl AllowList {
    /// A list of these.
    #[must_use]
    pub fn new(ids: Vec<AllowedId>) -> Self {
        Self(ids)
    }

    /// True when `id`, a SPIFFE ID, is on the list.
    #[must_use]
    pub fn holds(&self, id: &str) -> bool {
        self.0.iter().any(|allowed| match allowed {
            AllowedId::Exact(allowed) => allowed == id,
            AllowedId::Below(prefix) => id.len() > prefix.len() && id.starts_with(prefix.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_admitted_one_by_one_or_by_what_they_are_below() {
        let list = |entries: &[&str]| {
            AllowList::new(entries.iter().map(|entry| entry.parse().unwrap()).collect())
        };
        let list = list(&[
            "spiffe://a.org/ns/x/sa/y",
            "spiffe://b.org/*",
            "spiffe://c.org/ns/*",
        ]);
        for id in [
            "spiffe://a.org/ns/x/sa/y",
            "spiffe://b.org/anything/at/all",
            "spiffe://c.org/ns/x",
        ] {
            assert!(list.holds(id), "{id}");
        }
        for id in [
            "spiffe://a.org/ns/x/sa/y2",
            "spiffe://a.org/ns/x/sa",
            "spiffe://b.org.evil/x",
            "spiffe://b.org",
            "spiffe://b.org/",
            "spiffe://c.org/nsx",
            "spiffe://c.org/ns",
            "",
        ] {
            assert!(!list.holds(id), "{id}");
        }
        assert!(!AllowList::default().holds("spiffe://a.org/x"));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "*",
            "spiffe://*",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://example.org/a*",
            "spiffe://example.org/*/b",
            "spiffe://example.org/a/../b",
            "https://example.org/a",
        ] {
            let error = text.parse::<AllowedId>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` is no SPIFFE ID")),
                "{error}"
            );
        }
        for text in ["spiffe://a/b", "spiffe://a/*", "spiffe://a/b/*"] {
            assert_eq!(text.parse::<AllowedId>().unwrap().to_string(), text);
        }
    }
}
