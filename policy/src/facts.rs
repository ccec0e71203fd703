//! A request made ready for matching: every attribute read once, in the form matchers compare.
//!
//! A fact can be uncertain: a header that was merged on the way, a client address behind proxies
//! nobody counted. Such a match answers twice, whether it *certainly* holds and whether it
//! *possibly* does; a rule that lets pass needs certainty, a rule that stops needs possibility
//! ([`Role::needs_certainty`](crate::model::Role::needs_certainty)), so deny wins.

mod claims;
pub(crate) mod header;
pub mod peer;

use std::borrow::Cow;
use std::net::IpAddr;

use crate::model::{Alternative, Clause, IdentityField, Matcher, Rule};
use crate::path;
use crate::request::{Http, Identity, IdentityKind, RemoteAddress, Request};
use crate::request_authentication::TokenRules;
use crate::text::Pattern;

/// A match that may hang on something unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// It holds whatever the unknown is.
    pub certain: bool,
    /// It could hold.
    pub possible: bool,
}

impl Match {
    const YES: Self = Self {
        certain: true,
        possible: true,
    };
    const MAYBE: Self = Self {
        certain: false,
        possible: true,
    };
    const NO: Self = Self {
        certain: false,
        possible: false,
    };

    fn known(holds: bool) -> Self {
        Self {
            certain: holds,
            possible: holds,
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            certain: self.certain || other.certain,
            possible: self.possible || other.possible,
        }
    }

    fn not(self) -> Self {
        Self {
            certain: !self.possible,
            possible: !self.certain,
        }
    }

    /// The side a role must go by.
    #[must_use]
    pub fn holds(self, needs_certainty: bool) -> bool {
        if needs_certainty {
            self.certain
        } else {
            self.possible
        }
    }
}

/// The HTTP attributes.
#[derive(Debug)]
pub struct HttpFacts<'r> {
    request: &'r Http,
    path: Cow<'r, str>,
    host: Cow<'r, str>,
}

impl<'r> HttpFacts<'r> {
    fn new(request: &'r Http, path: Cow<'r, str>) -> Self {
        let host = if request.host.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(request.host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(request.host.as_str())
        };
        Self {
            request,
            path,
            host,
        }
    }

    /// Method, as sent.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.request.method
    }

    /// Scheme; empty when unknown.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.request.scheme
    }

    /// `:path` as rules see it, with query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `:path` without query.
    #[must_use]
    pub fn url_path(&self) -> &str {
        path::without_query(&self.path)
    }

    /// `:authority` in lower case.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The request's own HTTP part.
    #[must_use]
    pub fn request(&self) -> &'r Http {
        self.request
    }
}

/// Which names of the peer's certificate are visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityView {
    /// All of them (policy.md 1.15.5).
    All,
    /// The URI SAN only: waypoints, where HBONE carries the peer's principal.
    UriOnly,
    /// What ztunnel can parse: exactly `spiffe://td/ns/NS/sa/SA`. Any other certificate is nobody's.
    Ztunnel,
    /// None: PeerAuthentication DISABLE.
    Hidden,
}

/// What of a request does not stand in the request itself.
#[derive(Clone, Copy, Debug)]
pub struct View<'r> {
    /// Which identities are visible.
    pub identities: IdentityView,
    /// Which claims are split on spaces, beside `scope` and `permission`.
    pub token_rules: Option<&'r TokenRules>,
    /// A token stands where one is looked for and nobody verified it.
    pub unverified_token: bool,
    /// Reads every uncertainty in the request's favour instead of against it: only to tell whether a
    /// denial hangs on one.
    pub favourable: bool,
}

/// Everything that matchers read.
#[derive(Debug)]
pub struct Facts<'r> {
    /// The request.
    pub request: &'r Request,
    /// Names of the peer's certificate that are visible, in Envoy's order.
    pub identities: Vec<&'r str>,
    /// Lower-case server name; empty when there was none, as in Envoy.
    pub sni: Cow<'r, str>,
    /// `None` for TCP.
    pub http: Option<HttpFacts<'r>>,
    /// The rest.
    pub view: View<'r>,
}

impl<'r> Facts<'r> {
    /// Reads `request`; `path` is the form of the path that rules see.
    #[must_use]
    pub fn new(request: &'r Request, path: Option<Cow<'r, str>>, view: View<'r>) -> Self {
        let identities = match view.identities {
            IdentityView::Hidden => Vec::new(),
            IdentityView::All | IdentityView::Ztunnel => request
                .source
                .identities
                .iter()
                .map(|i| i.value.as_str())
                .collect(),
            IdentityView::UriOnly => request
                .source
                .identities
                .iter()
                .filter(|i| match i.kind {
                    IdentityKind::Uri | IdentityKind::JwtSvid => true,
                    IdentityKind::Principal => i.value.contains("://"),
                    IdentityKind::Dns | IdentityKind::Subject => false,
                })
                .map(|i| i.value.as_str())
                .collect(),
        };
        let sni = request.sni.as_deref().unwrap_or_default();
        Self {
            request,
            identities,
            sni: if sni.bytes().any(|b| b.is_ascii_uppercase()) {
                Cow::Owned(sni.to_ascii_lowercase())
            } else {
                Cow::Borrowed(sni)
            },
            http: request.http.as_ref().map(|http| {
                HttpFacts::new(http, path.unwrap_or(Cow::Borrowed(http.path.as_str())))
            }),
            view,
        }
    }

    /// True when the peer has a name that we see, or presented a certificate that has none.
    #[must_use]
    pub fn peer_certificate(&self) -> bool {
        // A JWT-SVID names the peer, but is no mutual TLS.
        let source = &self.request.source;
        let svid = |i: &Identity| i.kind == IdentityKind::JwtSvid;
        let only_svid = !source.identities.is_empty() && source.identities.iter().all(svid);
        match self.view.identities {
            _ if only_svid => source.certificate_presented,
            IdentityView::All => !self.identities.is_empty() || source.certificate_presented,
            IdentityView::UriOnly => !self.identities.is_empty(),
            IdentityView::Ztunnel => self.ztunnel_identity().is_some(),
            IdentityView::Hidden => false,
        }
    }

    /// The occurrences of a header (lower case), as far as they are known; a text joined on the way
    /// counts as one.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<Cow<'_, str>> {
        match self.http.as_ref().map(|http| header::values(http, name)) {
            Some(header::Values::Known(values)) => values,
            Some(header::Values::Joined(value)) => vec![value],
            Some(header::Values::Unknown) | None => Vec::new(),
        }
    }

    /// True when the header's occurrences were joined on the way and could be split.
    #[must_use]
    pub fn header_is_joined(&self, name: &str) -> bool {
        self.http
            .as_ref()
            .is_some_and(|http| header::is_joined(http, name))
    }

    /// True when some header's occurrences were joined on the way and could be split.
    #[must_use]
    pub fn has_joined_headers(&self) -> bool {
        self.http.as_ref().is_some_and(|http| {
            let headers = &http.request().headers;
            let names = headers.entries.iter().map(|(name, _)| name);
            headers.merged && names.into_iter().any(|name| header::is_joined(http, name))
        })
    }

    /// The texts of a claim that matchers compare: its string (split where it is space-delimited),
    /// or the strings of its list.
    #[must_use]
    pub fn claim(&self, path: &[std::sync::Arc<str>]) -> Vec<&str> {
        claims::texts(self.request.jwt.as_ref(), path, self.view.token_rules)
    }

    /// One value against this request.
    #[must_use]
    pub fn matches(&self, matcher: &Matcher) -> Match {
        let known = |cidr: &crate::text::Cidr, a: Option<IpAddr>| {
            Match::known(a.is_some_and(|a| cidr.contains(a)))
        };
        let missing = self.request.missing;
        match matcher {
            Matcher::Identity(field, pattern) => Match::known(self.identity(*field, pattern)),
            Matcher::SourceIp(_) if missing.source_address => Match::MAYBE,
            Matcher::SourceIp(cidr) => known(cidr, self.request.source.address),
            Matcher::DestinationIp(_) if missing.destination_address => Match::MAYBE,
            Matcher::DestinationIp(cidr) => known(cidr, self.request.destination.address),
            Matcher::RemoteIp(cidr) => match self.request.remote {
                RemoteAddress::Known(a) => known(cidr, Some(a)),
                RemoteAddress::Unknown => Match::MAYBE,
                RemoteAddress::None => Match::NO,
            },
            Matcher::DestinationPort(_) if missing.destination_port => Match::MAYBE,
            Matcher::DestinationPort(port) => {
                Match::known(self.request.destination.port == Some(*port))
            }
            Matcher::Sni(pattern) => Match::known(pattern.matches(&self.sni)),
            Matcher::Header(name, value) => match &self.http {
                Some(http) => header::matches(http, &name.0, value),
                None => Match::NO,
            },
            Matcher::Method(value) => {
                self.on_http(|h| !h.method().is_empty() && value.matches(h.method()))
            }
            Matcher::Host(value) => {
                self.on_http(|h| !h.host().is_empty() && value.matches(h.host()))
            }
            Matcher::Path(pattern) => self.on_http(|h| pattern.matches(h.url_path())),
            Matcher::Template(template) => self.on_http(|h| template.matches(h.url_path())),
            Matcher::RequestPrincipal(p) => Match::known(
                claims::is_string(self.request.jwt.as_ref(), "iss", &p.issuer)
                    && claims::is_string(self.request.jwt.as_ref(), "sub", &p.subject),
            ),
            Matcher::Claim(path, pattern) => Match::known(claims::matches(
                self.request.jwt.as_ref(),
                path,
                pattern,
                self.view.token_rules,
            )),
            Matcher::Metadata {
                filter,
                key,
                list,
                value,
            } => Match::known(claims::metadata(
                self.request.metadata.get(filter.as_ref()),
                key,
                *list,
                value,
            )),
            Matcher::PeerCertificate => Match::known(self.peer_certificate()),
            Matcher::UnverifiedToken => Match::known(self.view.unverified_token),
        }
    }

    /// One clause: any value, then negated.
    #[must_use]
    pub fn clause(&self, clause: &Clause) -> Match {
        let mut any = Match::NO;
        for matcher in &clause.any {
            any = any.or(self.matches(matcher));
            if any == Match::YES {
                break;
            }
        }
        if clause.negated { any.not() } else { any }
    }

    /// One rule, on the side its role must go by. Over-approximates nothing: what Cedar decides from
    /// the same facts must be equal.
    #[must_use]
    pub fn rule(&self, rule: &Rule) -> bool {
        let certainty = rule.role.needs_certainty() != self.view.favourable;
        let holds = |c: &Clause| self.clause(c).holds(certainty);
        let alternative = |a: &Alternative| !a.never && a.clauses.iter().all(holds);
        !rule.never
            && rule.when.iter().all(holds)
            && (rule.from.is_empty() || rule.from.iter().any(alternative))
            && (rule.to.is_empty() || rule.to.iter().any(alternative))
    }

    fn on_http(&self, holds: impl Fn(&HttpFacts<'r>) -> bool) -> Match {
        Match::known(self.http.as_ref().is_some_and(holds))
    }

    fn identity(&self, field: IdentityField, pattern: &Pattern) -> bool {
        match field {
            IdentityField::Principal
            | IdentityField::Namespace
            | IdentityField::ServiceAccount
            | IdentityField::TrustDomain => self.identities.iter().any(|i| pattern.matches(i)),
            IdentityField::ZtunnelPrincipal => self.ztunnel_identity().is_some_and(|(id, ..)| {
                pattern.matches(id.strip_prefix("spiffe://").unwrap_or(id))
            }),
            IdentityField::ZtunnelNamespace => self
                .ztunnel_identity()
                .is_some_and(|(_, namespace, _)| pattern.matches(namespace)),
            IdentityField::ZtunnelServiceAccount => {
                self.ztunnel_identity()
                    .is_some_and(|(_, namespace, account)| {
                        pattern.text().split_once('/') == Some((namespace, account))
                    })
            }
        }
    }

    /// The identity as ztunnel parses it, exactly `spiffe://td/ns/NS/sa/SA`: (id, NS, SA).
    #[must_use]
    pub fn ztunnel_identity(&self) -> Option<(&'r str, &'r str, &'r str)> {
        let id = self.identities.first()?;
        let mut parts = id.strip_prefix("spiffe://")?.split('/');
        let (_, ns, namespace, sa, account) = (
            parts.next()?,
            parts.next()?,
            parts.next()?,
            parts.next()?,
            parts.next()?,
        );
        (ns == "ns" && sa == "sa" && parts.next().is_none()).then_some((*id, namespace, account))
    }

    /// What the request has where `matcher` looks, in words.
    #[must_use]
    pub fn describe(&self, matcher: &Matcher) -> String {
        let none = || "none".to_owned();
        let or_none = |s: &str| {
            if s.is_empty() {
                none()
            } else {
                format!("`{s}`")
            }
        };
        let missing = self.request.missing;
        let unknown = || "unknown: the request does not carry it".to_owned();
        let address = |a: Option<IpAddr>| a.map_or_else(none, |a| format!("`{a}`"));
        match matcher {
            Matcher::Identity(..) => {
                if self.view.identities == IdentityView::Hidden {
                    return "none, because PeerAuthentication DISABLE hides identities".to_owned();
                }
                if self.identities.is_empty() {
                    return "none: the peer presented no identity".to_owned();
                }
                let names: Vec<String> = self.identities.iter().map(|i| format!("`{i}`")).collect();
                names.join(", ")
            }
            Matcher::SourceIp(_) if missing.source_address => unknown(),
            Matcher::SourceIp(_) => address(self.request.source.address),
            Matcher::DestinationIp(_) if missing.destination_address => unknown(),
            Matcher::DestinationPort(_) if missing.destination_port => unknown(),
            Matcher::DestinationIp(_) => address(self.request.destination.address),
            Matcher::RemoteIp(_) => match self.request.remote {
                RemoteAddress::Known(a) => format!("`{a}`"),
                RemoteAddress::Unknown if missing.source_address => unknown(),
                RemoteAddress::Unknown => {
                    "unknown: x-forwarded-for is there and nothing says how many proxies to trust"
                        .to_owned()
                }
                RemoteAddress::None => none(),
            },
            Matcher::DestinationPort(_) => self
                .request
                .destination
                .port
                .map_or_else(none, |p| format!("`{p}`")),
            Matcher::Sni(_) => or_none(&self.sni),
            Matcher::Header(name, _) => match &self.http {
                Some(http) => header::describe(http, &name.0),
                None => none(),
            },
            Matcher::Method(_) => self
                .http
                .as_ref()
                .map_or_else(none, |h| or_none(h.method())),
            Matcher::Host(_) => self.http.as_ref().map_or_else(none, |h| or_none(h.host())),
            Matcher::Path(_) | Matcher::Template(_) => self
                .http
                .as_ref()
                .map_or_else(none, |h| or_none(h.url_path())),
            Matcher::RequestPrincipal(_) => claims::describe_principal(self.request.jwt.as_ref()),
            Matcher::Claim(path, _) => claims::describe(self.request.jwt.as_ref(), path),
            Matcher::Metadata { filter, key, .. } => self
                .request
                .metadata
                .get(filter.as_ref())
                .and_then(|m| m.get(key.as_ref()))
                .map_or_else(none, |v| format!("`{v}`")),
            Matcher::PeerCertificate => {
                if self.peer_certificate() {
                    "a certificate".to_owned()
                } else {
                    none()
                }
            }
            Matcher::UnverifiedToken => {
                if self.view.unverified_token {
                    "a token nobody verified".to_owned()
                } else {
                    none()
                }
            }
        }
    }
}
