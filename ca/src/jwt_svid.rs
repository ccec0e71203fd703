//! JWT-SVIDs: laid out, signed, validated.

pub mod validate;

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::clock::unix_seconds;
use crate::key::{KeyAlgorithm, ecdsa_fixed};
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// Most audiences of a token.
const MAX_AUDIENCES: usize = 64;
/// Longest audience, bytes.
const MAX_AUDIENCE: usize = 2048;

/// The rules for JWT-SVIDs of one trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtProfile {
    trust_domain: TrustDomain,
    default_ttl: Duration,
    max_ttl: Duration,
    issuer: Option<String>,
}

/// A token that the profile does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtProfileError {
    /// No audience (JWT-SVID §3.2).
    #[error(
        "audience must be specified: a token without one would be valid everywhere (JWT-SVID §3.2)"
    )]
    NoAudience,
    /// An empty audience, or one that is too long.
    #[error("an audience is empty or has more than 2048 bytes")]
    Audience,
    /// Too many audiences.
    #[error("there are {0} audiences, at most 64 are allowed")]
    TooManyAudiences(usize),
    /// Another trust domain.
    #[error("`{0}` is not in this trust domain")]
    OtherTrustDomain(SpiffeId),
    /// The trust domain itself.
    #[error("`{0}` has no path: a workload's SPIFFE ID has one")]
    NoPath(SpiffeId),
    /// The authority's time is over.
    #[error("the JWT authority has expired")]
    AuthorityExpired,
    /// A key that makes no JWS that JWT-SVIDs allow.
    #[error("a key of type {0} cannot sign JWT-SVIDs (JWT-SVID §2.1)")]
    Algorithm(&'static str),
}

/// A token that the profile allows, ready to be signed, once.
#[derive(Clone, Debug)]
pub struct PreparedJwt {
    signing_input: String,
    algorithm: KeyAlgorithm,
    /// `sub`.
    pub spiffe_id: SpiffeId,
    /// `iat`.
    pub issued_at: SystemTime,
    /// `exp`.
    pub expires_at: SystemTime,
}

impl JwtProfile {
    /// Rules for `trust_domain`; `issuer` becomes `iss`, for validators that ask for one.
    #[must_use]
    pub fn new(
        trust_domain: TrustDomain,
        default_ttl: Duration,
        max_ttl: Duration,
        issuer: Option<String>,
    ) -> Self {
        Self {
            trust_domain,
            default_ttl: default_ttl.min(max_ttl),
            max_ttl,
            issuer,
        }
    }

    /// Checks a request and lays out its token, to be signed by the authority with `key_id`. The lifetime is clamped
    /// to the profile's longest and to the authority's end.
    ///
    /// # Errors
    /// With the rule that the request breaks.
    pub fn prepare(
        &self,
        spiffe_id: &SpiffeId,
        audiences: &[String],
        ttl: Option<Duration>,
        authority: (&str, KeyAlgorithm, SystemTime),
        now: SystemTime,
    ) -> Result<PreparedJwt, JwtProfileError> {
        let (key_id, algorithm, authority_end) = authority;
        check_audiences(audiences)?;
        if spiffe_id.trust_domain() != &self.trust_domain {
            return Err(JwtProfileError::OtherTrustDomain(spiffe_id.clone()));
        }
        if spiffe_id.path().is_empty() {
            return Err(JwtProfileError::NoPath(spiffe_id.clone()));
        }
        if authority_end <= now {
            return Err(JwtProfileError::AuthorityExpired);
        }
        let alg = algorithm_name(algorithm)?;
        let ttl = ttl
            .unwrap_or(self.default_ttl)
            .min(self.max_ttl)
            .max(Duration::from_secs(1));
        let expires_at = now
            .checked_add(ttl)
            .map_or(authority_end, |end| end.min(authority_end));
        // alg, kid and typ: no other header is allowed (JWT-SVID §2).
        let header = json!({"alg": alg, "kid": key_id, "typ": "JWT"});
        let mut claims = json!({
            "sub": spiffe_id.as_str(),
            "aud": audiences,
            "iat": unix_seconds(now),
            "exp": unix_seconds(expires_at),
        });
        if let (Some(issuer), Some(claims)) = (&self.issuer, claims.as_object_mut()) {
            claims.insert("iss".to_owned(), issuer.as_str().into());
        }
        let times = (now, expires_at);
        Ok(PreparedJwt::new(
            &header, &claims, algorithm, spiffe_id, times,
        ))
    }
}

/// Checks that audiences can stand in a token.
///
/// # Errors
/// When there is none, or one that is unusable.
pub fn check_audiences(audiences: &[String]) -> Result<(), JwtProfileError> {
    if audiences.is_empty() {
        return Err(JwtProfileError::NoAudience);
    }
    if audiences.len() > MAX_AUDIENCES {
        return Err(JwtProfileError::TooManyAudiences(audiences.len()));
    }
    match audiences
        .iter()
        .any(|audience| audience.is_empty() || audience.len() > MAX_AUDIENCE)
    {
        true => Err(JwtProfileError::Audience),
        false => Ok(()),
    }
}

/// `alg` of what a key of this kind signs (JWT-SVID §2.1, WIT-SVID §2.3).
pub(crate) fn algorithm_name(algorithm: KeyAlgorithm) -> Result<&'static str, JwtProfileError> {
    match algorithm {
        KeyAlgorithm::P256 => Ok("ES256"),
        KeyAlgorithm::P384 => Ok("ES384"),
        KeyAlgorithm::Rsa => Ok("RS256"),
        KeyAlgorithm::Ed25519 => Err(JwtProfileError::Algorithm("ed25519")),
    }
}

impl PreparedJwt {
    /// A token, laid out, with `iat` and `exp`.
    pub(crate) fn new(
        header: &serde_json::Value,
        claims: &serde_json::Value,
        algorithm: KeyAlgorithm,
        spiffe_id: &SpiffeId,
        (issued_at, expires_at): (SystemTime, SystemTime),
    ) -> Self {
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        Self {
            signing_input: format!("{}.{}", part(header), part(claims)),
            algorithm,
            spiffe_id: spiffe_id.clone(),
            issued_at,
            expires_at,
        }
    }

    /// The bytes to be signed.
    #[must_use]
    pub fn signing_input(&self) -> &[u8] {
        self.signing_input.as_bytes()
    }

    /// The token in JWS compact serialisation, with the signature in the form of X.509 that keys make; `None`
    /// when it has another form.
    #[must_use]
    pub fn with_signature(self, signature: &[u8]) -> Option<String> {
        let signature = match self.algorithm {
            KeyAlgorithm::P256 => ecdsa_fixed(signature, 32)?,
            KeyAlgorithm::P384 => ecdsa_fixed(signature, 48)?,
            KeyAlgorithm::Rsa | KeyAlgorithm::Ed25519 => signature.to_vec(),
        };
        Some(format!(
            "{}.{}",
            self.signing_input,
            URL_SAFE_NO_PAD.encode(signature)
        ))
    }
}
