//! WIT-SVIDs: tokens that name a key of the workload's, and are worth nothing without it (WIT-SVID, incubating).
//!
//! They are made only where the operator switched them on.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Map, Value, json};

use crate::bundle::{Bundle, JwtKey, JwtKeyError, JwtKeyKind};
use crate::clock::unix_seconds;
use crate::jwt_svid::validate::{self, TokenError};
use crate::jwt_svid::{JwtProfileError, PreparedJwt, algorithm_name};
use crate::key::{KeyAlgorithm, KeyError, MemoryKey, SigningKey as _};
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// `typ` (WIT-SVID §2.2).
const TYPE: &str = "wit+jwt";
/// Algorithms that `cnf.jwk.alg` may name (WIT-SVID §3.2).
const ALGORITHMS: [&str; 9] = [
    "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
];

/// The rules for WIT-SVIDs of one trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitProfile {
    trust_domain: TrustDomain,
    default_ttl: Duration,
    max_ttl: Duration,
    backdate: Duration,
}

/// A token that the profile does not allow, or that cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum WitProfileError {
    /// A rule that JWT-SVIDs have, too.
    #[error(transparent)]
    Profile(#[from] JwtProfileError),
    /// The workload's key is none that a WIT-SVID can name.
    #[error(transparent)]
    Key(#[from] JwtKeyError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] KeyError),
}

/// Why a token is no valid WIT-SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitError {
    /// What JWT-SVIDs would be refused for, too.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// No `kid` (§2.1).
    #[error("the token has no `kid` (WIT-SVID §2.1)")]
    NoKeyId,
    /// Another type (§2.2).
    #[error("the token's `typ` is not `wit+jwt` (WIT-SVID §2.2)")]
    Type,
    /// A header that must be understood, and is not (§2.4).
    #[error("the token has critical headers that are not known here (WIT-SVID §2.4)")]
    Critical,
    /// No key of the workload's (§3.2).
    #[error("the token has no `cnf.jwk`: {0} (WIT-SVID §3.2)")]
    Confirmation(&'static str),
    /// `aud` (§3.8).
    #[error("the token has `aud`, which a WIT-SVID must not have (WIT-SVID §3.8)")]
    Audience,
    /// No key of the issuer's.
    #[error("WIT authority `{0}` is not in the bundle of its trust domain")]
    NoKey(String),
}

/// What a valid WIT-SVID says. Whoever presents it must still prove that it has the key (§4).
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedWit {
    /// `sub`.
    pub spiffe_id: SpiffeId,
    /// `cnf.jwk`.
    pub key: JwtKey,
    /// `cnf.jwk.alg`.
    pub key_algorithm: String,
    /// `exp`.
    pub expires_at: i64,
}

/// A token that the profile allows, and its `jti`.
#[derive(Clone, Debug)]
pub struct PreparedWit {
    /// To be signed, once.
    pub token: PreparedJwt,
    /// `jti`: random, for the journal and for whoever logs it.
    pub id: String,
}

impl WitProfile {
    /// Rules for `trust_domain`.
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

    /// Checks a request and lays out its token: `spki` is the workload's public key, DER.
    ///
    /// # Errors
    /// With the rule that the request breaks.
    pub fn prepare(
        &self,
        spiffe_id: &SpiffeId,
        spki: &[u8],
        ttl: Option<Duration>,
        authority: (&str, KeyAlgorithm, SystemTime),
        now: SystemTime,
    ) -> Result<PreparedWit, WitProfileError> {
        let (key_id, algorithm, authority_end) = authority;
        if spiffe_id.trust_domain() != &self.trust_domain {
            return Err(JwtProfileError::OtherTrustDomain(spiffe_id.clone()).into());
        }
        if spiffe_id.path().is_empty() {
            return Err(JwtProfileError::NoPath(spiffe_id.clone()).into());
        }
        if authority_end <= now {
            return Err(JwtProfileError::AuthorityExpired.into());
        }
        let ttl = ttl
            .unwrap_or(self.default_ttl)
            .min(self.max_ttl)
            .max(Duration::from_secs(1));
        let end = now.checked_add(ttl);
        let expires_at = end.map_or(authority_end, |end| end.min(authority_end));
        let mut random = [0; 16];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| KeyError::Generate)?;
        let id = URL_SAFE_NO_PAD.encode(random);
        // kid, typ and alg: no other header (§2.4). No `aud` (§3.8), and no `iss` that could be discovered (§3.7).
        let header = json!({"alg": algorithm_name(algorithm)?, "kid": key_id, "typ": TYPE});
        let claims = json!({
            "sub": spiffe_id.as_str(),
            "exp": unix_seconds(expires_at),
            "iat": unix_seconds(now),
            "nbf": unix_seconds(now.checked_sub(self.backdate).unwrap_or(now)),
            "jti": id,
            "cnf": {"jwk": confirmation(&JwtKey::from_spki(spki)?)},
        });
        Ok(PreparedWit {
            token: PreparedJwt::new(&header, &claims, algorithm, spiffe_id, (now, expires_at)),
            id,
        })
    }
}

/// The workload's key as `cnf.jwk` has it: with the one algorithm that fits it.
fn confirmation(key: &JwtKey) -> Map<String, Value> {
    let mut jwk = key.to_jwk("");
    jwk.remove("kid");
    let algorithm = match key.kind() {
        JwtKeyKind::P256 => "ES256",
        JwtKeyKind::P384 => "ES384",
        JwtKeyKind::P521 => "ES512",
        JwtKeyKind::Rsa => "RS256",
    };
    jwk.insert("alg".to_owned(), algorithm.into());
    jwk
}

/// The workload's private key, a JWK (RFC 7518 §6.2.2); `None` where it is none on P-256.
#[must_use]
pub fn private_jwk(key: &MemoryKey) -> Option<String> {
    // ECPrivateKey (RFC 5915): version 1, then the number in an OCTET STRING.
    const MARK: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
    if key.algorithm() != KeyAlgorithm::P256 {
        return None;
    }
    let pkcs8 = key.pkcs8();
    let at = pkcs8.windows(MARK.len()).position(|bytes| bytes == MARK)? + MARK.len();
    let number = pkcs8.get(at..at + 32)?;
    let mut jwk = confirmation(&JwtKey::from_spki(key.public_key()).ok()?);
    jwk.insert("d".to_owned(), URL_SAFE_NO_PAD.encode(number).into());
    Some(Value::from(jwk).to_string())
}

/// Validates a WIT-SVID with the bundle of its trust domain, clause by clause. That its bearer has the key is not proven
/// by this.
///
/// # Errors
/// With the clause that it breaks.
pub fn validate<'a>(
    token: &str,
    now: SystemTime,
    bundle: impl FnOnce(&TrustDomain) -> Option<&'a Bundle>,
) -> Result<ValidatedWit, WitError> {
    let read = validate::Read::new(token)?;
    if read.header.get("typ").and_then(Value::as_str) != Some(TYPE) {
        return Err(WitError::Type);
    }
    if read.header.contains_key("crit") {
        return Err(WitError::Critical);
    }
    let key_id = read.header.get("kid").and_then(Value::as_str);
    let key_id = key_id
        .filter(|id| !id.is_empty())
        .ok_or(WitError::NoKeyId)?;
    let scheme = validate::scheme(&read.header)?;
    let spiffe_id = validate::subject(&read.claims)?;
    if read.claims.contains_key("aud") {
        return Err(WitError::Audience);
    }
    validate::check_times(&read.claims, now)?;
    let jwk = read.claims.get("cnf").and_then(|cnf| cnf.get("jwk"));
    let jwk = jwk
        .and_then(Value::as_object)
        .ok_or(WitError::Confirmation("there is none"))?;
    let key_algorithm = jwk.get("alg").and_then(Value::as_str).unwrap_or_default();
    if !ALGORITHMS.contains(&key_algorithm) {
        return Err(WitError::Confirmation("its `alg` is none of those allowed"));
    }
    if jwk.contains_key("d") {
        return Err(WitError::Confirmation("it is a private key"));
    }
    let key = JwtKey::from_jwk(jwk).map_err(|_| WitError::Confirmation("it is no usable key"))?;
    let trust_domain = spiffe_id.trust_domain();
    let bundle = bundle(trust_domain).ok_or_else(|| TokenError::NoBundle(trust_domain.clone()))?;
    let mut keys = bundle.wit_authorities.iter();
    let authority = keys
        .find(|authority| authority.key_id == key_id)
        .ok_or_else(|| WitError::NoKey(crate::trust_domain::shorten(key_id)))?;
    if !validate::verify(
        &authority.key,
        scheme,
        read.input.as_bytes(),
        &read.signature,
    ) {
        return Err(TokenError::Signature.into());
    }
    let expires_at = read.claims.get("exp").and_then(Value::as_f64);
    #[expect(clippy::cast_possible_truncation, reason = "a float saturates")]
    let expires_at = expires_at.unwrap_or_default() as i64;
    Ok(ValidatedWit {
        spiffe_id,
        key,
        key_algorithm: key_algorithm.to_owned(),
        expires_at,
    })
}

#[cfg(test)]
mod tests;
