//! JWT authorities: a key with an identifier, and how it signs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Authority, AuthorityError};
use crate::key::{KeyAlgorithm, SigningKey};
use crate::store::{AuthorityKind, AuthorityRow, AuthorityState};
use crate::x509::certificate::{hex, key_id, whole_seconds};
use crate::x509::csr::ProvenKey;

/// Makes an authority of JWT-SVIDs or WIT-SVIDs, prepared. Its `kid` follows from its key.
///
/// # Errors
/// When the key is none that JWT-SVIDs allow.
pub fn make(
    kind: AuthorityKind,
    key: Arc<dyn SigningKey>,
    ttl: Duration,
    backdate: Duration,
    now: SystemTime,
) -> Result<Authority, AuthorityError> {
    if key.algorithm() == KeyAlgorithm::Ed25519 {
        return Err(AuthorityError::Store(
            "Ed25519 is no algorithm for JWT-SVIDs (JWT-SVID §2.1): `ec-p256` or `ec-p384`"
                .to_owned(),
        ));
    }
    let now = whole_seconds(now);
    let public = ProvenKey::made_here(key.public_key())
        .map_err(|error| AuthorityError::Store(error.to_string()))?;
    let row = AuthorityRow {
        id: hex(&key_id(public.bits())),
        kind,
        state: AuthorityState::Prepared,
        algorithm: key.algorithm().as_str().to_owned(),
        public_key: key.public_key().clone(),
        certificate: None,
        root: None,
        not_before: now.checked_sub(backdate).unwrap_or(now),
        not_after: now.checked_add(ttl).unwrap_or(now),
        published: 0,
        prepared_at: now,
        activated_at: None,
        retired_at: None,
        tainted_at: None,
        revoked_at: None,
    };
    Ok(from_row(row, Some(key)))
}

/// An authority from what is stored of it.
#[must_use]
pub fn from_row(row: AuthorityRow, key: Option<Arc<dyn SigningKey>>) -> Authority {
    Authority {
        row,
        key,
        x509: None,
    }
}
