//! Private keys of authorities and of SVIDs.
//!
//! [`SigningKey`] is the one door to a private key. Its call is asynchronous, because a key may live
//! in a device; those of this module are in memory and answer at once. [`disk`] keeps such keys in
//! encrypted files.

pub mod disk;
pub mod pem;

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use zeroize::Zeroizing;

use crate::der;

/// What kind of key it is, and with it how it signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256 with SHA-256: the default.
    P256,
    /// ECDSA on NIST P-384 with SHA-384.
    P384,
    /// Ed25519: for X.509 alone (JWT-SVID §2.1 has no EdDSA).
    Ed25519,
    /// RSA with PKCS #1 padding and SHA-256: imported only.
    Rsa,
}

/// A word that names no key algorithm that we make keys for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no key type that can be made here: `ec-p256`, `ec-p384` or `ed25519`{hint}", hint = hint(.0))]
pub struct UnknownKeyAlgorithm(String);

fn hint(word: &str) -> &'static str {
    let word = word.to_ascii_lowercase();
    if word.starts_with("rsa") {
        "; RSA keys are imported"
    } else if word.contains("521") {
        "; P-521 and ES512 are not supported"
    } else {
        ""
    }
}

impl KeyAlgorithm {
    /// The word in configuration, journal and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "ec-p256",
            Self::P384 => "ec-p384",
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
        }
    }

    /// The `AlgorithmIdentifier` of its signatures, DER (RFC 5758, RFC 8410, RFC 4055).
    pub(crate) fn signature_identifier(self) -> Vec<u8> {
        match self {
            // ecdsa-with-SHA256 and -SHA384: no parameters.
            Self::P256 => der::sequence(&[der::object_id(&[
                0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
            ])]),
            Self::P384 => der::sequence(&[der::object_id(&[
                0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03,
            ])]),
            Self::Ed25519 => der::sequence(&[der::object_id(&[0x2b, 0x65, 0x70])]),
            // sha256WithRSAEncryption: NULL parameters.
            Self::Rsa => der::sequence(&[
                der::object_id(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b]),
                der::null(),
            ]),
        }
    }

    /// The `AlgorithmIdentifier` of its public keys, DER.
    fn key_identifier(self) -> Vec<u8> {
        let ec_public_key = || der::object_id(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]);
        match self {
            Self::P256 => der::sequence(&[
                ec_public_key(),
                der::object_id(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]),
            ]),
            Self::P384 => der::sequence(&[
                ec_public_key(),
                der::object_id(&[0x2b, 0x81, 0x04, 0x00, 0x22]),
            ]),
            Self::Ed25519 => self.signature_identifier(),
            Self::Rsa => der::sequence(&[
                der::object_id(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]),
                der::null(),
            ]),
        }
    }
}

impl FromStr for KeyAlgorithm {
    type Err = UnknownKeyAlgorithm;

    fn from_str(word: &str) -> Result<Self, UnknownKeyAlgorithm> {
        match word {
            "ec-p256" => Ok(Self::P256),
            "ec-p384" => Ok(Self::P384),
            "ed25519" => Ok(Self::Ed25519),
            _ => Err(UnknownKeyAlgorithm(word.to_owned())),
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key that could not be made, read, stored or used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The random source or the device failed.
    #[error("the key cannot be made: the random source failed")]
    Generate,
    /// Not PKCS#8, or a kind that cannot be used.
    #[error("the private key is unusable: {0}")]
    Unusable(String),
    /// Signing failed.
    #[error("the key cannot sign: {0}")]
    Sign(String),
    /// A key file could not be read or written.
    #[error("key file `{path}`: {cause}")]
    File {
        /// Which.
        path: String,
        /// Why.
        cause: String,
    },
}

/// A private key that signs.
#[async_trait]
pub trait SigningKey: Send + Sync {
    /// What kind of key it is.
    fn algorithm(&self) -> KeyAlgorithm;

    /// SubjectPublicKeyInfo, DER.
    fn public_key(&self) -> &Bytes;

    /// Signs `message`; ECDSA signatures are the DER of X.509 (RFC 3279 §2.2.3).
    ///
    /// # Errors
    /// When the key cannot be reached or refuses.
    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;
}

/// A key in this process's memory; PKCS#8 is overwritten when it is dropped.
pub struct MemoryKey {
    pair: Pair,
    public_key: Bytes,
    pkcs8: Zeroizing<Vec<u8>>,
    random: SystemRandom,
}

enum Pair {
    Ecdsa(KeyAlgorithm, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl MemoryKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the random source fails, or for RSA, which is imported only.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let pkcs8 = match algorithm {
            KeyAlgorithm::P256 => {
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            }
            KeyAlgorithm::P384 => {
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &random)
            }
            // The first form of PKCS#8, which OpenSSL, Go and Java read.
            KeyAlgorithm::Ed25519 => return Self::generate_ed25519(&random),
            KeyAlgorithm::Rsa => {
                return Err(KeyError::Unusable("RSA keys are imported only".to_owned()));
            }
        }
        .map_err(|_| KeyError::Generate)?;
        Self::from_pkcs8(Zeroizing::new(pkcs8.as_ref().to_vec()))
    }

    fn generate_ed25519(random: &SystemRandom) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0u8; 32]);
        ring::rand::SecureRandom::fill(random, seed.as_mut()).map_err(|_| KeyError::Generate)?;
        let inner = Zeroizing::new(der::value(0x04, seed.as_ref()));
        let pkcs8 = Zeroizing::new(der::sequence(&[
            der::unsigned(&[0]),
            KeyAlgorithm::Ed25519.signature_identifier(),
            der::value(0x04, &inner),
        ]));
        Self::from_pkcs8(pkcs8)
    }

    /// Reads PKCS#8, DER: ECDSA on P-256 or P-384, Ed25519, RSA of 2048 to 8192 bits.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let ecdsa = |algorithm, scheme| {
            EcdsaKeyPair::from_pkcs8(scheme, &pkcs8, &random)
                .ok()
                .map(|pair| Pair::Ecdsa(algorithm, pair))
        };
        let pair = ecdsa(KeyAlgorithm::P256, &ECDSA_P256_SHA256_ASN1_SIGNING)
            .or_else(|| ecdsa(KeyAlgorithm::P384, &ECDSA_P384_SHA384_ASN1_SIGNING))
            .or_else(|| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).ok().map(Pair::Ed25519))
            .or_else(|| RsaKeyPair::from_pkcs8(&pkcs8).ok().map(Pair::Rsa))
            .ok_or_else(|| {
                KeyError::Unusable(
                    "it is no PKCS#8 with ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 bits and more"
                        .to_owned(),
                )
            })?;
        let (algorithm, public): (_, &[u8]) = match &pair {
            Pair::Ecdsa(algorithm, pair) => (*algorithm, pair.public_key().as_ref()),
            Pair::Ed25519(pair) => (KeyAlgorithm::Ed25519, pair.public_key().as_ref()),
            Pair::Rsa(pair) => (KeyAlgorithm::Rsa, pair.public_key().as_ref()),
        };
        let public_key = der::sequence(&[algorithm.key_identifier(), der::bit_string(public)]);
        Ok(Self {
            public_key: public_key.into(),
            pair,
            pkcs8,
            random,
        })
    }

    /// The private key, PKCS#8 DER.
    #[must_use]
    pub fn pkcs8(&self) -> &Zeroizing<Vec<u8>> {
        &self.pkcs8
    }

    /// Signs at once: nothing here waits.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn sign_now(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError::Sign("the random source failed".to_owned());
        match &self.pair {
            Pair::Ecdsa(_, pair) => pair
                .sign(&self.random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(failed),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

#[async_trait]
impl SigningKey for MemoryKey {
    fn algorithm(&self) -> KeyAlgorithm {
        match &self.pair {
            Pair::Ecdsa(algorithm, _) => *algorithm,
            Pair::Ed25519(_) => KeyAlgorithm::Ed25519,
            Pair::Rsa(_) => KeyAlgorithm::Rsa,
        }
    }

    fn public_key(&self) -> &Bytes {
        &self.public_key
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sign_now(message)
    }
}

/// The key stays out of logs.
impl fmt::Debug for MemoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKey")
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

/// Verifies a signature that `signer` made; the check after every signature that leaves a device.
pub(crate) fn verify(
    algorithm: KeyAlgorithm,
    public_point: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let scheme: &dyn signature::VerificationAlgorithm = match algorithm {
        KeyAlgorithm::P256 => &signature::ECDSA_P256_SHA256_ASN1,
        KeyAlgorithm::P384 => &signature::ECDSA_P384_SHA384_ASN1,
        KeyAlgorithm::Ed25519 => &signature::ED25519,
        KeyAlgorithm::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
    };
    signature::UnparsedPublicKey::new(scheme, public_point)
        .verify(message, signature)
        .is_ok()
}

/// An ECDSA signature of X.509 as the two numbers of a JWS, `size` bytes each (RFC 7518 §3.4).
pub(crate) fn ecdsa_fixed(der: &[u8], size: usize) -> Option<Vec<u8>> {
    // SEQUENCE, short length; INTEGER r; INTEGER s. Two numbers of 48 bytes stay below 128.
    let [0x30, length, rest @ ..] = der else {
        return None;
    };
    if usize::from(*length) != rest.len() {
        return None;
    }
    let (r, rest) = integer(rest)?;
    let (s, rest) = integer(rest)?;
    if !rest.is_empty() || r.len() > size || s.len() > size {
        return None;
    }
    let mut out = vec![0; 2 * size];
    out.get_mut(size - r.len()..size)?.copy_from_slice(r);
    out.get_mut(2 * size - s.len()..)?.copy_from_slice(s);
    Some(out)
}

fn integer(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x02, length, rest @ ..] = der else {
        return None;
    };
    let (number, rest) = rest.split_at_checked(usize::from(*length))?;
    let number = number.strip_prefix(&[0]).unwrap_or(number);
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(key: &MemoryKey) -> Vec<u8> {
        use x509_parser::prelude::FromDer as _;
        let (_, spki) =
            x509_parser::x509::SubjectPublicKeyInfo::from_der(key.public_key()).unwrap();
        spki.subject_public_key.data.to_vec()
    }

    #[test]
    fn what_a_key_signs_its_public_key_verifies() {
        for algorithm in [
            KeyAlgorithm::P256,
            KeyAlgorithm::P384,
            KeyAlgorithm::Ed25519,
        ] {
            let key = MemoryKey::generate(algorithm).unwrap();
            let signature = key.sign_now(b"message").unwrap();
            assert!(verify(algorithm, &point(&key), b"message", &signature));
            assert!(!verify(algorithm, &point(&key), b"massage", &signature));
            let again = MemoryKey::from_pkcs8(key.pkcs8().clone()).unwrap();
            assert_eq!(again.algorithm(), algorithm);
            assert_eq!(again.public_key(), key.public_key());
        }
    }

    #[test]
    fn a_fixed_signature_keeps_both_numbers_whatever_their_length() {
        let key = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
        let public =
            signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point(&key));
        // Short numbers appear about once in 128 signatures.
        for round in 0..600u32 {
            let message = round.to_be_bytes();
            let fixed = ecdsa_fixed(&key.sign_now(&message).unwrap(), 32).unwrap();
            assert_eq!(fixed.len(), 64);
            assert!(public.verify(&message, &fixed).is_ok());
        }
        for garbage in [
            &b""[..],
            b"\x30",
            b"\x30\x06\x02\x01\x01\x02\x09\x01",
            b"\x30\x03\x02\x01\x01",
        ] {
            assert_eq!(ecdsa_fixed(garbage, 32), None);
        }
    }

    #[test]
    fn keys_that_cannot_be_made_are_refused_by_name() {
        assert!(MemoryKey::generate(KeyAlgorithm::Rsa).is_err());
        for (word, told) in [
            ("rsa-2048", "imported"),
            ("ec-p521", "P-521"),
            ("x", "ec-p256"),
        ] {
            let error = word.parse::<KeyAlgorithm>().unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        assert!(MemoryKey::from_pkcs8(Zeroizing::new(vec![0x30, 0])).is_err());
    }

    #[test]
    fn a_key_says_nothing_of_itself_in_a_log() {
        let key = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
        assert_eq!(format!("{key:?}"), "MemoryKey { algorithm: P256, .. }");
    }
}
