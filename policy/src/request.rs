//! One request as the engine sees it: plain facts, no proxy's wire format, no I/O.
//!
//! Whoever speaks a wire format (ext_authz, an access log, a test) fills this in; the engine never
//! learns where it came from. A fact that the wire did not carry is `None`, never a default; where its
//! absence means something else than "there is none", [`Missing`] says so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The policy target that enforces: the same manifest gives different verdicts per target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// An Envoy beside the workload.
    Sidecar,
    /// A gateway of Gateway API or of networking.istio.io.
    Gateway,
    /// An ambient waypoint.
    Waypoint,
    /// The ambient node proxy: layer 4 only, with semantics of its own.
    Ztunnel,
}

impl Target {
    /// The word used in configuration, context extensions and output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Gateway => "gateway",
            Self::Waypoint => "waypoint",
            Self::Ztunnel => "ztunnel",
        }
    }
}

impl std::str::FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "sidecar" => Ok(Self::Sidecar),
            "gateway" => Ok(Self::Gateway),
            "waypoint" => Ok(Self::Waypoint),
            "ztunnel" => Ok(Self::Ztunnel),
            other => Err(UnknownTarget(other.to_owned())),
        }
    }
}

/// A word that names no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown target `{0}`: expected `sidecar`, `gateway`, `waypoint` or `ztunnel`")]
pub struct UnknownTarget(pub String);

/// How the path in the request arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathForm {
    /// As the client sent it: normalised once, in the mesh's mode, before a rule sees it.
    Raw,
    /// After the proxy's own normalisation: not touched.
    Normalised,
}

/// What kind of certificate name an identity came from. Envoy tries all of them (policy.md 1.15.5);
/// a waypoint sees only the URI SAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentityKind {
    /// URI subject alternative name, a SPIFFE ID in a mesh.
    Uri,
    /// DNS subject alternative name.
    Dns,
    /// The certificate's subject, in RFC 2253 form.
    Subject,
    /// `sub` of a JWT-SVID: a name, but no certificate.
    JwtSvid,
    /// `source.principal` without a certificate: Envoy put the first URI SAN, else the first DNS
    /// SAN, else the subject there.
    Principal,
}

/// One name of the peer's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Where in the certificate it stood.
    pub kind: IdentityKind,
    /// The name itself, such as `spiffe://cluster.local/ns/foo/sa/a`.
    pub value: String,
}

/// The address that `remote.ip` and `remoteIpBlocks` match: the client after X-Forwarded-For or
/// PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemoteAddress {
    /// Known, because the proxy said so or because no header could change it.
    Known(IpAddr),
    /// X-Forwarded-For is present and nothing says how many proxies to trust: both ways are
    /// decided and deny wins.
    Unknown,
    /// No address at all (a unix socket peer): matches no block.
    None,
}

/// The peer that opened the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Every name of the peer's certificate that the wire carried, in Envoy's order; empty: none
    /// was presented.
    pub identities: Vec<Identity>,
    /// A certificate was presented, with or without a name that we can use.
    pub certificate_presented: bool,
    /// The physical peer (`source.ip`, ipBlocks); `None` for a unix socket, or [`Missing`].
    pub address: Option<IpAddr>,
}

/// Where the request was going.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// `namespace/name` or `kind/namespace/name` from `portcullis.workload`.
    pub workload: Option<String>,
    /// `namespace/name` from `portcullis.service`: the service that a waypoint serves.
    pub service: Option<String>,
    /// The local address of the connection; `None` for a unix socket, or [`Missing`].
    pub address: Option<IpAddr>,
    /// The local port: the workload's port, not the service's. `None` for a unix socket, or
    /// [`Missing`].
    pub port: Option<u16>,
    /// The local certificate's SPIFFE ID.
    pub principal: Option<String>,
}

/// Request headers, names in lower case, in order, one entry for each occurrence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Name (lower case) and value, trimmed of spaces and tabs.
    pub entries: Vec<(String, String)>,
    /// True when repeats of a header were joined by commas on the way (Envoy's `headers` map):
    /// a value with a comma may have been one header or several.
    pub merged: bool,
    /// Names (lower case) that the way here does not carry: one that has no entry may have been there.
    pub not_carried: &'static [&'static str],
}

/// The HTTP part of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Method, as sent.
    pub method: String,
    /// Path with query, in the form that [`Request::path_form`] says.
    pub path: String,
    /// `:authority`, with the port if one was sent.
    pub host: String,
    /// `http` or `https`; empty when unknown.
    pub scheme: String,
    /// Headers, pseudo-headers excluded.
    pub headers: Headers,
}

/// Who looked at the tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tokens {
    /// The proxy, which hands a verified payload along: a token without one is unverified.
    #[default]
    ByProxy,
    /// The service in front of the engine: every token is valid, and [`Request::jwt`] is the
    /// payload of one of them; without a payload there is no token.
    Verified,
    /// The service in front of the engine: some token is invalid.
    Invalid,
}

/// What the service in front of the engine found out before it asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Tokens.
    pub tokens: Tokens,
    /// CUSTOM providers that were asked and let the request pass; `None`: nobody was asked, and a
    /// provider that must be cannot be had.
    pub providers: Option<BTreeSet<String>>,
}

/// What every proxy sends and this request did not carry. Such a fact is not absent but unknown: a
/// rule that lets pass must not rest on it, and one that stops may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The peer's address.
    pub source_address: bool,
    /// The local address.
    pub destination_address: bool,
    /// The local port.
    pub destination_port: bool,
}

impl Missing {
    /// True when anything is missing.
    #[must_use]
    pub fn any(self) -> bool {
        self.source_address || self.destination_address || self.destination_port
    }
}

/// One request to decide.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Who asks.
    pub source: Source,
    /// The client's address behind trusted proxies.
    pub remote: RemoteAddress,
    /// Who is asked.
    pub destination: Destination,
    /// Target named by the proxy or the listener; `None` is `auto`.
    pub target: Option<Target>,
    /// Server name of the TLS handshake, as sent.
    pub sni: Option<String>,
    /// The HTTP request; `None` for a TCP connection.
    pub http: Option<Http>,
    /// How `http.path` arrived.
    pub path_form: PathForm,
    /// Verified JWT payload, by whom [`Checked::tokens`] says.
    pub jwt: Option<serde_json::Value>,
    /// Dynamic metadata by filter name.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// What was found out beforehand.
    pub checked: Checked,
    /// What of `source` and `destination` is unknown where it is `None`.
    pub missing: Missing,
}

impl Request {
    /// A TCP request without any fact, to be filled in.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            source: Source::default(),
            remote: RemoteAddress::None,
            destination: Destination::default(),
            target: None,
            sni: None,
            http: None,
            path_form: PathForm::Raw,
            jwt: None,
            metadata: BTreeMap::new(),
            checked: Checked::default(),
            missing: Missing::default(),
        }
    }
}
