//! What a leaf may look like: lifetimes, names, key usages. Requests come in, [`Prepared`] comes out.

use std::time::{Duration, SystemTime};

use super::certificate::{
    Attribute, KeyUsage, Serial, Template, assemble, hex, key_id, name, whole_seconds,
};
use super::csr::ProvenKey;
use crate::key::{KeyAlgorithm, KeyError};
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// Most characters of a CN (RFC 5280 appendix A, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;
/// O of every subject that we write.
pub(crate) const ORGANIZATION: &str = "Portcullis";

/// The rules for X.509-SVIDs of one trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Profile {
    trust_domain: TrustDomain,
    default_ttl: Duration,
    max_ttl: Duration,
    backdate: Duration,
}

/// What an authority is to those it signs for.
#[derive(Clone, Copy, Debug)]
pub struct Issuer<'a> {
    /// Its subject, DER.
    pub subject: &'a [u8],
    /// Its subject key identifier.
    pub key_id: &'a [u8],
    /// How its key signs.
    pub algorithm: KeyAlgorithm,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
}

/// What somebody is to get.
#[derive(Clone, Debug)]
pub struct LeafRequest {
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// DNS SANs, in order.
    pub dns_names: Vec<String>,
    /// Lifetime that was asked for.
    pub ttl: Option<Duration>,
    /// The public key.
    pub key: ProvenKey,
}

/// A request that the profile does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The trust domain itself, or no path.
    #[error("`{0}` has no path: an SVID's SPIFFE ID has one (X509-SVID §3.1)")]
    NoPath(SpiffeId),
    /// Another trust domain.
    #[error("`{id}` is not in the trust domain `{trust_domain}`")]
    OtherTrustDomain {
        /// What was asked for.
        id: SpiffeId,
        /// Ours.
        trust_domain: TrustDomain,
    },
    /// The authority is not valid now.
    #[error("the authority is valid from {from} to {to} (Unix time), not now")]
    AuthorityExpired {
        /// Its start.
        from: i64,
        /// Its end.
        to: i64,
    },
    /// The random source failed.
    #[error("no serial number: the random source failed")]
    Random,
}

/// A leaf that the profile allows, ready to be signed, once: signing consumes it.
///
/// Without this type a signature could be made over anything; its one constructor is
/// [`X509Profile::prepare`].
#[derive(Clone, Debug)]
pub struct Prepared {
    to_be_signed: Vec<u8>,
    algorithm: KeyAlgorithm,
    request: LeafRequest,
    serial: Serial,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl X509Profile {
    /// Rules for `trust_domain`. A default lifetime above the longest is the longest.
    #[must_use]
    pub fn new(
        trust_domain: TrustDomain,
        default_ttl: Duration,
        max_ttl: Duration,
        backdate: Duration,
    ) -> Self {
        Self {
            trust_domain,
            default_ttl: default_ttl.min(max_ttl),
            max_ttl,
            backdate,
        }
    }

    /// Checks a request and lays out its certificate.
    ///
    /// The lifetime is clamped to the profile's longest and to the authority's end; the start is
    /// back-dated, but not before the authority's.
    ///
    /// # Errors
    /// With the rule that the request breaks.
    pub fn prepare(
        &self,
        request: LeafRequest,
        issuer: Issuer<'_>,
        now: SystemTime,
    ) -> Result<Prepared, ProfileError> {
        let id = &request.spiffe_id;
        if id.trust_domain() != &self.trust_domain {
            return Err(ProfileError::OtherTrustDomain {
                id: id.clone(),
                trust_domain: self.trust_domain.clone(),
            });
        }
        if id.path().is_empty() {
            return Err(ProfileError::NoPath(id.clone()));
        }
        let now = whole_seconds(now);
        if issuer.not_after <= now || issuer.not_before > now {
            return Err(ProfileError::AuthorityExpired {
                from: crate::clock::unix_seconds(issuer.not_before),
                to: crate::clock::unix_seconds(issuer.not_after),
            });
        }
        let ttl = request.ttl.unwrap_or(self.default_ttl).min(self.max_ttl);
        // A lifetime below a second would end before it began.
        let ttl = ttl.max(Duration::from_secs(1));
        let not_after = now
            .checked_add(ttl)
            .map_or(issuer.not_after, |end| end.min(issuer.not_after));
        let not_before = now
            .checked_sub(self.backdate)
            .map_or(issuer.not_before, |start| start.max(issuer.not_before));
        let serial = Serial::random().map_err(|_: KeyError| ProfileError::Random)?;
        let subject = subject(&request.dns_names);
        let template = Template {
            serial,
            issuer: issuer.subject,
            subject: &subject,
            not_before,
            not_after,
            public_key: request.key.spki(),
            spiffe_id: id,
            dns_names: &request.dns_names,
            is_ca: false,
            key_usage: KeyUsage::leaf(request.key.kind()),
            issuer_key_id: issuer.key_id,
        };
        Ok(Prepared {
            to_be_signed: template.to_be_signed(issuer.algorithm, request.key.bits()),
            algorithm: issuer.algorithm,
            serial,
            not_before: whole_seconds(not_before),
            not_after: whole_seconds(not_after),
            request,
        })
    }

    /// The lifetime that a request for `ttl` gets, the authority's end aside.
    #[must_use]
    pub fn ttl(&self, ttl: Option<Duration>) -> Duration {
        ttl.unwrap_or(self.default_ttl).min(self.max_ttl)
    }
}

/// O, and the first DNS name as CN where it fits: some software looks there.
fn subject(dns_names: &[String]) -> Vec<u8> {
    let mut attributes = vec![(Attribute::Organization, ORGANIZATION)];
    if let Some(first) = dns_names
        .first()
        .filter(|name| name.len() <= MAX_COMMON_NAME)
    {
        attributes.push((Attribute::CommonName, first));
    }
    name(&attributes)
}

impl Prepared {
    /// The bytes to be signed.
    #[must_use]
    pub fn to_be_signed(&self) -> &[u8] {
        &self.to_be_signed
    }

    /// The certificate, with the signature that the issuer's key made.
    #[must_use]
    pub fn with_signature(self, signature: &[u8]) -> Vec<u8> {
        assemble(&self.to_be_signed, self.algorithm, signature)
    }

    /// What was asked for.
    #[must_use]
    pub fn request(&self) -> &LeafRequest {
        &self.request
    }

    /// Its number.
    #[must_use]
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Start of its validity.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// End of its validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// SHA-256 of the subject's public key, hexadecimal, for the audit journal.
    #[must_use]
    pub fn public_key_hash(&self) -> String {
        hex(ring::digest::digest(&ring::digest::SHA256, self.request.key.spki()).as_ref())
    }

    /// Subject key identifier.
    #[must_use]
    pub fn key_id(&self) -> Vec<u8> {
        key_id(self.request.key.bits())
    }
}
