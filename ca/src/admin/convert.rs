//! Between SPIRE's messages and our own types, in both directions.

use std::time::Duration;

use bytes::Bytes;
use tonic::{Code, Status};

use crate::bundle::{Bundle, JwtAuthority, JwtKey, X509Authority};
use crate::clock::{from_unix_seconds, unix_seconds};
use crate::entry::Entry;
use crate::identities::IssueError;
use crate::proto::types;
use crate::registry::RegistryError;
use crate::selector::Selector;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;
use crate::x509::conform;

/// The SPIFFE ID of a message; `what` names it in errors.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is missing or none.
pub fn spiffe_id(id: Option<&types::Spiffeid>, what: &str) -> Result<SpiffeId, Status> {
    let id = id.ok_or_else(|| Status::invalid_argument(format!("{what} is missing")))?;
    SpiffeId::parse(&format!("spiffe://{}{}", id.trust_domain, id.path))
        .map_err(|error| Status::invalid_argument(format!("{what}: {error}")))
}

/// A SPIFFE ID as a message.
#[must_use]
pub fn to_spiffe_id(id: &SpiffeId) -> types::Spiffeid {
    types::Spiffeid {
        trust_domain: id.trust_domain().to_string(),
        path: id.path().to_owned(),
    }
}

/// A trust domain of a message, with or without `spiffe://`.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is none.
pub fn trust_domain(name: &str) -> Result<TrustDomain, Status> {
    let name = name.strip_prefix("spiffe://").unwrap_or(name);
    TrustDomain::new(name).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// A selector of a message.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is none.
pub fn selector(selector: &types::Selector) -> Result<Selector, Status> {
    Selector::new(&selector.r#type, &selector.value)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// A lifetime in seconds; 0 is the trust domain's.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is negative.
pub fn ttl(seconds: i32, what: &str) -> Result<Option<Duration>, Status> {
    match u64::try_from(seconds) {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
        Err(_) => Err(Status::invalid_argument(format!(
            "the {what} is {seconds} s: it cannot be negative, and 0 is the default of the trust domain"
        ))),
    }
}

fn to_ttl(ttl: Option<Duration>) -> i32 {
    ttl.map_or(0, |ttl| i32::try_from(ttl.as_secs()).unwrap_or(i32::MAX))
}

/// Every field.
pub const ALL: types::EntryMask = types::EntryMask {
    spiffe_id: true,
    parent_id: true,
    selectors: true,
    x509_svid_ttl: true,
    federates_with: true,
    admin: true,
    downstream: true,
    expires_at: true,
    dns_names: true,
    revision_number: true,
    store_svid: true,
    jwt_svid_ttl: true,
    hint: true,
    created_at: true,
};

/// Takes over those fields of a message that `mask` names.
///
/// # Errors
/// `INVALID_ARGUMENT` with the first field that is unusable; `entry` may be half changed then.
pub fn change_entry(
    entry: &mut Entry,
    from: &types::Entry,
    mask: &types::EntryMask,
    local_agent: &SpiffeId,
) -> Result<(), Status> {
    if mask.spiffe_id {
        entry.spiffe_id = spiffe_id(from.spiffe_id.as_ref(), "the entry's SPIFFE ID")?;
    }
    if mask.parent_id {
        entry.parent_id = match &from.parent_id {
            None => local_agent.clone(),
            Some(id) if id.trust_domain.is_empty() && id.path.is_empty() => local_agent.clone(),
            Some(id) => spiffe_id(Some(id), "the entry's parent ID")?,
        };
    }
    if mask.selectors {
        let selectors: Result<Vec<Selector>, Status> =
            from.selectors.iter().map(selector).collect();
        entry.selectors = selectors?;
    }
    if mask.x509_svid_ttl {
        entry.x509_ttl = ttl(from.x509_svid_ttl, "X.509-SVID TTL")?;
    }
    if mask.jwt_svid_ttl {
        entry.jwt_ttl = ttl(from.jwt_svid_ttl, "JWT-SVID TTL")?;
    }
    if mask.federates_with {
        let names: Result<Vec<TrustDomain>, Status> = from
            .federates_with
            .iter()
            .map(|name| trust_domain(name))
            .collect();
        entry.federates_with = names?;
    }
    if mask.admin {
        entry.admin = from.admin;
    }
    if mask.downstream {
        entry.downstream = from.downstream;
    }
    if mask.expires_at {
        entry.expires_at = match from.expires_at {
            0 => None,
            seconds if seconds < 0 => {
                return Err(Status::invalid_argument(format!(
                    "the expiry {seconds} is negative"
                )));
            }
            seconds => Some(from_unix_seconds(seconds)),
        };
    }
    if mask.dns_names {
        entry.dns_names = from.dns_names.clone();
    }
    if mask.store_svid {
        entry.store_svid = from.store_svid;
    }
    if mask.hint {
        entry.hint = from.hint.clone();
    }
    Ok(())
}

/// A new entry from a message; an empty identifier is filled in by the registry.
///
/// # Errors
/// `INVALID_ARGUMENT` with the first field that is unusable.
pub fn new_entry(from: &types::Entry, local_agent: &SpiffeId) -> Result<Entry, Status> {
    let mut entry = Entry {
        id: from.id.clone(),
        spiffe_id: local_agent.clone(),
        parent_id: local_agent.clone(),
        selectors: Vec::new(),
        x509_ttl: None,
        jwt_ttl: None,
        dns_names: Vec::new(),
        federates_with: Vec::new(),
        hint: String::new(),
        admin: false,
        downstream: false,
        store_svid: false,
        expires_at: None,
        revision_number: 0,
        created_at: std::time::SystemTime::UNIX_EPOCH,
    };
    change_entry(&mut entry, from, &ALL, local_agent)?;
    Ok(entry)
}

/// An entry as a message, with those fields that `mask` names; no mask is all.
#[must_use]
pub fn to_entry(entry: &Entry, mask: Option<&types::EntryMask>) -> types::Entry {
    let mask = mask.unwrap_or(&ALL);
    let selector = |selector: &Selector| types::Selector {
        r#type: selector.kind().to_owned(),
        value: selector.value().to_owned(),
    };
    fn when<T: Default>(wanted: bool, value: impl FnOnce() -> T) -> T {
        if wanted { value() } else { T::default() }
    }
    types::Entry {
        id: entry.id.clone(),
        spiffe_id: mask.spiffe_id.then(|| to_spiffe_id(&entry.spiffe_id)),
        parent_id: mask.parent_id.then(|| to_spiffe_id(&entry.parent_id)),
        selectors: when(mask.selectors, || {
            entry.selectors.iter().map(selector).collect()
        }),
        x509_svid_ttl: when(mask.x509_svid_ttl, || to_ttl(entry.x509_ttl)),
        federates_with: when(mask.federates_with, || {
            entry
                .federates_with
                .iter()
                .map(ToString::to_string)
                .collect()
        }),
        admin: mask.admin && entry.admin,
        downstream: mask.downstream && entry.downstream,
        expires_at: when(mask.expires_at, || entry.expires_at.map_or(0, unix_seconds)),
        dns_names: when(mask.dns_names, || entry.dns_names.clone()),
        revision_number: when(mask.revision_number, || entry.revision_number),
        store_svid: mask.store_svid && entry.store_svid,
        jwt_svid_ttl: when(mask.jwt_svid_ttl, || to_ttl(entry.jwt_ttl)),
        hint: when(mask.hint, || entry.hint.clone()),
        created_at: when(mask.created_at, || unix_seconds(entry.created_at)),
    }
}

/// A bundle as a message, with those fields that `mask` names; no mask is all.
#[must_use]
pub fn to_bundle(bundle: &Bundle, mask: Option<&types::BundleMask>) -> types::Bundle {
    let wants = |field: fn(&types::BundleMask) -> bool| mask.is_none_or(field);
    let mut message = types::Bundle {
        trust_domain: bundle.trust_domain.to_string(),
        ..types::Bundle::default()
    };
    if wants(|mask| mask.x509_authorities) {
        let authorities = bundle.x509_authorities.iter();
        message.x509_authorities = authorities
            .map(|authority| types::X509Certificate {
                asn1: authority.der.clone(),
                tainted: authority.tainted,
            })
            .collect();
    }
    if wants(|mask| mask.jwt_authorities) {
        let authorities = bundle.jwt_authorities.iter();
        message.jwt_authorities = authorities
            .map(|authority| types::JwtKey {
                public_key: authority.key.spki().clone(),
                key_id: authority.key_id.clone(),
                expires_at: authority.expires_at.map_or(0, unix_seconds),
                tainted: authority.tainted,
            })
            .collect();
    }
    if wants(|mask| mask.wit_authorities) {
        let authorities = bundle.wit_authorities.iter();
        message.wit_authorities = authorities
            .map(|authority| types::WitKey {
                public_key: authority.key.spki().clone(),
                key_id: authority.key_id.clone(),
                expires_at: authority.expires_at.map_or(0, unix_seconds),
                tainted: authority.tainted,
            })
            .collect();
    }
    if wants(|mask| mask.refresh_hint) {
        let hint = bundle.refresh_hint.map_or(0, |hint| hint.as_secs());
        message.refresh_hint = i64::try_from(hint).unwrap_or(i64::MAX);
    }
    if wants(|mask| mask.sequence_number) {
        message.sequence_number = bundle.sequence;
    }
    message
}

/// A bundle from a message.
///
/// # Errors
/// `INVALID_ARGUMENT` with the first part that is unusable.
pub fn bundle(message: &types::Bundle) -> Result<Bundle, Status> {
    let invalid = |text: String| Status::invalid_argument(text);
    let mut bundle = Bundle::empty(trust_domain(&message.trust_domain)?);
    bundle.sequence = message.sequence_number;
    bundle.refresh_hint = match u64::try_from(message.refresh_hint) {
        Ok(0) => None,
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => return Err(invalid("the refresh hint cannot be negative".to_owned())),
    };
    for (index, authority) in message.x509_authorities.iter().enumerate() {
        conform::authority(&authority.asn1, &bundle.trust_domain)
            .map_err(|refusal| invalid(format!("X.509 authority {index}: {refusal}")))?;
        bundle.x509_authorities.push(X509Authority {
            der: Bytes::clone(&authority.asn1),
            tainted: authority.tainted,
        });
    }
    for (index, authority) in message.jwt_authorities.iter().enumerate() {
        let is_taken = bundle
            .jwt_authorities
            .iter()
            .any(|known| known.key_id == authority.key_id);
        if authority.key_id.is_empty() || is_taken {
            return Err(invalid(format!(
                "JWT authority {index} has no key ID, or that of another (JWT-SVID §6.1)"
            )));
        }
        bundle.jwt_authorities.push(JwtAuthority {
            key_id: authority.key_id.clone(),
            key: JwtKey::from_spki(&authority.public_key)
                .map_err(|error| invalid(format!("JWT authority {index}: {error}")))?,
            expires_at: (authority.expires_at > 0).then(|| from_unix_seconds(authority.expires_at)),
            tainted: authority.tainted,
        });
    }
    for (index, authority) in message.wit_authorities.iter().enumerate() {
        let mut known = bundle.token_authorities();
        let is_taken = known.any(|known| known.key_id == authority.key_id);
        drop(known);
        if authority.key_id.is_empty() || is_taken {
            return Err(invalid(format!(
                "WIT authority {index} has no key ID, or that of another (WIT-SVID §6.1)"
            )));
        }
        bundle.wit_authorities.push(JwtAuthority {
            key_id: authority.key_id.clone(),
            key: JwtKey::from_spki(&authority.public_key)
                .map_err(|error| invalid(format!("WIT authority {index}: {error}")))?,
            expires_at: (authority.expires_at > 0).then(|| from_unix_seconds(authority.expires_at)),
            tainted: authority.tainted,
        });
    }
    Ok(bundle)
}

/// The outcome of one item that went well.
#[must_use]
pub fn ok() -> types::Status {
    types::Status {
        code: Code::Ok.into(),
        message: "OK".to_owned(),
    }
}

/// The outcome of one item that did not.
#[must_use]
pub fn item_status(status: &Status) -> types::Status {
    types::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
    }
}

/// The one place that says which status a registry's refusal is.
#[must_use]
pub fn refused(error: &RegistryError) -> Status {
    let text = error.to_string();
    match error {
        RegistryError::Entry(_) | RegistryError::OwnBundle(_) | RegistryError::OwnFederation(_) => {
            Status::invalid_argument(text)
        }
        RegistryError::Similar(_)
        | RegistryError::IdTaken(_)
        | RegistryError::BundleExists(_)
        | RegistryError::FederationExists(_) => Status::already_exists(text),
        RegistryError::NotFound(_)
        | RegistryError::NoBundle(_)
        | RegistryError::NoFederation(_) => Status::not_found(text),
        RegistryError::BundleInUse { .. } => Status::failed_precondition(text),
        RegistryError::Store(_) | RegistryError::Journal(_) => {
            tracing::error!(error = %text, "the registry could not be changed");
            Status::unavailable(text)
        }
    }
}

/// The one place that says which status an issuing error is, for operators.
#[must_use]
pub fn not_issued(error: IssueError) -> Status {
    match error {
        IssueError::InvalidArgument(text) => Status::invalid_argument(text),
        IssueError::Unavailable(text) => Status::unavailable(text),
        other => Status::permission_denied(other.to_string()),
    }
}
