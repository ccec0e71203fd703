//! Public keys of JWT authorities: as JWK (RFC 7517, 7518) and as SubjectPublicKeyInfo (RFC 5280).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Map, Value};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::der;

/// A public key that JWT-SVIDs can be verified with (JWT-SVID §2.1: RS, PS and ES algorithms).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwtKey {
    kind: JwtKeyKind,
    spki: Bytes,
}

/// What kind of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwtKeyKind {
    /// ECDSA on NIST P-256, for ES256.
    P256,
    /// ECDSA on NIST P-384, for ES384.
    P384,
    /// ECDSA on NIST P-521, for ES512: kept for others, never used by us.
    P521,
    /// RSA, for RS256 to PS512.
    Rsa,
}

/// A public key that cannot be that of a JWT authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtKeyError {
    /// Not DER, or something after it.
    #[error("the public key is no SubjectPublicKeyInfo in DER")]
    NotSpki,
    /// Another kind of key.
    #[error("the public key is neither RSA nor ECDSA on P-256, P-384 or P-521 (JWT-SVID §2.1)")]
    Kind,
    /// A JWK that lacks a parameter or has an unusable one.
    #[error("the JWK's `{0}` is missing, no base64url, or of the wrong length")]
    Parameter(&'static str),
}

impl JwtKeyKind {
    /// `crv` and the bytes of a coordinate.
    fn curve(self) -> Option<(&'static str, usize)> {
        match self {
            Self::P256 => Some(("P-256", 32)),
            Self::P384 => Some(("P-384", 48)),
            Self::P521 => Some(("P-521", 66)),
            Self::Rsa => None,
        }
    }

    fn of_curve(name: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521]
            .into_iter()
            .find(|kind| kind.curve().is_some_and(|(curve, _)| curve == name))
    }
}

impl JwtKey {
    /// Reads a SubjectPublicKeyInfo, DER.
    ///
    /// # Errors
    /// When it is none, or of a kind that JWT-SVIDs do not allow.
    pub fn from_spki(spki: &[u8]) -> Result<Self, JwtKeyError> {
        let (rest, parsed) =
            SubjectPublicKeyInfo::from_der(spki).map_err(|_| JwtKeyError::NotSpki)?;
        if !rest.is_empty() {
            return Err(JwtKeyError::NotSpki);
        }
        let kind = match parsed.parsed().map_err(|_| JwtKeyError::NotSpki)? {
            PublicKey::RSA(_) => JwtKeyKind::Rsa,
            PublicKey::EC(point) => {
                let kind = parsed
                    .algorithm
                    .parameters
                    .as_ref()
                    .and_then(|parameters| parameters.as_oid().ok())
                    .and_then(|oid| match oid.to_id_string().as_str() {
                        "1.2.840.10045.3.1.7" => Some(JwtKeyKind::P256),
                        "1.3.132.0.34" => Some(JwtKeyKind::P384),
                        "1.3.132.0.35" => Some(JwtKeyKind::P521),
                        _ => None,
                    })
                    .ok_or(JwtKeyError::Kind)?;
                // Uncompressed points only: 0x04, x, y.
                let length = kind.curve().map_or(0, |(_, size)| 1 + 2 * size);
                if point.data().len() != length || point.data().first() != Some(&4) {
                    return Err(JwtKeyError::Kind);
                }
                kind
            }
            _ => return Err(JwtKeyError::Kind),
        };
        Ok(Self {
            kind,
            spki: Bytes::copy_from_slice(spki),
        })
    }

    /// Reads the parameters of a JWK: `kty` and what belongs to it.
    ///
    /// # Errors
    /// When a parameter is missing or unusable, or the kind is none that JWT-SVIDs allow.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, JwtKeyError> {
        let spki = match text(jwk, "kty")? {
            "EC" => {
                let kind = JwtKeyKind::of_curve(text(jwk, "crv")?).ok_or(JwtKeyError::Kind)?;
                let size = kind.curve().map_or(0, |(_, size)| size);
                let (x, y) = (number(jwk, "x")?, number(jwk, "y")?);
                if x.len() != size {
                    return Err(JwtKeyError::Parameter("x"));
                }
                if y.len() != size {
                    return Err(JwtKeyError::Parameter("y"));
                }
                let curve: &[u8] = match kind {
                    JwtKeyKind::P256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
                    JwtKeyKind::P384 => &[0x2b, 0x81, 0x04, 0x00, 0x22],
                    _ => &[0x2b, 0x81, 0x04, 0x00, 0x23],
                };
                let algorithm = der::sequence(&[
                    // id-ecPublicKey, 1.2.840.10045.2.1
                    der::object_id(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]),
                    der::object_id(curve),
                ]);
                der::sequence(&[
                    algorithm,
                    der::bit_string(&[&[4][..], x.as_slice(), y.as_slice()].concat()),
                ])
            }
            "RSA" => {
                let key = der::sequence(&[
                    der::unsigned(&number(jwk, "n")?),
                    der::unsigned(&number(jwk, "e")?),
                ]);
                let algorithm = der::sequence(&[
                    // rsaEncryption, 1.2.840.113549.1.1.1
                    der::object_id(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]),
                    der::null(),
                ]);
                der::sequence(&[algorithm, der::bit_string(&key)])
            }
            _ => return Err(JwtKeyError::Kind),
        };
        Self::from_spki(&spki)
    }

    /// What kind of key it is.
    #[must_use]
    pub fn kind(&self) -> JwtKeyKind {
        self.kind
    }

    /// SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> &Bytes {
        &self.spki
    }

    /// The key as JWK parameters, with `kid`; `use` is the caller's business.
    #[must_use]
    pub fn to_jwk(&self, key_id: &str) -> Map<String, Value> {
        let mut jwk = key_parameters(&self.spki).unwrap_or_default();
        jwk.insert("kid".to_owned(), key_id.into());
        jwk
    }
}

/// `kty` and the key's own parameters, of any key that a JWK can hold: RSA, the NIST curves, Ed25519.
pub(crate) fn key_parameters(spki: &[u8]) -> Option<Map<String, Value>> {
    let (_, parsed) = SubjectPublicKeyInfo::from_der(spki).ok()?;
    let mut jwk = Map::new();
    let mut put = |name: &str, value: Value| jwk.insert(name.to_owned(), value);
    let encoded = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
    match parsed.parsed().ok()? {
        PublicKey::RSA(key) => {
            put("kty", "RSA".into());
            put("n", encoded(without_sign(key.modulus)));
            put("e", encoded(without_sign(key.exponent)));
        }
        PublicKey::EC(point) => {
            let curve = match point.data().len() {
                65 => "P-256",
                97 => "P-384",
                133 => "P-521",
                _ => return None,
            };
            let coordinates = point.data().get(1..)?;
            let (x, y) = coordinates.split_at_checked(coordinates.len() / 2)?;
            put("kty", "EC".into());
            put("crv", curve.into());
            put("x", encoded(x));
            put("y", encoded(y));
        }
        // RFC 8037; x509-parser has no name for Ed25519 (1.3.101.112).
        PublicKey::Unknown(point) if parsed.algorithm.algorithm.to_id_string() == "1.3.101.112" => {
            put("kty", "OKP".into());
            put("crv", "Ed25519".into());
            put("x", encoded(point));
        }
        _ => return None,
    }
    Some(jwk)
}

fn without_sign(integer: &[u8]) -> &[u8] {
    match integer {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    }
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, JwtKeyError> {
    jwk.get(name)
        .and_then(Value::as_str)
        .ok_or(JwtKeyError::Parameter(name))
}

fn number(jwk: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, JwtKeyError> {
    URL_SAFE_NO_PAD
        .decode(text(jwk, name)?)
        .ok()
        .filter(|bytes| !bytes.is_empty())
        .ok_or(JwtKeyError::Parameter(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    };

    #[test]
    fn an_ec_key_survives_the_way_there_and_back() {
        let random = ring::rand::SystemRandom::new();
        for (algorithm, curve) in [
            (&ECDSA_P256_SHA256_ASN1_SIGNING, "P-256"),
            (&ECDSA_P384_SHA384_ASN1_SIGNING, "P-384"),
        ] {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
            let point = pair.public_key().as_ref();
            let (x, y) = point[1..].split_at(point.len() / 2);
            let jwk = serde_json::json!({
                "kty": "EC", "crv": curve, "kid": "k1",
                "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            });
            let key = JwtKey::from_jwk(jwk.as_object().unwrap()).unwrap();
            assert_eq!(Value::Object(key.to_jwk("k1")), jwk);
            assert_eq!(JwtKey::from_spki(key.spki()).unwrap(), key);
        }
    }

    #[test]
    fn an_rsa_key_survives_the_way_there_and_back() {
        let jwk = serde_json::json!({
            "kty": "RSA", "kid": "k2", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([0xc3; 256]),
        });
        let key = JwtKey::from_jwk(jwk.as_object().unwrap()).unwrap();
        assert_eq!(key.kind(), JwtKeyKind::Rsa);
        assert_eq!(Value::Object(key.to_jwk("k2")), jwk);
    }

    #[test]
    fn keys_that_jwt_svids_do_not_allow_are_refused() {
        for jwk in [
            serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}),
            serde_json::json!({"kty": "oct", "k": "AAAA"}),
            serde_json::json!({"kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA"}),
        ] {
            let error = JwtKey::from_jwk(jwk.as_object().unwrap()).unwrap_err();
            assert_eq!(error, JwtKeyError::Kind, "{jwk}");
        }
        let short = serde_json::json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"});
        let error = JwtKey::from_jwk(short.as_object().unwrap()).unwrap_err();
        assert_eq!(error, JwtKeyError::Parameter("x"));
        assert_eq!(JwtKey::from_spki(b"nonsense"), Err(JwtKeyError::NotSpki));
    }
}
