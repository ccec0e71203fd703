//! How each proxy hands over the request that it asks about: one file per dialect.

mod apache;
mod caddy;
mod envoy;
mod forwarded;
mod haproxy;
mod ingress_nginx;
mod nginx;
mod original;
mod traefik;

use std::fmt;
use std::str::FromStr;

use portcullis_policy::request::PathForm;
use tonic::codegen::http::request::Parts;

use super::Options;
use crate::check::Refusal;

/// The proxy's way to ask over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Envoy's ext_authz with an `http_service`: the request itself, its path behind a prefix.
    Envoy,
    /// nginx `auth_request`: X-Original-Method, X-Original-URI and Host.
    Nginx,
    /// ingress-nginx `auth-url`: X-Original-Method and X-Original-URL.
    IngressNginx,
    /// Traefik forwardAuth: X-Forwarded-Method, -Uri and -Host.
    Traefik,
    /// Caddy forward_auth: X-Forwarded-Method, -Uri and -Host.
    Caddy,
    /// HAProxy with our Lua action: X-Original-Method, X-Original-URI and Host.
    Haproxy,
    /// Apache httpd with our Lua hook: X-Original-Method, X-Original-URI and Host.
    Apache,
}

/// The request that the proxy asks about, as the client sent it to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Original<'a> {
    pub(super) method: &'a str,
    /// Path with query, perhaps in absolute form.
    pub(super) target: &'a str,
    pub(super) host: &'a str,
    /// Empty when unknown.
    pub(super) scheme: &'a str,
}

/// Headers in which dialects carry method and target. One of another dialect is a mistake of the
/// proxy's configuration, or a client that tries what is read.
const CARRIERS: [&str; 5] = [
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-forwarded-method",
    "x-forwarded-uri",
];

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 7] = [
        Self::Envoy,
        Self::Nginx,
        Self::IngressNginx,
        Self::Traefik,
        Self::Caddy,
        Self::Haproxy,
        Self::Apache,
    ];

    /// The word used in configuration and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Envoy => "envoy-http",
            Self::Nginx => "nginx",
            Self::IngressNginx => "ingress-nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
            Self::Apache => "apache",
        }
    }

    /// How paths arrive unless the listener says otherwise: only Envoy normalises before it asks.
    #[must_use]
    pub fn path_form(self) -> PathForm {
        match self {
            Self::Envoy => PathForm::Normalised,
            _ => PathForm::Raw,
        }
    }

    /// True where the proxy joins repeats of a header by commas before it asks.
    pub(super) fn merges_headers(self) -> bool {
        matches!(self, Self::Envoy | Self::Apache)
    }

    /// True where the last entry of X-Forwarded-For is the proxy's own peer. Envoy appends it or
    /// does not, as it is configured, and its own address behind it.
    pub(super) fn appends_peer(self) -> bool {
        self != Self::Envoy
    }

    /// The headers in which this dialect carries method and target.
    pub(super) fn carriers(self) -> &'static [&'static str] {
        match self {
            Self::Envoy => &[],
            Self::Nginx | Self::Haproxy | Self::Apache => original::CARRIERS,
            Self::IngressNginx => ingress_nginx::CARRIERS,
            Self::Traefik | Self::Caddy => forwarded::CARRIERS,
        }
    }

    /// Reads the original request.
    pub(super) fn original<'a>(
        self,
        parts: &'a Parts,
        options: &Options,
    ) -> Result<Original<'a>, Refusal> {
        let ours = self.carriers();
        let others = CARRIERS.iter().filter(|name| !ours.contains(name));
        for other in others {
            if parts.headers.contains_key(*other) {
                return Err(super::header::malformed(format!(
                    "`{other}` belongs to another dialect than `{self}`: have the proxy delete it"
                )));
            }
        }
        match self {
            Self::Envoy => envoy::original(parts, &options.path_prefix),
            Self::Nginx => nginx::original(parts),
            Self::IngressNginx => ingress_nginx::original(parts),
            Self::Traefik => traefik::original(parts),
            Self::Caddy => caddy::original(parts),
            Self::Haproxy => haproxy::original(parts),
            Self::Apache => apache::original(parts),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no [`Dialect`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no dialect")]
pub struct UnknownDialect(String);

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(text: &str) -> Result<Self, UnknownDialect> {
        let mut all = Self::ALL.into_iter();
        all.find(|dialect| dialect.as_str() == text)
            .ok_or_else(|| UnknownDialect(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_dialects_are_the_same() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.as_str().parse::<Dialect>(), Ok(dialect));
        }
        assert!("envoy".parse::<Dialect>().is_err());
    }
}
