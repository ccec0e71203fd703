//! Who is at the other end of a connection, and which of them are believed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use portcullis_policy::request::{Identity, IdentityKind};
use portcullis_policy::text::Cidr;

/// The peer of one connection: the proxy, or somebody who pretends to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its address; `None` on a unix socket.
    pub address: Option<IpAddr>,
    /// Its user, which a unix socket tells.
    pub uid: Option<u32>,
    /// Names of its certificate, verified by mutual TLS; empty without.
    pub identities: Vec<Identity>,
}

/// One entry of a trust list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TrustedPeer {
    /// `10.0.0.7` or `10.0.0.0/8`: where a connection comes from.
    Address(Cidr),
    /// `uid:33`: the user at the other end of a unix socket.
    Uid(u32),
    /// `spiffe://example.org/ns/ingress/sa/nginx`: the identity of a connection over mutual TLS.
    SpiffeId(String),
}

impl TrustedPeer {
    fn is(&self, peer: &Peer) -> bool {
        match self {
            Self::Address(cidr) => peer.address.is_some_and(|address| cidr.contains(address)),
            Self::Uid(uid) => peer.uid == Some(*uid),
            Self::SpiffeId(id) => {
                // By the standard, a certificate with two URI names is no SVID.
                let is_uri = |identity: &&Identity| identity.kind == IdentityKind::Uri;
                let mut uris = peer.identities.iter().filter(is_uri);
                matches!((uris.next(), uris.next()), (Some(uri), None) if uri.value == *id)
            }
        }
    }
}

/// Text that names no peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no peer: write an address (`10.0.0.7`), a block (`10.0.0.0/8`), `uid:NUMBER` or a SPIFFE ID"
)]
pub struct NotAPeer(String);

impl FromStr for TrustedPeer {
    type Err = NotAPeer;

    fn from_str(text: &str) -> Result<Self, NotAPeer> {
        let wrong = || NotAPeer(text.to_owned());
        if let Some(uid) = text.strip_prefix("uid:") {
            return uid.parse().map(Self::Uid).map_err(|_| wrong());
        }
        if let Some(rest) = text.strip_prefix("spiffe://") {
            let plain = rest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b));
            return match rest.split_once('/') {
                Some((domain, path)) if plain && !domain.is_empty() && !path.is_empty() => {
                    Ok(Self::SpiffeId(text.to_owned()))
                }
                _ => Err(wrong()),
            };
        }
        Cidr::parse(text).map(Self::Address).map_err(|_| wrong())
    }
}

impl fmt::Display for TrustedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(cidr) => f.write_str(cidr.text()),
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::SpiffeId(id) => f.write_str(id),
        }
    }
}

/// The peers whose word on somebody else's identity is believed; empty trusts nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustList(Vec<TrustedPeer>);

impl TrustList {
    /// A list of these peers.
    #[must_use]
    pub fn new(peers: Vec<TrustedPeer>) -> Self {
        Self(peers)
    }

    /// True when `peer` is on the list.
    #[must_use]
    pub fn holds(&self, peer: &Peer) -> bool {
        self.0.iter().any(|trusted| trusted.is(peer))
    }

    /// True for a list without entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries.
    #[must_use]
    pub fn peers(&self) -> &[TrustedPeer] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> TrustList {
        TrustList::new(entries.iter().map(|entry| entry.parse().unwrap()).collect())
    }

    #[test]
    fn peers_are_known_by_address_user_or_identity() {
        let list = list(&[
            "10.0.0.0/8",
            "::1",
            "uid:33",
            "spiffe://example.org/ns/ingress/sa/nginx",
        ]);
        let at = |address: &str| Peer {
            address: Some(address.parse().unwrap()),
            ..Peer::default()
        };
        assert!(list.holds(&at("10.1.2.3")));
        assert!(list.holds(&at("::1")));
        assert!(!list.holds(&at("11.1.2.3")));
        let user = |uid| Peer {
            uid: Some(uid),
            ..Peer::default()
        };
        assert!(list.holds(&user(33)) && !list.holds(&user(0)));
        let named = |value: &str| Peer {
            identities: vec![Identity {
                kind: IdentityKind::Uri,
                value: value.to_owned(),
            }],
            ..Peer::default()
        };
        assert!(list.holds(&named("spiffe://example.org/ns/ingress/sa/nginx")));
        assert!(!list.holds(&named("spiffe://example.org/ns/ingress/sa/nginx2")));
        assert!(!list.holds(&Peer::default()));
        assert!(!TrustList::default().holds(&at("127.0.0.1")));
    }

    #[test]
    fn what_names_no_peer_is_refused() {
        for text in [
            "",
            "localhost",
            "10.0.0.0/33",
            "uid:",
            "uid:-1",
            "uid:root",
            "spiffe://",
            "spiffe://example.org",
            "spiffe://example.org/*",
            "0.0.0.0:80",
        ] {
            let error = text.parse::<TrustedPeer>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` names no peer")),
                "{error}"
            );
        }
        for text in ["10.0.0.0/8", "uid:0", "spiffe://a/b"] {
            assert_eq!(text.parse::<TrustedPeer>().unwrap().to_string(), text);
        }
    }
}
