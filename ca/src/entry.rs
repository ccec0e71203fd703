//! Registration entries: which selectors have which SPIFFE ID.

use std::time::{Duration, SystemTime};

use crate::selector::Selector;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// Longest hint, bytes (SPIFFE Workload API §8).
pub const MAX_HINT: usize = 1024;

/// A registration entry: callers that have all of `selectors` are entitled to `spiffe_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Identifier, unique in the registry: a UUID unless the creator chose one.
    pub id: String,
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// Who may hand it out: the local agent, a node, another entry.
    pub parent_id: SpiffeId,
    /// Facts that a caller must have, all of them; sorted, at least one.
    pub selectors: Vec<Selector>,
    /// Lifetime of its X.509-SVIDs; `None` is the trust domain's.
    pub x509_ttl: Option<Duration>,
    /// Lifetime of its JWT-SVIDs; `None` is the trust domain's.
    pub jwt_ttl: Option<Duration>,
    /// Names for the DNS SANs of its X.509-SVIDs, in order.
    pub dns_names: Vec<String>,
    /// Trust domains whose bundles go with its SVIDs.
    pub federates_with: Vec<TrustDomain>,
    /// What the identity is meant for, told to the workload; may be empty.
    pub hint: String,
    /// May use the admin API.
    pub admin: bool,
    /// May have an intermediate signing certificate.
    pub downstream: bool,
    /// Its X.509-SVIDs are kept by a store beside the workload (SPIRE's `store_svid`).
    pub store_svid: bool,
    /// When it stops being valid.
    pub expires_at: Option<SystemTime>,
    /// Counts the updates of this entry, from 0.
    pub revision_number: i64,
    /// When it was created, whole seconds.
    pub created_at: SystemTime,
}

impl Entry {
    /// True once `expires_at` has come.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}
