//! What a value can be filed under.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use rustc_hash::FxHasher;

use crate::model::{IdentityField, Matcher};
use crate::text::{Form, Pattern};

/// One thing that a request must have for a value to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key<'v> {
    /// A name of the peer's certificate.
    Identity(&'v str),
    /// The start of one.
    IdentityPrefix(&'v str),
    /// `/ns/VALUE/` in one.
    Namespace(&'v str),
    /// `/sa/VALUE` in one.
    ServiceAccount(&'v str),
    /// ztunnel's parsed namespace.
    ZtunnelNamespace(&'v str),
    /// ztunnel's parsed `namespace/account`.
    ZtunnelAccount(&'v str),
    /// An address block.
    Block(AddressField, Block),
    /// The destination port.
    Port(u16),
    /// A whole text.
    Exact(TextField<'v>, &'v str),
    /// The start of a text.
    Prefix(TextField<'v>, &'v str),
    /// The end of a text.
    Suffix(TextField<'v>, &'v str),
    /// A string of a claim, by hash of the claim's path.
    Claim(u64, &'v str),
    /// `iss` and `sub`.
    RequestPrincipal(&'v str, &'v str),
}

/// Which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressField {
    /// The direct peer.
    Source,
    /// The client behind trusted proxies.
    Remote,
    /// The local address.
    Destination,
}

/// Which single text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TextField<'v> {
    /// `:method`.
    Method,
    /// Path without query.
    Path,
    /// `:authority` in lower case.
    Host,
    /// Server name in lower case.
    Sni,
    /// A header; exact values only.
    Header(&'v str),
}

/// A masked network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// 4 or 6.
    pub version: u8,
    /// Prefix length.
    pub length: u8,
    /// Network bits, host bits zero.
    pub bits: u128,
}

impl Block {
    /// The block of `length` that holds `address`.
    #[must_use]
    pub fn around(address: IpAddr, length: u8) -> Self {
        let (version, bits, width) = match address {
            IpAddr::V4(a) => (4, u128::from(u32::from(a)), 32u8),
            IpAddr::V6(a) => (6, u128::from(a), 128u8),
        };
        let host = width.saturating_sub(length);
        let bits = bits.checked_shr(u32::from(host)).unwrap_or(0);
        Self {
            version,
            length,
            bits,
        }
    }
}

impl<'v> Key<'v> {
    /// 64 bits; two keys with the same hash only select too much.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hasher = FxHasher::default();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }

    /// `None` for a value that can match without anything to look it up by.
    #[must_use]
    pub fn of(matcher: &'v Matcher) -> Option<Self> {
        match matcher {
            Matcher::Identity(field, pattern) => identity(*field, pattern),
            Matcher::SourceIp(c) => Some(Self::Block(AddressField::Source, block(c))),
            Matcher::RemoteIp(c) => Some(Self::Block(AddressField::Remote, block(c))),
            Matcher::DestinationIp(c) => Some(Self::Block(AddressField::Destination, block(c))),
            Matcher::DestinationPort(port) => Some(Self::Port(*port)),
            Matcher::Method(pattern) => plain(TextField::Method, pattern),
            Matcher::Path(pattern) => plain(TextField::Path, pattern),
            Matcher::Host(pattern) => plain(TextField::Host, pattern),
            Matcher::Sni(pattern) => plain(TextField::Sni, pattern),
            Matcher::Header(name, pattern) => match pattern.form() {
                Form::Exact(text) => Some(Self::Exact(TextField::Header(&name.0), text)),
                _ => None,
            },
            Matcher::Template(template) => {
                // Text before the first operator is literal.
                let text = template.canonical();
                let literal = text.split(['*', '{']).next().unwrap_or_default();
                (!literal.is_empty()).then_some(Self::Prefix(TextField::Path, literal))
            }
            Matcher::RequestPrincipal(p) => match (p.issuer.form(), p.subject.form()) {
                (Form::Exact(issuer), Form::Exact(subject)) => {
                    Some(Self::RequestPrincipal(issuer, subject))
                }
                _ => None,
            },
            Matcher::Claim(path, pattern) => match pattern.form() {
                Form::Exact(text) => Some(Self::Claim(path_hash(path), text)),
                _ => None,
            },
            Matcher::Metadata { .. } | Matcher::PeerCertificate | Matcher::UnverifiedToken => None,
        }
    }
}

/// Hash of a claim's path.
#[must_use]
pub fn path_hash(path: &[std::sync::Arc<str>]) -> u64 {
    let mut hasher = FxHasher::default();
    path.hash(&mut hasher);
    hasher.finish()
}

fn block(cidr: &crate::text::Cidr) -> Block {
    Block::around(cidr.network(), cidr.prefix_len())
}

fn plain<'v>(field: TextField<'v>, pattern: &'v Pattern) -> Option<Key<'v>> {
    match pattern.form() {
        Form::Exact(text) => Some(Key::Exact(field, text)),
        Form::Prefix(text) => Some(Key::Prefix(field, text)),
        Form::Suffix(text) => Some(Key::Suffix(field, text)),
        _ => None,
    }
}

fn identity(field: IdentityField, pattern: &Pattern) -> Option<Key<'_>> {
    let value = pattern.text();
    match (field, pattern.form()) {
        (IdentityField::Principal, Form::Exact(id)) => Some(Key::Identity(id)),
        (IdentityField::Principal | IdentityField::TrustDomain, Form::Prefix(start)) => {
            Some(Key::IdentityPrefix(start))
        }
        // A value with a star or a slash is not one segment.
        (IdentityField::Namespace, _) if !value.contains(['*', '/']) => Some(Key::Namespace(value)),
        (IdentityField::ServiceAccount, _) => {
            let account = value.split_once('/').map_or(value, |(_, account)| account);
            (!account.contains('/')).then_some(Key::ServiceAccount(account))
        }
        (IdentityField::ZtunnelNamespace, Form::Exact(namespace)) => {
            Some(Key::ZtunnelNamespace(namespace))
        }
        (IdentityField::ZtunnelServiceAccount, _) => Some(Key::ZtunnelAccount(value)),
        _ => None,
    }
}
