//! SPIFFE bundle documents: a JWK set with `spiffe_sequence` and `spiffe_refresh_hint`
//! (SPIFFE Trust Domain and Bundle §4).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::jwk::key_parameters;
use super::{Bundle, JwtAuthority, JwtKey, JwtKeyError, X509Authority};
use crate::trust_domain::TrustDomain;
use crate::x509::conform::{self, Refusal};

/// Longest document that is read, bytes: 1,000 roots of 4 KiB fit.
pub const MAX_DOCUMENT: usize = 8 << 20;
/// Most keys that a bundle may have.
const MAX_KEYS: usize = 4096;

/// A document that is no bundle of the trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Too long to be read.
    #[error("the bundle has {0} bytes, at most 8 MiB are read")]
    TooLong(usize),
    /// Not a JSON object.
    #[error("the bundle is no JSON object: {0}")]
    NoObject(String),
    /// No `keys` (§4.1.3).
    #[error("the bundle has no array `keys` (SPIFFE Trust Domain and Bundle §4.1.3)")]
    NoKeys,
    /// Too many keys.
    #[error("the bundle has {0} keys, at most 4096 are read")]
    TooManyKeys(usize),
    /// A sequence or hint that is no number (§4.1.1, §4.1.2).
    #[error("`{0}` is no non-negative integer (SPIFFE Trust Domain and Bundle §4.1)")]
    Number(&'static str),
    /// A key that must be usable and is not.
    #[error("key {index} of the bundle: {cause}")]
    Key {
        /// Which, from 0.
        index: usize,
        /// Why.
        cause: String,
    },
    /// A JWT key without `kid`, or with the `kid` of another (JWT-SVID §6.1).
    #[error("key {index} of the bundle has no `kid`, or that of another key (JWT-SVID §6.1)")]
    KeyId {
        /// Which, from 0.
        index: usize,
    },
}

impl Bundle {
    /// The SPIFFE bundle document, UTF-8 JSON.
    ///
    /// Every X.509 authority has `use`, no `kid`, and exactly one certificate in `x5c` (X509-SVID §6.1);
    /// every JWT and WIT authority has `use` and `kid` (JWT-SVID §6.1, WIT-SVID §6.1).
    #[must_use]
    pub fn to_document(&self) -> String {
        let x509 = self.x509_authorities.iter().map(|authority| {
            let mut jwk = certificate_parameters(&authority.der).unwrap_or_default();
            jwk.insert("use".to_owned(), "x509-svid".into());
            jwk.insert(
                "x5c".to_owned(),
                vec![STANDARD.encode(&authority.der)].into(),
            );
            if authority.tainted {
                jwk.insert("spiffe_tainted".to_owned(), true.into());
            }
            Value::from(jwk)
        });
        let jwt = self.jwt_authorities.iter().map(|one| (one, "jwt-svid"));
        let wit = self.wit_authorities.iter().map(|one| (one, "wit-svid"));
        let tokens = jwt.chain(wit).map(|(authority, usage)| {
            let mut jwk = authority.key.to_jwk(&authority.key_id);
            jwk.insert("use".to_owned(), usage.into());
            if authority.tainted {
                jwk.insert("spiffe_tainted".to_owned(), true.into());
            }
            Value::from(jwk)
        });
        let mut document = Map::new();
        document.insert("keys".to_owned(), x509.chain(tokens).collect());
        document.insert("spiffe_sequence".to_owned(), self.sequence.into());
        if let Some(hint) = self.refresh_hint {
            document.insert("spiffe_refresh_hint".to_owned(), hint.as_secs().into());
        }
        Value::from(document).to_string()
    }

    /// Reads a SPIFFE bundle document.
    ///
    /// Unknown members, keys of unknown `kty` or `use`, X.509 keys without certificate and certificates after the
    /// first are passed over, as the standard asks (§4.1.3, §4.2; X509-SVID §6.2).
    ///
    /// # Errors
    /// When it is no such document, or a key of a known use is unusable.
    pub fn from_document(
        trust_domain: TrustDomain,
        document: &[u8],
    ) -> Result<Self, DocumentError> {
        if document.len() > MAX_DOCUMENT {
            return Err(DocumentError::TooLong(document.len()));
        }
        let read = crate::json::from_slice(document)
            .map_err(|cause| DocumentError::NoObject(cause.to_string()))?;
        let Value::Object(object) = read else {
            return Err(DocumentError::NoObject("it is something else".to_owned()));
        };
        let Some(Value::Array(keys)) = object.get("keys") else {
            return Err(DocumentError::NoKeys);
        };
        if keys.len() > MAX_KEYS {
            return Err(DocumentError::TooManyKeys(keys.len()));
        }
        let mut bundle = Self::empty(trust_domain);
        bundle.sequence = number(&object, "spiffe_sequence")?.unwrap_or(0);
        bundle.refresh_hint = number(&object, "spiffe_refresh_hint")?.map(Duration::from_secs);
        for (index, key) in keys.iter().enumerate() {
            let Value::Object(jwk) = key else {
                return Err(DocumentError::Key {
                    index,
                    cause: "it is no JSON object".to_owned(),
                });
            };
            bundle.read_key(index, jwk)?;
        }
        Ok(bundle)
    }

    fn read_key(&mut self, index: usize, jwk: &Map<String, Value>) -> Result<(), DocumentError> {
        let unusable = |cause: String| DocumentError::Key { index, cause };
        let tainted = jwk
            .get("spiffe_tainted")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        match jwk.get("use").and_then(Value::as_str) {
            Some("x509-svid") => {
                let first = jwk
                    .get("x5c")
                    .and_then(Value::as_array)
                    .and_then(|x5c| x5c.first());
                let Some(first) = first else { return Ok(()) };
                let der = first
                    .as_str()
                    .and_then(|text| STANDARD.decode(text).ok())
                    .ok_or_else(|| unusable("`x5c` is no base64".to_owned()))?;
                conform::authority(&der, &self.trust_domain)
                    .map_err(|refusal| unusable(refusal.to_string()))?;
                self.add_x509(der.into(), tainted);
            }
            Some("jwt-svid") => {
                let known = matches!(jwk.get("kty").and_then(Value::as_str), Some("EC" | "RSA"));
                if !known {
                    return Ok(());
                }
                let authority = token_authority(jwk, tainted, self.jwt_authorities.iter())
                    .ok_or(DocumentError::KeyId { index })?;
                self.jwt_authorities
                    .push(authority.map_err(|cause| unusable(cause.to_string()))?);
            }
            // An incubating standard: what is wrong there must not cost a trust domain its other keys.
            Some("wit-svid") => {
                let read = token_authority(jwk, tainted, self.token_authorities());
                if let Some(Ok(authority)) = read {
                    self.wit_authorities.push(authority);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds a certificate, unless it is there already.
    fn add_x509(&mut self, der: Bytes, tainted: bool) {
        if !self
            .x509_authorities
            .iter()
            .any(|authority| authority.der == der)
        {
            self.x509_authorities.push(X509Authority { der, tainted });
        }
    }

    /// A bundle of X.509 authorities alone, from their certificates.
    ///
    /// # Errors
    /// When one of them is no signing certificate that the trust domain can have; with its place, from 0.
    pub fn from_certificates(
        trust_domain: TrustDomain,
        certificates: Vec<Bytes>,
    ) -> Result<Self, (usize, Refusal)> {
        let mut bundle = Self::empty(trust_domain);
        for (index, der) in certificates.into_iter().enumerate() {
            conform::authority(&der, &bundle.trust_domain).map_err(|refusal| (index, refusal))?;
            bundle.add_x509(der, false);
        }
        Ok(bundle)
    }
}

/// A key that signs tokens; `None` where it has no `kid`, or that of one that is known.
fn token_authority<'a>(
    jwk: &Map<String, Value>,
    tainted: bool,
    mut known: impl Iterator<Item = &'a JwtAuthority>,
) -> Option<Result<JwtAuthority, JwtKeyError>> {
    let key_id = jwk.get("kid").and_then(Value::as_str).unwrap_or_default();
    if key_id.is_empty() || known.any(|other| other.key_id == key_id) {
        return None;
    }
    Some(JwtKey::from_jwk(jwk).map(|key| JwtAuthority {
        key_id: key_id.to_owned(),
        key,
        expires_at: None,
        tainted,
    }))
}

/// The public key of a certificate as JWK parameters.
fn certificate_parameters(der: &[u8]) -> Option<Map<String, Value>> {
    use x509_parser::prelude::FromDer as _;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    key_parameters(certificate.public_key().raw)
}

fn number(object: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, DocumentError> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(DocumentError::Number(name)),
    }
}

#[cfg(test)]
mod tests;
