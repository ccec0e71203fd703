//! The public authorities of one trust domain.

mod document;
mod jwk;

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::trust_domain::TrustDomain;

pub use document::{DocumentError, MAX_DOCUMENT};
pub use jwk::{JwtKey, JwtKeyError, JwtKeyKind};

pub(crate) use jwk::key_parameters;

/// A trust domain's bundle: what its SVIDs are verified with (SPIFFE Trust Domain and Bundle §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Whose.
    pub trust_domain: TrustDomain,
    /// Certificates that X.509-SVIDs chain to.
    pub x509_authorities: Vec<X509Authority>,
    /// Keys that sign JWT-SVIDs.
    pub jwt_authorities: Vec<JwtAuthority>,
    /// Keys that sign WIT-SVIDs; their `kid`s are none of the above (WIT-SVID §6.1).
    pub wit_authorities: Vec<JwtAuthority>,
    /// Grows with every change of the content (§4.1.1).
    pub sequence: u64,
    /// How often those who poll it should look; `None` where nothing is said (§4.1.2).
    pub refresh_hint: Option<Duration>,
}

/// One certificate of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct X509Authority {
    /// The certificate, DER.
    pub der: Bytes,
    /// Its key may be known to others: SVIDs under it are to be replaced.
    pub tainted: bool,
}

/// One key of a bundle that signs tokens: JWT-SVIDs or WIT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtAuthority {
    /// `kid`, unique in the bundle.
    pub key_id: String,
    /// The public key.
    pub key: JwtKey,
    /// When it stops being used, where that is known.
    pub expires_at: Option<SystemTime>,
    /// Its key may be known to others.
    pub tainted: bool,
}

impl Bundle {
    /// A bundle with nothing in it: every SVID of the trust domain is untrusted (§4.1.3).
    #[must_use]
    pub fn empty(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            wit_authorities: Vec::new(),
            sequence: 0,
            refresh_hint: None,
        }
    }

    /// The X.509 authorities, DER, one after the other, as the Workload API wants them.
    #[must_use]
    pub fn x509_der(&self) -> Vec<u8> {
        let all: Vec<&[u8]> = self
            .x509_authorities
            .iter()
            .map(|authority| &authority.der[..])
            .collect();
        all.concat()
    }

    /// The JWT authorities as a plain JWK set with `kid` and without `use`, as the Workload API wants them.
    #[must_use]
    pub fn jwks(&self) -> String {
        jwks(&self.jwt_authorities)
    }

    /// The WIT authorities in the same form (Workload API §7.2.2).
    #[must_use]
    pub fn wit_jwks(&self) -> String {
        jwks(&self.wit_authorities)
    }

    /// The keys that sign tokens, whatever kind of token.
    pub(crate) fn token_authorities(&self) -> impl Iterator<Item = &JwtAuthority> {
        self.jwt_authorities.iter().chain(&self.wit_authorities)
    }
}

fn jwks(authorities: &[JwtAuthority]) -> String {
    let keys: Vec<serde_json::Value> = authorities
        .iter()
        .map(|authority| authority.key.to_jwk(&authority.key_id).into())
        .collect();
    serde_json::json!({ "keys": keys }).to_string()
}
