//! Federation: the bundles of other trust domains, fetched from where they publish them (SPIFFE Federation §5).
//!
//! ```text
//! relationship -> fetch (TLS by its profile, bounded) -> bundle document -> not older? -> registry -> workloads
//! ```
//!
//! A bundle replaces the one before, whole; bundles of different trust domains never meet (§4.2).

mod fetch;
mod refresh;
mod url;
mod verifier;

use std::time::{Duration, SystemTime};

use crate::bundle::{Bundle, DocumentError};
use crate::registry::RegistryError;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

pub use fetch::{FetchError, Roots, RootsError};
pub use refresh::Refresher;
pub(crate) use refresh::propagated;
pub use url::{EndpointUrl, UrlError};

/// A trust domain whose bundle is fetched. All three parts are configured, none is inferred (§5.1, §7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relationship {
    /// Whose bundle.
    pub trust_domain: TrustDomain,
    /// Where it is published.
    pub url: EndpointUrl,
    /// How that place is authenticated.
    pub profile: EndpointProfile,
}

/// How a bundle endpoint is authenticated (§5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointProfile {
    /// By the certificate of its host, as on the web.
    HttpsWeb,
    /// By its X.509-SVID, which has this SPIFFE ID.
    HttpsSpiffe(SpiffeId),
}

impl EndpointProfile {
    /// Its name in the standard.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::HttpsWeb => "https_web",
            Self::HttpsSpiffe(_) => "https_spiffe",
        }
    }
}

/// How the last attempts went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelationshipStatus {
    /// When the endpoint last answered with a usable bundle.
    pub refreshed_at: Option<SystemTime>,
    /// What went wrong since then.
    pub error: Option<String>,
    /// Failures since then.
    pub failures: u32,
    /// Successes since the start.
    pub succeeded: u64,
    /// Failures since the start.
    pub failed: u64,
    /// When it is asked again.
    pub next_at: Option<SystemTime>,
}

/// A bundle that was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// No such relationship.
    #[error("there is no federation relationship with the trust domain `{0}`")]
    NoRelationship(TrustDomain),
    /// The endpoint's own trust domain has no bundle to verify it with.
    #[error(
        "there is no bundle of `{0}` to authenticate the endpoint with: set one first, `ca bundle set --trust-domain {0} FILE` (SPIFFE Federation §5.2.2)"
    )]
    NoEndpointBundle(TrustDomain),
    /// It did not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is none of this trust domain.
    #[error("what `{url}` publishes is no bundle of `{trust_domain}`: {cause}")]
    Document {
        /// Where.
        url: EndpointUrl,
        /// Whose it should be.
        trust_domain: TrustDomain,
        /// Why.
        cause: DocumentError,
    },
    /// It is older than what we have.
    #[error(
        "the bundle of `{trust_domain}` has the sequence {offered}, and {known} is known already: an old bundle is not taken back (SPIFFE Trust Domain and Bundle §4.1.1)"
    )]
    Older {
        /// Whose.
        trust_domain: TrustDomain,
        /// What was offered.
        offered: u64,
        /// What we have.
        known: u64,
    },
    /// It could not be stored.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// When to ask again after a bundle with this hint: 5 minutes without one (SPIFFE Trust Domain and Bundle §6.1). A hint is
/// a hint: 0 does not make us a flood, and 2^63 not deaf.
#[must_use]
pub fn refresh_interval(bundle: &Bundle, shortest: Duration) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(300);
    const LONGEST: Duration = Duration::from_secs(86_400);
    bundle
        .refresh_hint
        .unwrap_or(DEFAULT)
        .clamp(shortest.min(LONGEST), LONGEST)
}

#[cfg(test)]
mod tests;
