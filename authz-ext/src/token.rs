//! Tokens, verified by us: for listeners whose proxy verifies nothing.
//!
//! ```text
//! request, rules --place--> texts --jws--> claims, signature --jwks of keys--> payloads, or invalid
//!                                                             fetch: issuers' key sets, ahead of time
//! payloads -> output: headers that the workload gets, and what the rules of the policies see
//! ```
//!
//! The semantics are those of Istio's RequestAuthentication on Envoy's jwt_authn (policy.md 1.12): a
//! request without a token passes without an identity; each rule takes tokens at its own places, of
//! its own issuer. Stricter than Envoy in one thing: where several tokens are there, *each* must be
//! valid for some rule, and the verdict must be the same for all of them. Which of them the workload
//! goes by, nobody can say.

pub mod claims;
pub mod crypto;
pub mod fetch;
pub mod json;
pub mod jwks;
pub mod jws;
pub mod keys;
pub mod output;
mod settings;
pub mod svid;

pub use settings::{Settings, SettingsError, Verification};

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::Algorithm;
use portcullis_policy::request::Http;
use portcullis_policy::request_authentication::place::{self, Place};
use portcullis_policy::request_authentication::{TokenProvider, TokenRules, is_cors_preflight};
use serde_json::Value;

use self::crypto::ALGORITHMS;
use self::jwks::Signature;
use self::jws::Jws;
use self::keys::{Keys, Source};

/// Pairs of a token and a rule that are looked at in one request.
const MOST_PAIRS: usize = 64;

/// Why a token is invalid. The words are for logs; the client hears `invalid_token`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than any token.
    #[error("the token is longer than 32 KiB")]
    Huge,
    /// No JWS in compact form, or not JSON in it.
    #[error("the token is malformed")]
    Malformed,
    /// `crit` or `b64`.
    #[error("the token's header has `{0}`, which is not understood")]
    Critical(&'static str),
    /// `alg: none`.
    #[error("the token is not signed")]
    Unsigned,
    /// HMAC.
    #[error("the token is signed with a shared secret, which a key set never has")]
    Symmetric,
    /// Another algorithm.
    #[error("the algorithm `{}` is not verified here", .0.escape_debug())]
    Algorithm(String),
    /// Not on the allow list.
    #[error("the algorithm is not among `tokens.algorithms`")]
    AlgorithmNotAllowed,
    /// Several tokens at one place.
    #[error("there are several tokens at one place")]
    Several,
    /// Too many tokens and rules.
    #[error("there are too many tokens")]
    TooMany,
    /// A claim of the wrong type.
    #[error("the claim `{0}` has the wrong type")]
    Claim(&'static str),
    /// `nbf`.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `exp`.
    #[error("the token has expired")]
    Expired,
    /// `iss`.
    #[error("no rule takes tokens of this issuer at this place")]
    Issuer,
    /// `aud`.
    #[error("the token is for another audience")]
    Audience,
    /// The signature is not by the issuer's key.
    #[error("the signature is not valid")]
    Signature,
    /// The set has no such key.
    #[error("the issuer has no such key")]
    UnknownKey,
    /// There is no set.
    #[error("the issuer's keys cannot be had")]
    NoKeys,
    /// A JWT-SVID that is none.
    #[error("the JWT-SVID is not valid: {0}")]
    Svid(&'static str),
}

/// What tokens must satisfy everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Difference of clocks that is put up with.
    pub clock_skew: Duration,
    /// Algorithms that are verified.
    pub algorithms: Vec<Algorithm>,
}

impl Default for Options {
    fn default() -> Self {
        let mut algorithms: Vec<Algorithm> = ALGORITHMS.iter().map(|(_, known)| *known).collect();
        algorithms.dedup();
        Self {
            // Envoy's own.
            clock_skew: Duration::from_secs(60),
            algorithms,
        }
    }
}

/// A token that is valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The rule that it is valid for.
    pub provider: Arc<TokenProvider>,
    /// Where it stood.
    pub place: Place,
    /// Its claims.
    pub payload: Value,
    /// Its claims as they stood in it, base64url.
    pub payload_text: String,
}

/// What a request's tokens come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// There is none.
    Absent,
    /// All of them are valid; the first is the one that Envoy would go by.
    Valid(Vec<Verified>),
    /// One of them is not.
    Invalid(TokenError),
}

/// Verifies tokens by the issuers' keys.
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: Keys,
    options: Arc<Options>,
    clock: fn() -> SystemTime,
}

/// A first look, which waits for nothing.
enum Look {
    Done(Outcome),
    /// The same look may end better once these have been renewed.
    Renew(Outcome, Vec<Arc<Source>>),
}

impl Verifier {
    /// A verifier that tells the time by `clock`.
    #[must_use]
    pub fn new(keys: Keys, options: Options, clock: fn() -> SystemTime) -> Self {
        crypto::install();
        Self {
            keys,
            options: Arc::new(options),
            clock,
        }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Verifies every token of a request. Waits only where keys are missing, and not for long.
    pub async fn verify(&self, rules: &TokenRules, http: &Http) -> Outcome {
        let (outcome, sources) = match self.look(rules, http) {
            Look::Done(outcome) => return outcome,
            Look::Renew(outcome, sources) => (outcome, sources),
        };
        let mut renewed = false;
        for source in sources {
            if self.keys.may_renew(&source) {
                self.keys.renew(&source).await;
                renewed = true;
            }
        }
        if !renewed {
            return outcome;
        }
        match self.look(rules, http) {
            Look::Done(outcome) | Look::Renew(outcome, _) => outcome,
        }
    }

    fn look(&self, rules: &TokenRules, http: &Http) -> Look {
        // Browsers send no credentials with a preflight.
        if is_cors_preflight(http) {
            return Look::Done(Outcome::Absent);
        }
        let mut pairs: Vec<(usize, &Arc<TokenProvider>, place::Found)> = Vec::new();
        for (order, provider) in rules.providers().iter().enumerate() {
            for found in place::tokens(&provider.rule, http) {
                pairs.push((order, provider, found));
            }
        }
        if pairs.len() > MOST_PAIRS {
            return Look::Done(Outcome::Invalid(TokenError::TooMany));
        }
        if pairs.is_empty() {
            return Look::Done(Outcome::Absent);
        }
        let now = (self.clock)();
        let mut valid: Vec<(usize, Verified)> = Vec::new();
        let mut failed: Option<TokenError> = None;
        let mut renew: Vec<Arc<Source>> = Vec::new();
        let places: BTreeSet<&Place> = pairs.iter().map(|(_, _, found)| &found.place).collect();
        for place in places {
            let mut error = None;
            let mut passed = false;
            for (order, provider, found) in pairs.iter().filter(|(_, _, f)| f.place == *place) {
                match self.one(provider, found, now, &mut renew) {
                    Ok(verified) => {
                        passed = true;
                        valid.push((*order, verified));
                        break;
                    }
                    Err(why) => error = Some(closer(error, why)),
                }
            }
            if !passed {
                failed = failed.or(error);
            }
        }
        match failed {
            None => {
                valid.sort_by_key(|(order, _)| *order);
                let valid = valid.into_iter().map(|(_, verified)| verified).collect();
                Look::Done(Outcome::Valid(valid))
            }
            Some(error) if renew.is_empty() => Look::Done(Outcome::Invalid(error)),
            Some(error) => Look::Renew(Outcome::Invalid(error), renew),
        }
    }

    fn one(
        &self,
        provider: &Arc<TokenProvider>,
        found: &place::Found,
        now: SystemTime,
        renew: &mut Vec<Arc<Source>>,
    ) -> Result<Verified, TokenError> {
        let text = found.text.as_deref().ok_or(TokenError::Several)?;
        let token = Jws::parse(text)?;
        if !self.options.algorithms.contains(&token.algorithm) {
            return Err(TokenError::AlgorithmNotAllowed);
        }
        let rule = &provider.rule;
        claims::check_time(&token.payload, now, self.options.clock_skew)?;
        let issuer = rule.issuer.value.as_str();
        if !issuer.is_empty() && token.issuer() != issuer {
            return Err(TokenError::Issuer);
        }
        let wanted = rule
            .audiences
            .iter()
            .map(|audience| audience.value.as_str());
        claims::check_audience(&token.payload, wanted)?;
        let source = self.keys.source(rule);
        let Some(keys) = source.keys(self.keys.lifetimes()) else {
            renew.push(source);
            return Err(TokenError::NoKeys);
        };
        match keys.verify(&token) {
            Signature::Valid => {}
            Signature::Invalid => return Err(TokenError::Signature),
            Signature::NoKey => {
                renew.push(source);
                return Err(TokenError::UnknownKey);
            }
        }
        Ok(Verified {
            provider: Arc::clone(provider),
            place: found.place.clone(),
            payload_text: token.payload_text.to_owned(),
            payload: Value::Object(token.payload),
        })
    }
}

/// Of two reasons the one that tells more: another issuer's rule says nothing about the token.
fn closer(first: Option<TokenError>, second: TokenError) -> TokenError {
    match first {
        None | Some(TokenError::Issuer) => second,
        Some(first) => first,
    }
}

#[cfg(test)]
mod tests;
