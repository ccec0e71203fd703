//! The model in the middle: rules as plain values that know neither YAML nor Cedar.
//!
//! A manifest is lowered to rules once per [`Dialect`], because the same rule means different
//! things to HTTP filters, TCP filters and ztunnel. From here two things are derived that must
//! agree: the native matcher that prunes and the Cedar policy that decides.

use std::fmt;
use std::sync::Arc;

use crate::diagnostic::Location;
use crate::path::template::PathTemplate;
use crate::text::{Cidr, Pattern};

/// Which of a manifest's three readings is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// Envoy's HTTP filters.
    Http,
    /// Envoy's network filters: HTTP-only parts fall away (policy.md 1.7).
    Tcp,
    /// ztunnel: layer 4 only, with its own reading of empty matches (policy.md 1.8).
    Ztunnel,
}

/// Name of a rule, as decisions report it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId {
    /// Namespace of the policy.
    pub namespace: Arc<str>,
    /// Name of the policy.
    pub name: Arc<str>,
    /// Index in `spec.rules`; `None` for what has no rules (PeerAuthentication, user Cedar).
    pub index: Option<u32>,
}

impl RuleId {
    /// The key by which Envoy orders policies: it reports the first match in this order, so
    /// `rule[10]` comes before `rule[2]` (policy.md 1.1).
    #[must_use]
    pub fn envoy_key(&self) -> String {
        match self.index {
            Some(index) => format!("ns[{}]-policy[{}]-rule[{index}]", self.namespace, self.name),
            None => format!("ns[{}]-policy[{}]", self.namespace, self.name),
        }
    }

    /// The id as decisions report it. By hand, because formatting it costs more than all the rest of
    /// putting a decision together.
    #[must_use]
    pub fn text(&self) -> String {
        let length = self.namespace.len().saturating_add(self.name.len());
        let mut text = String::with_capacity(length.saturating_add("/#rule[4294967295]".len()));
        text.push_str(&self.namespace);
        text.push('/');
        text.push_str(&self.name);
        if let Some(index) = self.index {
            text.push_str("#rule[");
            match u8::try_from(index).ok().filter(|digit| *digit < 10) {
                Some(digit) => text.push(char::from(b'0'.saturating_add(digit))),
                None => text.push_str(&index.to_string()),
            }
            text.push(']');
        }
        text
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// What a matching rule does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Permits.
    Allow,
    /// Forbids.
    Deny,
    /// Triggers a record, never a verdict.
    Audit,
    /// Triggers a question to this provider.
    Custom(Arc<str>),
    /// Forbids a peer without identity (PeerAuthentication STRICT, a waypoint's own listener).
    Mtls,
    /// Forbids a request whose token nobody verified (RequestAuthentication).
    Token,
}

impl Role {
    /// True when a match works towards letting the request pass: such a rule must only match
    /// when it certainly does. Every other role must match whenever it possibly does.
    #[must_use]
    pub fn needs_certainty(&self) -> bool {
        matches!(self, Self::Allow)
    }

    /// Word for people.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom(_) => "CUSTOM",
            Self::Mtls => "PeerAuthentication",
            Self::Token => "RequestAuthentication",
        }
    }
}

/// One rule of one policy in one dialect: any of `from`, any of `to`, all of `when`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Its name.
    pub id: RuleId,
    /// What it does.
    pub role: Role,
    /// Which reading this is.
    pub dialect: Dialect,
    /// On trial: `istio.io/dry-run`.
    pub dry_run: bool,
    /// Where it stands.
    pub at: Location,
    /// Sources, ORed; empty: any.
    pub from: Vec<Alternative>,
    /// Operations, ORed; empty: any.
    pub to: Vec<Alternative>,
    /// Conditions, ANDed.
    pub when: Vec<Clause>,
    /// Never matches: stands for an ALLOW policy without rules.
    pub never: bool,
}

/// One entry of `from` or `to`: clauses ANDed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Alternative {
    /// Index in the manifest.
    pub index: u32,
    /// Its clauses; empty: always, unless `never`.
    pub clauses: Vec<Clause>,
    /// ztunnel skips an empty match instead of matching it.
    pub never: bool,
}

/// One field: its values ORed, then possibly negated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clause {
    /// Field name or `when` key, such as `notPrincipals` or `request.headers[x-token]`.
    pub field: Arc<str>,
    /// Index in `when`; `None` inside `from` and `to`.
    pub when_index: Option<u32>,
    /// NOT (OR values).
    pub negated: bool,
    /// The values. Never empty.
    pub any: Vec<Matcher>,
    /// Where the first value stands.
    pub at: Location,
}

/// One value against one attribute of the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Matcher {
    /// Any name of the peer's certificate (`principals`, `namespaces`, `serviceAccounts`,
    /// `trustDomains` differ in their pattern only).
    Identity(IdentityField, Pattern),
    /// Direct peer address.
    SourceIp(Cidr),
    /// Client address behind trusted proxies.
    RemoteIp(Cidr),
    /// Local address.
    DestinationIp(Cidr),
    /// Local port.
    DestinationPort(u16),
    /// TLS server name, lower-cased before.
    Sni(Pattern),
    /// A header, each occurrence alone.
    Header(HeaderName, Pattern),
    /// `:method`.
    Method(Pattern),
    /// `:authority`, compared without case.
    Host(Pattern),
    /// Path without query.
    Path(Pattern),
    /// Path without query against a template.
    Template(Arc<PathTemplate>),
    /// JWT `iss` and `sub`.
    RequestPrincipal(RequestPrincipal),
    /// JWT claim, a string or a list of strings.
    Claim(Vec<Arc<str>>, Pattern),
    /// Dynamic metadata of a filter: string, or member of a list.
    Metadata {
        /// Filter name without `experimental.`.
        filter: Arc<str>,
        /// Key in its metadata.
        key: Arc<str>,
        /// `[v]`: a list that has `v`.
        list: bool,
        /// The value.
        value: Pattern,
    },
    /// The peer presented a certificate.
    PeerCertificate,
    /// A token stands at one of the places where it is looked for, and nobody verified it.
    UnverifiedToken,
}

/// How an identity value was written; it decides the pattern and the name of the fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdentityField {
    /// `principals`, `source.principal`.
    Principal,
    /// `namespaces`, `source.namespace`.
    Namespace,
    /// `serviceAccounts`, `source.serviceAccount`.
    ServiceAccount,
    /// `trustDomains`, `source.trustDomain`.
    TrustDomain,
    /// ztunnel's reading of a principal: a parsed SPIFFE ID.
    ZtunnelPrincipal,
    /// ztunnel's reading of a namespace: compared as a whole.
    ZtunnelNamespace,
    /// ztunnel's reading of a service account: compared as a whole.
    ZtunnelServiceAccount,
}

impl IdentityField {
    /// Name of the fact, after Istio's `when` keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Principal => "source.principal",
            Self::Namespace => "source.namespace",
            Self::ServiceAccount => "source.serviceAccount",
            Self::TrustDomain => "source.trustDomain",
            Self::ZtunnelPrincipal => "ztunnel.source.principal",
            Self::ZtunnelNamespace => "ztunnel.source.namespace",
            Self::ZtunnelServiceAccount => "ztunnel.source.serviceAccount",
        }
    }
}

/// A header name in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderName(pub Arc<str>);

/// A value of `requestPrincipals`, split as istiod splits it (policy.md 1.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestPrincipal {
    /// The value as written.
    pub text: Arc<str>,
    /// Must match the string claim `iss`.
    pub issuer: Pattern,
    /// Must match the string claim `sub`.
    pub subject: Pattern,
}
