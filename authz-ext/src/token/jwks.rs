//! A JSON Web Key Set (RFC 7517), as far as keys that verify signatures go.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::{Map, Value};

use super::crypto::ALGORITHMS;
use super::json;
use super::jws::Jws;

/// Keys of one set that are kept; more make verification slow, and no issuer has them.
const MOST_KEYS: usize = 64;

/// What the keys of a set are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Tokens of an issuer: `use` is absent or `sig`.
    Issuer,
    /// JWT-SVIDs: `use` is `jwt-svid` and `kid` is there (SPIFFE bundle, section 4.2.3.1 and
    /// JWT-SVID section 5).
    JwtSvid,
}

/// The public keys of one issuer.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    /// The only algorithm that the issuer uses it with, where it says so.
    algorithm: Option<Algorithm>,
    curve: Option<Curve>,
    key: DecodingKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

/// What a key set makes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// One of the keys made it.
    Valid,
    /// The named key did not make it.
    Invalid,
    /// No key can have made it: another set may have one.
    NoKey,
}

impl KeySet {
    /// Reads a set, or one key alone as Istio takes it. Keys of a kind that we do not verify with are
    /// left out, so that an issuer may have them. A set may be empty: its issuer has revoked every key.
    ///
    /// # Errors
    /// In words, when it is no set and no key.
    pub fn parse(text: &[u8], purpose: Purpose) -> Result<Self, String> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let set = json::object(text).ok_or("it is no JSON object, or has a name twice")?;
        let listed = match set.get("keys") {
            Some(Value::Array(keys)) => keys.iter().filter_map(Value::as_object).collect(),
            Some(_) => return Err("`keys` is no list".to_owned()),
            None => vec![&set],
        };
        let keys: Vec<Key> = listed
            .into_iter()
            .filter(|key| suits(key, purpose))
            .filter_map(Key::read)
            .collect();
        if keys.is_empty() && !set.contains_key("keys") {
            return Err(
                "it has no `keys`, and is no key that verifies RS, PS, ES256, ES384 or EdDSA"
                    .to_owned(),
            );
        }
        if keys.len() > MOST_KEYS {
            return Err(format!("it has more than {MOST_KEYS} keys"));
        }
        Ok(Self { keys })
    }

    /// Number of usable keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True without any usable key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether one of the keys signed the token: those with its `kid`, and those without any.
    #[must_use]
    pub fn verify(&self, token: &Jws<'_>) -> Signature {
        let fits = |key: &&Key| {
            let id = match (&token.key_id, &key.id) {
                (Some(wanted), Some(id)) => wanted == id,
                _ => true,
            };
            id && key.fits(token.algorithm)
        };
        let mut named = false;
        for key in self.keys.iter().filter(fits) {
            if token.is_signed_by(&key.key) {
                return Signature::Valid;
            }
            named |= token.key_id.is_some() && key.id.is_some();
        }
        if named {
            Signature::Invalid
        } else {
            Signature::NoKey
        }
    }
}

impl Key {
    /// `None` for a key that we do not verify with.
    fn read(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| decode(text(name)?);
        let (key, curve) = match text("kty")? {
            "RSA" => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                // ring refuses numbers with a zero in front, which some issuers write.
                let (n, e) = (unpadded(&n), unpadded(&e));
                (DecodingKey::from_rsa_raw_components(n, e), None)
            }
            "EC" => {
                let (curve, size) = match text("crv")? {
                    "P-256" => (Curve::P256, 32),
                    "P-384" => (Curve::P384, 48),
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != size || y.len() != size {
                    return None;
                }
                // An uncompressed point (SEC 1, section 2.3.3).
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                (DecodingKey::from_ec_der(&point), Some(curve))
            }
            "OKP" if text("crv")? == "Ed25519" => {
                let x = bytes("x").filter(|x| x.len() == 32)?;
                (DecodingKey::from_ed_der(&x), None)
            }
            _ => return None,
        };
        let algorithm = match text("alg") {
            None => None,
            Some(name) => {
                let known = ALGORITHMS.iter().find(|(known, _)| *known == name);
                // A key for an algorithm that we do not verify is no key.
                Some(known?.1)
            }
        };
        Some(Self {
            id: text("kid").map(str::to_owned),
            algorithm,
            curve,
            key,
        })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let curve = match algorithm {
            Algorithm::ES256 => self.curve == Some(Curve::P256),
            Algorithm::ES384 => self.curve == Some(Curve::P384),
            _ => self.key.family() != AlgorithmFamily::Ec,
        };
        curve
            && self.key.family() == algorithm.family()
            && self.algorithm.is_none_or(|only| only == algorithm)
    }
}

fn suits(key: &Map<String, Value>, purpose: Purpose) -> bool {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    match purpose {
        Purpose::Issuer => !key.contains_key("use") || text("use") == Some("sig"),
        Purpose::JwtSvid => text("use") == Some("jwt-svid") && text("kid").is_some(),
    }
}

/// Base64url without padding (RFC 7517), and the plain alphabet and padding that some issuers write.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    URL_SAFE_NO_PAD
        .decode(text)
        .or_else(|_| STANDARD_NO_PAD.decode(text))
        .ok()
}

fn unpadded(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|b| *b != 0).unwrap_or(number.len());
    number.get(start..).unwrap_or_default()
}
