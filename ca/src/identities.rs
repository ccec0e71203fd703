//! The seam between those who speak to workloads and those who issue.
//!
//! The Workload API and SDS hold an `Arc<dyn Identities>` and know nothing of entries, authorities
//! or storage. Each call answers from memory where it can; it signs, and records durably what it
//! signed, before it answers where it cannot.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::bundle::Bundle;
use crate::caller::Caller;
use crate::delivery::Deliveries;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// Identities for callers that were attested.
#[async_trait]
pub trait Identities: Send + Sync {
    /// Our own trust domain.
    fn trust_domain(&self) -> &TrustDomain;

    /// A number that changes with everything a caller's answer may depend on: entries, authorities, bundles.
    /// Whoever holds a stream open asks again when it changes, and at [`X509Context::renew_at`].
    fn subscribe(&self) -> watch::Receiver<u64>;

    /// Where every stream that carries our bundle says which sequence its peer has.
    fn deliveries(&self) -> &Deliveries;

    /// True when an entry matches the caller. A look, not a request: nothing is issued and nothing recorded.
    fn is_entitled(&self, caller: &Caller) -> bool;

    /// Everything X.509 that the caller is entitled to.
    ///
    /// # Errors
    /// [`IssueError::NoIdentity`] when no entry matches; [`IssueError::Unavailable`] when nothing can be signed or recorded now.
    async fn x509_context(&self, caller: &Caller) -> Result<X509Context, IssueError>;

    /// True where WIT-SVIDs are switched on.
    fn serves_wit(&self) -> bool {
        false
    }

    /// WIT-SVIDs: one for each identity of the caller, or only the one asked for.
    ///
    /// # Errors
    /// [`IssueError::NoIdentity`], [`IssueError::NotEntitled`], [`IssueError::Unavailable`].
    async fn wit_context(
        &self,
        _: &Caller,
        _: Option<&SpiffeId>,
    ) -> Result<WitContext, IssueError> {
        Err(IssueError::Unavailable(
            "WIT-SVIDs are switched off".to_owned(),
        ))
    }

    /// Our bundle and those that the caller's entries federate with.
    ///
    /// # Errors
    /// [`IssueError::NoIdentity`] when no entry matches.
    async fn bundles(&self, caller: &Caller) -> Result<BundlesContext, IssueError>;

    /// New JWT-SVIDs for `audiences`: one for each identity of the caller, or only the one asked for.
    /// The first is the default.
    ///
    /// # Errors
    /// [`IssueError::NoIdentity`], [`IssueError::NotEntitled`], [`IssueError::InvalidArgument`] for unusable audiences, [`IssueError::Unavailable`].
    async fn jwt_svids(
        &self,
        caller: &Caller,
        audiences: &[String],
        spiffe_id: Option<&SpiffeId>,
    ) -> Result<Vec<JwtSvid>, IssueError>;

    /// Validates a JWT-SVID on the caller's behalf, with our bundle and those of [`Identities::bundles`].
    ///
    /// # Errors
    /// [`IssueError::InvalidArgument`] with the clause that the token breaks.
    async fn validate_jwt_svid(
        &self,
        caller: &Caller,
        audience: &str,
        token: &str,
    ) -> Result<ValidatedJwtSvid, IssueError>;
}

/// Why a caller did not get what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// No entry matches the caller. Clients know this text.
    #[error("no identity issued")]
    NoIdentity,
    /// The caller has identities, but not this one.
    #[error("the caller is not entitled to `{0}`")]
    NotEntitled(SpiffeId),
    /// What was asked cannot be answered, now or later.
    #[error("{0}")]
    InvalidArgument(String),
    /// Not now: no active authority, a journal that cannot be written, a key that cannot be reached.
    #[error("{0}")]
    Unavailable(String),
}

/// The X.509 side of a caller's identities, all of it at one moment.
#[derive(Clone, Debug)]
pub struct X509Context {
    /// At least one; the first is the default. Hints are unique: the oldest entry wins one.
    pub svids: Vec<Arc<X509Svid>>,
    /// Our own bundle.
    pub bundle: Arc<Bundle>,
    /// Bundles of the trust domains that the caller's entries federate with, by name.
    pub federated: Vec<Arc<Bundle>>,
    /// Revocation lists, DER; empty while revocation is off.
    pub crls: Vec<Bytes>,
    /// When to ask again although nothing changed: an SVID is due for renewal then.
    pub renew_at: SystemTime,
}

impl X509Context {
    /// True when a message made from `other` would be the same: the same SVIDs, not merely equal ones.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.svids.len() == other.svids.len()
            && self
                .svids
                .iter()
                .zip(&other.svids)
                .all(|(a, b)| Arc::ptr_eq(a, b))
            && same_bundle(&self.bundle, &other.bundle)
            && self.federated.len() == other.federated.len()
            && self
                .federated
                .iter()
                .zip(&other.federated)
                .all(|(a, b)| same_bundle(a, b))
            && self.crls == other.crls
    }
}

fn same_bundle(a: &Arc<Bundle>, b: &Arc<Bundle>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// The bundles that a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundlesContext {
    /// Our own bundle.
    pub bundle: Arc<Bundle>,
    /// Bundles of the trust domains that the caller's entries federate with, by name.
    pub federated: Vec<Arc<Bundle>>,
    /// Revocation lists, DER; empty while revocation is off.
    pub crls: Vec<Bytes>,
}

/// An X.509-SVID with its private key.
pub struct X509Svid {
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// Certificates, DER, leaf first, without the root.
    pub chain: Vec<Bytes>,
    /// Private key, PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
    /// What it is meant for; may be empty.
    pub hint: String,
    /// Identifier of the entry that it was issued for.
    pub entry_id: String,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
}

impl X509Svid {
    /// All certificates of the chain in one piece, as the Workload API wants them.
    #[must_use]
    pub fn chain_der(&self) -> Vec<u8> {
        self.chain.concat()
    }
}

/// The key stays out of logs.
impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("spiffe_id", &self.spiffe_id)
            .field("entry_id", &self.entry_id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A JWT-SVID.
#[derive(Clone)]
pub struct JwtSvid {
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// The token, JWS compact serialisation.
    pub token: String,
    /// What it is meant for; may be empty.
    pub hint: String,
    /// `exp`.
    pub expires_at: SystemTime,
}

/// The token stays out of logs.
impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The WIT side of a caller's identities, all of it at one moment.
#[derive(Clone, Debug)]
pub struct WitContext {
    /// At least one; the first is the default. Hints are unique: the oldest entry wins one.
    pub svids: Vec<Arc<WitSvid>>,
    /// Sequence of our own bundle.
    pub sequence: u64,
    /// When to ask again although nothing changed.
    pub renew_at: Option<SystemTime>,
}

/// A WIT-SVID with the private key that it is bound to.
#[derive(Clone)]
pub struct WitSvid {
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// The token, JWS compact serialisation.
    pub token: String,
    /// The private key, a JWK.
    pub key: Zeroizing<String>,
    /// What it is meant for; may be empty.
    pub hint: String,
}

/// Token and key stay out of logs.
impl fmt::Debug for WitSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WitSvid")
            .field("spiffe_id", &self.spiffe_id)
            .finish_non_exhaustive()
    }
}

/// What a valid JWT-SVID says.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedJwtSvid {
    /// `sub`.
    pub spiffe_id: SpiffeId,
    /// The claims; `aud` is always a list. From another trust domain only `sub`, `exp` and `aud`.
    pub claims: serde_json::Map<String, serde_json::Value>,
}
