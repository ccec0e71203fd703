//! `when` keys and the names inside their brackets.

use std::sync::Arc;

use crate::model::HeaderName;

/// A `when` key, read as istiod reads it: by prefix first, brackets later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// `destination.ip`.
    DestinationIp,
    /// `destination.port`.
    DestinationPort,
    /// `connection.sni`.
    Sni,
    /// `experimental.envoy.filters.…[key]`; `None` when the brackets are wrong.
    Metadata(Option<(Arc<str>, Arc<str>)>),
    /// `source.ip`.
    SourceIp,
    /// `remote.ip`.
    RemoteIp,
    /// `source.namespace`.
    Namespace,
    /// `source.trustDomain`.
    TrustDomain,
    /// `source.serviceAccount`.
    ServiceAccount,
    /// `source.principal`.
    Principal,
    /// `request.auth.principal`.
    RequestPrincipal,
    /// `request.auth.audiences` (`aud`), `request.auth.presenter` (`azp`) or
    /// `request.auth.claims[a][b]`; `None` when the brackets are wrong.
    Claim(Option<Vec<Arc<str>>>),
    /// `request.headers[name]`; `None` when the brackets are wrong.
    Header(Option<HeaderName>),
}

impl Key {
    /// `None` for a key istiod does not know: it drops the whole rule, even in a DENY.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        Some(match key {
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::DestinationPort,
            "connection.sni" => Self::Sni,
            "source.ip" => Self::SourceIp,
            "remote.ip" => Self::RemoteIp,
            "source.namespace" => Self::Namespace,
            "source.trustDomain" => Self::TrustDomain,
            "source.serviceAccount" => Self::ServiceAccount,
            "source.principal" => Self::Principal,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.audiences" => Self::Claim(Some(vec![Arc::from("aud")])),
            "request.auth.presenter" => Self::Claim(Some(vec![Arc::from("azp")])),
            _ => {
                if let Some(rest) = key.strip_prefix("request.headers") {
                    Self::Header(in_brackets(rest).map(header_name))
                } else if let Some(rest) = key.strip_prefix("request.auth.claims") {
                    Self::Claim(nested_brackets(rest))
                } else if key.starts_with("experimental.envoy.filters.") {
                    Self::Metadata(metadata(key))
                } else {
                    return None;
                }
            }
        })
    }
}

/// Header names are compared without case.
#[must_use]
fn header_name(name: &str) -> HeaderName {
    HeaderName(Arc::from(name.to_ascii_lowercase()))
}

fn in_brackets(s: &str) -> Option<&str> {
    if s.starts_with('[') && s.ends_with(']') {
        // Go trims suffix, then prefix: a lone `[` cannot reach here.
        Some(
            s.strip_suffix(']')
                .unwrap_or(s)
                .strip_prefix('[')
                .unwrap_or(""),
        )
    } else {
        None
    }
}

/// `[a][b]` to `a`, `b`; what does not split that way is one name (`[a]b]` is `a]b`).
fn nested_brackets(s: &str) -> Option<Vec<Arc<str>>> {
    let mut names = Vec::new();
    let mut rest = s;
    while !rest.is_empty() {
        let inner = rest
            .strip_prefix('[')
            .and_then(|r| r.find(['[', ']']).and_then(|end| r.split_at_checked(end)))
            .filter(|(_, tail)| tail.starts_with(']'));
        match inner {
            Some((name, tail)) => {
                names.push(Arc::from(name));
                rest = tail.strip_prefix(']').unwrap_or("");
            }
            None => return in_brackets(s).map(|name| vec![Arc::from(name)]),
        }
    }
    Some(names)
}

fn metadata(key: &str) -> Option<(Arc<str>, Arc<str>)> {
    let key = key.strip_prefix("experimental.").unwrap_or(key);
    let key = key.strip_suffix(']').unwrap_or(key);
    let (filter, name) = key.split_once('[')?;
    Some((Arc::from(filter), Arc::from(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(key: &str) -> Option<Vec<String>> {
        match Key::parse(key) {
            Some(Key::Claim(path)) => path.map(|p| p.iter().map(ToString::to_string).collect()),
            other => panic!("{key} is {other:?}"),
        }
    }

    #[test]
    fn claims_nest_and_fall_back_to_one_name() {
        assert_eq!(claims("request.auth.claims[a]"), Some(vec!["a".into()]));
        assert_eq!(
            claims("request.auth.claims[a][b]"),
            Some(vec!["a".into(), "b".into()])
        );
        assert_eq!(claims("request.auth.claims[a.b]"), Some(vec!["a.b".into()]));
        assert_eq!(claims("request.auth.claims[a]b]"), Some(vec!["a]b".into()]));
        assert_eq!(
            claims("request.auth.claims[a[b]]"),
            Some(vec!["a[b]".into()])
        );
        assert_eq!(claims("request.auth.claimsa"), None);
    }

    #[test]
    fn headers_are_lower_case_and_need_brackets() {
        assert_eq!(
            Key::parse("request.headers[X-Token]"),
            Some(Key::Header(Some(HeaderName(Arc::from("x-token")))))
        );
        assert_eq!(Key::parse("request.headers.x"), Some(Key::Header(None)));
    }

    #[test]
    fn unknown_keys_are_unknown() {
        assert_eq!(Key::parse("source.uid"), None);
        assert_eq!(Key::parse("experimental.x"), None);
    }

    #[test]
    fn metadata_keys_split_at_the_first_bracket() {
        assert_eq!(
            Key::parse("experimental.envoy.filters.http.x[k][l]"),
            Some(Key::Metadata(Some((
                Arc::from("envoy.filters.http.x"),
                Arc::from("k][l")
            ))))
        );
        assert_eq!(
            Key::parse("experimental.envoy.filters.http.x"),
            Some(Key::Metadata(None))
        );
    }
}
