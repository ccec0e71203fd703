//! JSON Web Tokens for one test, signed with a key of its own.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

/// Signs tokens with ES256.
pub struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    /// A new key.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new() -> io::Result<Self> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random)
            .map_err(|_| io::Error::other("no key"))?;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random)
            .map_err(|_| io::Error::other("no key"))?;
        Ok(Self { key, random })
    }

    /// The public key, as a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 0x04, then both coordinates.
        let point = self.key.public_key().as_ref();
        let part = |range| URL_SAFE_NO_PAD.encode(point.get(range).unwrap_or_default());
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one",
            "x": part(1..33), "y": part(33..65),
        }] })
    }

    /// A token with that payload.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn sign(&self, payload: &Value) -> io::Result<String> {
        let header = json!({ "alg": "ES256", "kid": "one", "typ": "JWT" });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(payload));
        let signature = self
            .key
            .sign(&self.random, signed.as_bytes())
            .map_err(|_| io::Error::other("no signature"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
