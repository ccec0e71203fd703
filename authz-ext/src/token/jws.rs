//! A token in JWS compact serialization (RFC 7515 section 7.1), taken apart but not yet believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::{TokenError, crypto, json};

/// Longest token that is looked at, in octets. Proxies bound their headers at 8 to 64 KiB.
pub const LONGEST: usize = 32 << 10;

/// A token's parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Jws<'t> {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`, which names a key of the issuer's set and is compared, nothing else.
    pub key_id: Option<String>,
    /// `typ`.
    pub kind: Option<String>,
    /// The claims.
    pub payload: Map<String, Value>,
    /// The claims as they stand in the token, base64url.
    pub payload_text: &'t str,
    signed: &'t str,
    signature: &'t str,
}

impl<'t> Jws<'t> {
    /// Takes a token apart.
    ///
    /// `jwk`, `jku`, `x5c` and `x5u` are not looked at: a token does not choose the key that it is
    /// verified with.
    ///
    /// # Errors
    /// When it is no JWS in compact form, or one that we must refuse whoever signed it: without a
    /// signature, with an algorithm that we do not verify, with `crit` (RFC 7515 section 4.1.11: none
    /// of its extensions is understood here), with a name that occurs twice.
    pub fn parse(token: &'t str) -> Result<Self, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::Huge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload_text) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if payload_text.contains('.') {
            return Err(TokenError::Malformed);
        }
        let header = part(header)?;
        for name in ["crit", "b64"] {
            if header.contains_key(name) {
                return Err(TokenError::Critical(name));
            }
        }
        let text = |name: &'static str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(TokenError::Malformed),
        };
        let algorithm = algorithm(text("alg")?.ok_or(TokenError::Malformed)?)?;
        Ok(Self {
            algorithm,
            key_id: text("kid")?.map(str::to_owned),
            kind: text("typ")?.map(str::to_owned),
            payload: part(payload_text)?,
            payload_text,
            signed,
            signature,
        })
    }

    /// True when `key` made the signature.
    #[must_use]
    pub fn is_signed_by(&self, key: &jsonwebtoken::DecodingKey) -> bool {
        let signed = self.signed.as_bytes();
        jsonwebtoken::crypto::verify(self.signature, signed, key, self.algorithm).unwrap_or(false)
    }

    /// `iss`; empty when there is none, as in Envoy.
    #[must_use]
    pub fn issuer(&self) -> &str {
        let issuer = self.payload.get("iss").and_then(Value::as_str);
        issuer.unwrap_or_default()
    }
}

fn part(text: &str) -> Result<Map<String, Value>, TokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| TokenError::Malformed)?;
    json::object(&bytes).ok_or(TokenError::Malformed)
}

fn algorithm(name: &str) -> Result<Algorithm, TokenError> {
    let known = crypto::ALGORITHMS.iter().find(|(known, _)| *known == name);
    known
        .map(|(_, algorithm)| *algorithm)
        .ok_or_else(|| match name {
            "none" => TokenError::Unsigned,
            "HS256" | "HS384" | "HS512" => TokenError::Symmetric,
            other => TokenError::Algorithm(other.chars().take(16).collect()),
        })
}
