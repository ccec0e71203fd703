//! What a registration entry must be before it is stored.

use std::collections::HashSet;

use crate::dns_name;
use crate::entry::{Entry, MAX_HINT};
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// Most selectors, DNS names or trust domains of one entry.
const MAX_LIST: usize = 256;
/// Longest identifier that a creator may choose, bytes.
const MAX_ID: usize = 255;

/// An entry that is not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// An identity of another trust domain.
    #[error("the SPIFFE ID `{id}` is not in the trust domain `{trust_domain}`")]
    OtherTrustDomain {
        /// The identity.
        id: SpiffeId,
        /// Ours.
        trust_domain: TrustDomain,
    },
    /// A parent of another trust domain.
    #[error("the parent ID `{id}` is not in the trust domain `{trust_domain}`")]
    OtherParent {
        /// The parent.
        id: SpiffeId,
        /// Ours.
        trust_domain: TrustDomain,
    },
    /// The trust domain itself.
    #[error("the SPIFFE ID `{0}` has no path: a workload's has one (X509-SVID §3.1)")]
    NoPath(SpiffeId),
    /// An identity that only the system's own parts have.
    #[error(
        "the SPIFFE ID `{0}` is reserved: `/spire/server` and what is below `/spire/agent` are the system's own"
    )]
    Reserved(SpiffeId),
    /// Its own parent.
    #[error("`{0}` cannot be its own parent")]
    OwnParent(SpiffeId),
    /// Nothing to match.
    #[error("there is no selector: name at least one, such as `unix:uid:1000`")]
    NoSelector,
    /// Too many of something.
    #[error("there are {count} {what}, at most 256 are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// A name that no certificate carries.
    #[error(
        "`{0}` is no DNS name: labels of letters, digits and `-`, separated by dots, at most 253 bytes"
    )]
    DnsName(String),
    /// A name twice.
    #[error("the {what} `{name}` is there twice")]
    Twice {
        /// What kind of name.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// A hint that clients need not read.
    #[error("the hint has {0} bytes, at most 1024 are allowed (SPIFFE Workload API §8)")]
    Hint(usize),
    /// The bundle goes with every SVID as it is.
    #[error("an entry cannot federate with its own trust domain `{0}`")]
    FederatesWithOwn(TrustDomain),
    /// An identifier that cannot stand on a command line.
    #[error("the entry's identifier `{0}` may have letters, digits, `.`, `-` and `_`, at most 255")]
    Id(String),
    /// Another entry for the same callers has the hint.
    #[error(
        "the entry `{id}` gives the same callers an identity with the hint `{hint}` already: hints are unique (SPIFFE Workload API §5.2.1)"
    )]
    HintTaken {
        /// The hint.
        hint: String,
        /// Who has it.
        id: String,
    },
}

/// Checks an entry, and puts its lists in order.
///
/// # Errors
/// With the first rule that it breaks.
pub fn entry(entry: &mut Entry, trust_domain: &TrustDomain) -> Result<(), EntryError> {
    let id = &entry.spiffe_id;
    if id.trust_domain() != trust_domain {
        return Err(EntryError::OtherTrustDomain {
            id: id.clone(),
            trust_domain: trust_domain.clone(),
        });
    }
    if id.path().is_empty() {
        return Err(EntryError::NoPath(id.clone()));
    }
    if is_reserved(id) {
        return Err(EntryError::Reserved(id.clone()));
    }
    if entry.parent_id.trust_domain() != trust_domain {
        return Err(EntryError::OtherParent {
            id: entry.parent_id.clone(),
            trust_domain: trust_domain.clone(),
        });
    }
    if &entry.parent_id == id {
        return Err(EntryError::OwnParent(id.clone()));
    }
    entry.selectors.sort_unstable();
    entry.selectors.dedup();
    if entry.selectors.is_empty() {
        return Err(EntryError::NoSelector);
    }
    few("selectors", entry.selectors.len())?;
    few("DNS names", entry.dns_names.len())?;
    few("trust domains to federate with", entry.federates_with.len())?;
    let mut seen = HashSet::new();
    for name in &entry.dns_names {
        if !dns_name::is_valid(name) {
            return Err(EntryError::DnsName(crate::trust_domain::shorten(name)));
        }
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(EntryError::Twice {
                what: "DNS name",
                name: name.clone(),
            });
        }
    }
    entry.federates_with.sort_unstable();
    entry.federates_with.dedup();
    if entry.federates_with.contains(trust_domain) {
        return Err(EntryError::FederatesWithOwn(trust_domain.clone()));
    }
    if entry.hint.len() > MAX_HINT {
        return Err(EntryError::Hint(entry.hint.len()));
    }
    Ok(())
}

/// Checks an identifier that the creator chose.
///
/// # Errors
/// When it has characters that have a meaning elsewhere.
pub fn id(id: &str) -> Result<(), EntryError> {
    let is_right = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match id.is_empty() || id.len() > MAX_ID || !id.bytes().all(is_right) {
        true => Err(EntryError::Id(crate::trust_domain::shorten(id))),
        false => Ok(()),
    }
}

/// Identities of servers and agents: who had one could speak for others.
#[must_use]
pub fn is_reserved(id: &SpiffeId) -> bool {
    let path = id.path();
    path == "/spire/server" || path == "/spire/agent" || path.starts_with("/spire/agent/")
}

fn few(what: &'static str, count: usize) -> Result<(), EntryError> {
    match count > MAX_LIST {
        true => Err(EntryError::TooMany { what, count }),
        false => Ok(()),
    }
}
