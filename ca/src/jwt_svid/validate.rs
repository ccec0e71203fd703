//! Validation of JWT-SVIDs, clause by clause (JWT-SVID §2, §3).

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::{Map, Value};

use crate::bundle::{Bundle, JwtKey, JwtKeyKind};
use crate::clock::unix_seconds;
use crate::identities::ValidatedJwtSvid;
use crate::spiffe_id::{SpiffeId, SpiffeIdError};
use crate::trust_domain::{TrustDomain, shorten};
use crate::x509::csr::ProvenKey;

/// Longest token that is read, bytes.
const MAX_TOKEN: usize = 64 << 10;

/// Why a token is no valid JWT-SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Too long.
    #[error("the token has {0} bytes, at most 65536 are read")]
    TooLong(usize),
    /// Not three parts, no base64url, no JSON (§1, §5.1).
    #[error("the token is no JWS in compact serialisation (JWT-SVID §1)")]
    NotCompact,
    /// A header besides alg, kid and typ (§2).
    #[error(
        "the token has the header `{0}`: only `alg`, `kid` and `typ` are allowed (JWT-SVID §2)"
    )]
    Header(String),
    /// An algorithm outside the list (§2.1).
    #[error(
        "the token's `alg` is `{0}`: only RS, ES and PS with 256, 384 or 512 are allowed (JWT-SVID §2.1)"
    )]
    Algorithm(String),
    /// ES512: allowed by the standard, unknown to our cryptography.
    #[error("the token's `alg` is `ES512`, which is not supported here: ES256 and ES384 are")]
    Es512,
    /// Another type (§2.3).
    #[error("the token's `typ` is `{0}`: only `JWT` and `JOSE` are allowed (JWT-SVID §2.3)")]
    Type(String),
    /// `sub` is missing or no SPIFFE ID (§3.1).
    #[error("the token's `sub` is no SPIFFE ID: {0} (JWT-SVID §3.1)")]
    Subject(SpiffeIdError),
    /// `sub` is missing (§3.1).
    #[error("the token has no `sub` (JWT-SVID §3.1)")]
    NoSubject,
    /// `aud` is missing or does not name us (§3.2).
    #[error("the token is not for the audience `{0}` (JWT-SVID §3.2)")]
    Audience(String),
    /// `aud` is missing or empty (§3.2).
    #[error("the token has no `aud` (JWT-SVID §3.2)")]
    NoAudience,
    /// `exp` is missing (§3.3).
    #[error("the token has no `exp` (JWT-SVID §3.3)")]
    NoExpiry,
    /// Its time is over (§3.3).
    #[error("the token has expired (JWT-SVID §3.3)")]
    Expired,
    /// Its time has not come (RFC 7519 §4.1.5).
    #[error("the token is not valid yet (RFC 7519 §4.1.5)")]
    NotYet,
    /// No bundle for its trust domain.
    #[error("no bundle found for the trust domain `{0}`")]
    NoBundle(TrustDomain),
    /// No key for its `kid`.
    #[error("JWT authority `{key_id}` not found for the trust domain `{trust_domain}`")]
    NoKey {
        /// `kid`.
        key_id: String,
        /// Whose bundle was searched.
        trust_domain: TrustDomain,
    },
    /// The signature is wrong.
    #[error("the token's signature does not verify")]
    Signature,
}

/// A token, taken apart: nothing of it is checked yet.
pub(crate) struct Read<'t> {
    pub(crate) header: Map<String, Value>,
    pub(crate) claims: Map<String, Value>,
    /// What is signed.
    pub(crate) input: &'t str,
    pub(crate) signature: Vec<u8>,
}

impl<'t> Read<'t> {
    pub(crate) fn new(token: &'t str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong(token.len()));
        }
        let (input, signature) = token.rsplit_once('.').ok_or(TokenError::NotCompact)?;
        let (header, claims) = input.split_once('.').ok_or(TokenError::NotCompact)?;
        if claims.contains('.') {
            return Err(TokenError::NotCompact);
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| TokenError::NotCompact)?;
        Ok(Self {
            header: object(header)?,
            claims: object(claims)?,
            input,
            signature,
        })
    }
}

/// Validates `token` for `audience` with the bundle that `bundle` finds for its trust domain.
///
/// # Errors
/// With the clause that it breaks.
pub fn token<'a>(
    token: &str,
    audience: &str,
    now: SystemTime,
    bundle: impl FnOnce(&TrustDomain) -> Option<&'a Bundle>,
) -> Result<ValidatedJwtSvid, TokenError> {
    let Read {
        header,
        mut claims,
        input,
        signature,
    } = Read::new(token)?;
    let scheme = check_header(&header)?;
    let spiffe_id = subject(&claims)?;
    let audiences = audiences(&claims);
    if !audiences.iter().any(|name| name == audience) {
        return Err(TokenError::Audience(shorten(audience)));
    }
    check_times(&claims, now)?;
    let trust_domain = spiffe_id.trust_domain();
    let bundle = bundle(trust_domain).ok_or_else(|| TokenError::NoBundle(trust_domain.clone()))?;
    let key_id = header.get("kid").and_then(Value::as_str);
    let keys = bundle
        .jwt_authorities
        .iter()
        // Without a `kid` any of the keys may be it (§2.2).
        .filter(|authority| key_id.is_none_or(|id| id == authority.key_id));
    let mut found = false;
    let verified = keys.into_iter().any(|authority| {
        found = true;
        verify(&authority.key, scheme, input.as_bytes(), &signature)
    });
    if !found {
        return Err(TokenError::NoKey {
            key_id: shorten(key_id.unwrap_or_default()),
            trust_domain: trust_domain.clone(),
        });
    }
    if !verified {
        return Err(TokenError::Signature);
    }
    claims.insert("aud".to_owned(), audiences.into());
    Ok(ValidatedJwtSvid { spiffe_id, claims })
}

/// A token as it is written, and every clause that it breaks; nothing is verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspected {
    /// The JOSE header.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: Map<String, Value>,
    /// What is wrong.
    pub refusals: Vec<TokenError>,
}

/// Reads a token without verifying its signature, and lists every clause that it breaks.
///
/// # Errors
/// When it cannot be read at all.
pub fn inspect(token: &str, now: SystemTime) -> Result<Inspected, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLong(token.len()));
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else {
        return Err(TokenError::NotCompact);
    };
    URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| TokenError::NotCompact)?;
    let (header, claims) = (object(header)?, object(claims)?);
    let mut refusals: Vec<TokenError> = [
        check_names(&header),
        check_type(&header),
        scheme(&header).map(|_| ()),
        subject(&claims).map(|_| ()),
    ]
    .into_iter()
    .filter_map(Result::err)
    .collect();
    if audiences(&claims).is_empty() {
        refusals.push(TokenError::NoAudience);
    }
    refusals.extend(check_times(&claims, now).err());
    Ok(Inspected {
        header,
        claims,
        refusals,
    })
}

pub(crate) fn subject(claims: &Map<String, Value>) -> Result<SpiffeId, TokenError> {
    let subject = claims
        .get("sub")
        .and_then(Value::as_str)
        .ok_or(TokenError::NoSubject)?;
    SpiffeId::parse(subject).map_err(TokenError::Subject)
}

pub(crate) type Scheme = (JwtKeyKind, &'static dyn VerificationAlgorithm);

fn check_header(header: &Map<String, Value>) -> Result<Scheme, TokenError> {
    check_names(header)?;
    check_type(header)?;
    scheme(header)
}

fn check_names(header: &Map<String, Value>) -> Result<(), TokenError> {
    let is_known = |name: &&String| matches!(name.as_str(), "alg" | "kid" | "typ");
    match header.keys().find(|name| !is_known(name)) {
        Some(other) => Err(TokenError::Header(shorten(other))),
        None => Ok(()),
    }
}

fn check_type(header: &Map<String, Value>) -> Result<(), TokenError> {
    match header.get("typ") {
        None => Ok(()),
        Some(Value::String(typ)) if typ == "JWT" || typ == "JOSE" => Ok(()),
        Some(other) => Err(TokenError::Type(shorten(&other.to_string()))),
    }
}

pub(crate) fn scheme(header: &Map<String, Value>) -> Result<Scheme, TokenError> {
    let alg = header
        .get("alg")
        .and_then(Value::as_str)
        .unwrap_or_default();
    Ok(match alg {
        "ES256" => (JwtKeyKind::P256, &signature::ECDSA_P256_SHA256_FIXED),
        "ES384" => (JwtKeyKind::P384, &signature::ECDSA_P384_SHA384_FIXED),
        "ES512" => return Err(TokenError::Es512),
        "RS256" => (JwtKeyKind::Rsa, &signature::RSA_PKCS1_2048_8192_SHA256),
        "RS384" => (JwtKeyKind::Rsa, &signature::RSA_PKCS1_2048_8192_SHA384),
        "RS512" => (JwtKeyKind::Rsa, &signature::RSA_PKCS1_2048_8192_SHA512),
        "PS256" => (JwtKeyKind::Rsa, &signature::RSA_PSS_2048_8192_SHA256),
        "PS384" => (JwtKeyKind::Rsa, &signature::RSA_PSS_2048_8192_SHA384),
        "PS512" => (JwtKeyKind::Rsa, &signature::RSA_PSS_2048_8192_SHA512),
        other => return Err(TokenError::Algorithm(shorten(other))),
    })
}

/// `exp`, `nbf`: numbers, possibly with a fraction (RFC 7519 §2).
pub(crate) fn check_times(claims: &Map<String, Value>, now: SystemTime) -> Result<(), TokenError> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a fraction of a second is enough"
    )]
    let now = unix_seconds(now) as f64;
    let expiry = claims
        .get("exp")
        .and_then(Value::as_f64)
        .ok_or(TokenError::NoExpiry)?;
    if expiry <= now {
        return Err(TokenError::Expired);
    }
    match claims.get("nbf") {
        None => Ok(()),
        Some(start) if start.as_f64().is_some_and(|start| start <= now) => Ok(()),
        Some(_) => Err(TokenError::NotYet),
    }
}

fn audiences(claims: &Map<String, Value>) -> Vec<String> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => {
            let texts = all.iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::NotCompact)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::NotCompact)
}

pub(crate) fn verify(key: &JwtKey, (kind, scheme): Scheme, input: &[u8], signature: &[u8]) -> bool {
    // The algorithm follows from the key, never the key from the token's algorithm.
    key.kind() == kind
        && ProvenKey::made_here(key.spki()).is_ok_and(|key| {
            UnparsedPublicKey::new(scheme, key.bits())
                .verify(input, signature)
                .is_ok()
        })
}

#[cfg(test)]
mod tests;
