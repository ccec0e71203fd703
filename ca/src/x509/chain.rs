//! Chains: several certificates in one piece, and the path from a leaf to a bundle.

use std::time::SystemTime;

use bytes::Bytes;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::conform::{self, Refusal};
use crate::bundle::Bundle;
use crate::clock::unix_seconds;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// A chain that does not lead from an X.509-SVID to its bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Nothing there.
    #[error("there is no certificate")]
    Empty,
    /// The leaf is no X.509-SVID.
    #[error("the certificate is no X.509-SVID: {0}")]
    Leaf(#[from] Refusal),
    /// The leaf belongs elsewhere.
    #[error("`{id}` is not in the trust domain `{trust_domain}`, whose bundle this is")]
    OtherTrustDomain {
        /// Whose certificate.
        id: SpiffeId,
        /// Whose bundle.
        trust_domain: TrustDomain,
    },
    /// There is no path (RFC 5280 §6).
    #[error("no path leads to the bundle of `{trust_domain}`: {cause} (X509-SVID §5.1)")]
    NoPath {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Why.
        cause: String,
    },
}

/// The certificates of a text of DER, one after the other.
///
/// # Errors
/// When it is anything else.
pub fn split(der: &Bytes) -> Result<Vec<Bytes>, Refusal> {
    let mut certificates = Vec::new();
    let mut rest: &[u8] = der;
    while !rest.is_empty() {
        let (after, _) = X509Certificate::from_der(rest).map_err(|_| Refusal::Malformed)?;
        let length = rest.len() - after.len();
        let one = rest.get(..length).ok_or(Refusal::Malformed)?;
        certificates.push(der.slice_ref(one));
        rest = after;
    }
    Ok(certificates)
}

/// Verifies that `chain`, leaf first, is an X.509-SVID of the bundle's trust domain and leads to one of its authorities
/// (X509-SVID §5).
///
/// # Errors
/// With the clause that it breaks.
pub fn verify(chain: &[Bytes], bundle: &Bundle, now: SystemTime) -> Result<SpiffeId, ChainError> {
    let (leaf, rest) = chain.split_first().ok_or(ChainError::Empty)?;
    let id = conform::any_leaf(leaf)?;
    if id.trust_domain() != &bundle.trust_domain {
        return Err(ChainError::OtherTrustDomain {
            id,
            trust_domain: bundle.trust_domain.clone(),
        });
    }
    let no_path = |cause: String| ChainError::NoPath {
        trust_domain: bundle.trust_domain.clone(),
        cause,
    };
    let mut roots = RootCertStore::empty();
    for authority in &bundle.x509_authorities {
        // One that cannot be an anchor is none; the others may still be.
        let _ = roots.add(CertificateDer::from(authority.der.to_vec()));
    }
    if roots.is_empty() {
        return Err(no_path("it has no X.509 authorities".to_owned()));
    }
    let leaf = CertificateDer::from(leaf.to_vec());
    let parsed = ParsedCertificate::try_from(&leaf).map_err(|error| no_path(error.to_string()))?;
    let between: Vec<CertificateDer<'_>> = rest
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    let seconds = u64::try_from(unix_seconds(now)).unwrap_or(0);
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &roots,
        &between,
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)),
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .all,
    )
    .map_err(|error| no_path(error.to_string()))?;
    Ok(id)
}
