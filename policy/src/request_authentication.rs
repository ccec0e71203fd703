//! RequestAuthentication: where tokens are looked for, and what a token without a verdict means
//! (policy.md 1.12).
//!
//! Verification is the work of the proxy or of the service in front of the engine: either hands the
//! payload of a verified token along. What is left for the engine is the closed state: a token stands
//! at one of the places and nobody vouches for it.
//! Facts from istio:pilot/pkg/security/authn/policy_applier.go at 86c9f01f and Envoy's jwt_authn filter
//! (extractor.cc, filter.cc) and query and cookie parsing (source/common/http/utility.cc).

pub mod place;
mod query;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::request::Http;
use crate::resource::{JwtRule, RequestAuthentication};

/// Claims that are always split at spaces before they are matched.
pub const SPACE_DELIMITED_CLAIMS: [&str; 2] = ["permission", "scope"];

const DEFAULT_HEADER: &str = "authorization";
const DEFAULT_PREFIX: &str = "Bearer ";
const DEFAULT_PARAM: &str = "access_token";

/// One rule, with the policy that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenProvider {
    /// `namespace/name` of the RequestAuthentication.
    pub policy: String,
    /// The rule.
    pub rule: JwtRule,
}

/// The rules of every RequestAuthentication that applies at one place, combined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRules {
    policies: Vec<String>,
    providers: Vec<Arc<TokenProvider>>,
    headers: BTreeSet<(String, String)>,
    params: BTreeSet<String>,
    cookies: BTreeSet<String>,
    /// (issuer, claim); an empty issuer is any.
    space_delimited: BTreeSet<(String, String)>,
}

impl TokenRules {
    /// Combines the rules of all policies that apply, in the order given; `None` without any rule:
    /// then no token is looked for.
    #[must_use]
    pub fn combine<'a>(
        policies: impl IntoIterator<Item = &'a RequestAuthentication>,
    ) -> Option<Self> {
        let mut combined = Self::default();
        for policy in policies
            .into_iter()
            .filter(|policy| !policy.jwt_rules.is_empty())
        {
            let name = format!("{}/{}", policy.meta.namespace, policy.meta.name);
            for rule in &policy.jwt_rules {
                combined.add(rule);
                combined.providers.push(Arc::new(TokenProvider {
                    policy: name.clone(),
                    rule: rule.clone(),
                }));
            }
            combined.policies.push(name);
        }
        // As istiod orders them: the first whose token is valid is the one that counts.
        let issuer = |provider: &Arc<TokenProvider>| provider.rule.issuer.value.clone();
        combined.providers.sort_by_key(issuer);
        (!combined.policies.is_empty()).then_some(combined)
    }

    fn add(&mut self, rule: &JwtRule) {
        if rule.from_headers.is_empty()
            && rule.from_params.is_empty()
            && rule.from_cookies.is_empty()
        {
            self.headers
                .insert((DEFAULT_HEADER.to_owned(), DEFAULT_PREFIX.to_owned()));
            self.params.insert(DEFAULT_PARAM.to_owned());
        }
        for location in &rule.from_headers {
            self.headers
                .insert((location.name.to_ascii_lowercase(), location.prefix.clone()));
        }
        self.params
            .extend(rule.from_params.iter().map(|param| param.value.clone()));
        self.cookies
            .extend(rule.from_cookies.iter().map(|cookie| cookie.value.clone()));
        for claim in &rule.space_delimited_claims {
            self.space_delimited
                .insert((rule.issuer.value.clone(), claim.clone()));
        }
    }

    /// `namespace/name` of every policy that has a rule.
    #[must_use]
    pub fn policies(&self) -> &[String] {
        &self.policies
    }

    /// Every rule, ordered by issuer.
    #[must_use]
    pub fn providers(&self) -> &[Arc<TokenProvider>] {
        &self.providers
    }

    /// True when a token that the proxy would have had to verify stands in the request: one is at a
    /// place that some rule names, and the request is no CORS preflight, which Istio lets pass.
    #[must_use]
    pub fn token_present(&self, http: &Http) -> bool {
        !is_cors_preflight(http)
            && (self.in_headers(http) || self.in_query(http) || self.in_cookies(http))
    }

    /// Whether the proxy's filter splits a top-level claim of this issuer's tokens at spaces.
    #[must_use]
    pub fn is_space_delimited(&self, issuer: &str, claim: &str) -> bool {
        SPACE_DELIMITED_CLAIMS.contains(&claim)
            || self
                .space_delimited
                .iter()
                .any(|(of, name)| name == claim && (of.is_empty() || of == issuer))
    }

    /// Every claim that some rule splits at spaces, `scope` and `permission` among them.
    pub fn space_delimited_claims(&self) -> impl Iterator<Item = &str> {
        let own = self.space_delimited.iter().map(|(_, claim)| claim.as_str());
        let named: BTreeSet<&str> = own.chain(SPACE_DELIMITED_CLAIMS).collect();
        named.into_iter()
    }

    /// A header with the prefix anywhere in its value, or any value where no prefix is asked for.
    fn in_headers(&self, http: &Http) -> bool {
        self.headers.iter().any(|(name, prefix)| {
            values(http, name).any(|value| prefix.is_empty() || value.contains(prefix.as_str()))
        })
    }

    fn in_query(&self, http: &Http) -> bool {
        !self.params.is_empty()
            && query::names(&http.path)
                .any(|name| self.params.iter().any(|param| param.as_bytes() == name))
    }

    fn in_cookies(&self, http: &Http) -> bool {
        !self.cookies.is_empty()
            && values(http, "cookie").any(|header| {
                let separators: &[char] = if http.headers.merged {
                    &[';', ',']
                } else {
                    &[';']
                };
                header
                    .split(separators)
                    .filter_map(|pair| pair.trim_start_matches(' ').split_once('='))
                    .any(|(name, _)| self.cookies.contains(name))
            })
    }
}

/// Browsers send no credentials with a preflight, so Envoy (`bypass_cors_preflight`) asks for none.
#[must_use]
pub fn is_cors_preflight(http: &Http) -> bool {
    let has = |name| values(http, name).any(|value| !value.is_empty());
    http.method == "OPTIONS" && has("origin") && has("access-control-request-method")
}

/// Every value of a header, pseudo-headers included.
fn values<'a>(http: &'a Http, name: &'a str) -> impl Iterator<Item = &'a str> {
    let pseudo = match name {
        ":method" => Some(http.method.as_str()),
        ":path" => Some(http.path.as_str()),
        ":authority" | "host" => Some(http.host.as_str()),
        ":scheme" => Some(http.scheme.as_str()),
        _ => None,
    };
    let plain = http
        .headers
        .entries
        .iter()
        .filter(move |(entry, _)| entry == name);
    pseudo
        .into_iter()
        .chain(plain.map(|(_, value)| value.as_str()))
}

#[cfg(test)]
mod tests;
