//! Certificate signing requests (PKCS #10): the public key and the proof of possession, nothing else.
//!
//! Whatever else a CSR asks for (CA rights, key usages, lifetimes) is not even read. The one exception
//! has its own call: minting names the SPIFFE ID in the CSR's SANs, because that API has no field for it.

use bytes::Bytes;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificate::LeafKey;
use crate::trust_domain::shorten;

/// Longest CSR that is read, bytes: one with a 2048-byte SPIFFE ID, an 8192-bit RSA key and 100 DNS names fits.
pub const MAX_CSR: usize = 32 << 10;

/// A public key whose owner has shown to hold the private one, or that we made ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenKey {
    /// SubjectPublicKeyInfo, DER, byte by byte as it came.
    spki: Bytes,
    /// Bits of the key within it.
    bits: Bytes,
    kind: LeafKey,
}

/// SANs that a CSR for minting names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedNames {
    /// URI SANs.
    pub uris: Vec<String>,
    /// DNS SANs.
    pub dns_names: Vec<String>,
}

/// A CSR that nothing is issued for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Too long to be read.
    #[error("the CSR has {0} bytes, at most 32768 are read")]
    TooLong(usize),
    /// Not PKCS #10, or something after it.
    #[error("malformed CSR: {0}")]
    Malformed(&'static str),
    /// A key that no SVID gets.
    #[error(
        "the CSR's key is {0}: ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits is accepted"
    )]
    Key(String),
    /// A signature algorithm that does not go with the key.
    #[error("the CSR is signed with algorithm `{0}`, which is not accepted for its key")]
    Algorithm(String),
    /// The signature is wrong: no proof of possession.
    #[error("the CSR's signature does not verify: the private key is another one")]
    Signature,
}

impl ProvenKey {
    /// Reads a CSR, DER, and verifies that its owner has the private key.
    ///
    /// # Errors
    /// When it is too long or malformed, its key is none that SVIDs have, or the signature is wrong.
    pub fn from_csr(csr: &[u8]) -> Result<Self, CsrError> {
        Self::from_parsed(&parse(csr)?)
    }

    /// The same, and the names that the CSR asks for: read once.
    ///
    /// # Errors
    /// As [`ProvenKey::from_csr`].
    pub fn with_names(csr: &[u8]) -> Result<(Self, RequestedNames), CsrError> {
        let parsed = parse(csr)?;
        let key = Self::from_parsed(&parsed)?;
        Ok((key, RequestedNames::from_parsed(&parsed)))
    }

    fn from_parsed(parsed: &X509CertificationRequest<'_>) -> Result<Self, CsrError> {
        let info = &parsed.certification_request_info;
        let key = Self::from_spki_parsed(&info.subject_pki)?;
        let scheme = scheme(parsed, &key)?;
        UnparsedPublicKey::new(scheme, &key.bits)
            .verify(info.raw, &parsed.signature_value.data)
            .map_err(|_| CsrError::Signature)?;
        Ok(key)
    }

    /// A public key that was made here: SubjectPublicKeyInfo, DER.
    ///
    /// # Errors
    /// When it is none that SVIDs have.
    pub fn made_here(spki: &[u8]) -> Result<Self, CsrError> {
        match SubjectPublicKeyInfo::from_der(spki) {
            Ok(([], parsed)) => Self::from_spki_parsed(&parsed),
            _ => Err(CsrError::Malformed("the public key is no DER")),
        }
    }

    fn from_spki_parsed(parsed: &SubjectPublicKeyInfo<'_>) -> Result<Self, CsrError> {
        let parameters = parsed.algorithm.parameters.as_ref();
        let curve = parameters
            .and_then(|parameters| parameters.as_oid().ok())
            .map(|oid| oid.to_id_string());
        let unusable = |what: &str| Err(CsrError::Key(what.to_owned()));
        let kind = match parsed.parsed() {
            Ok(PublicKey::EC(point)) => match (curve.as_deref(), point.data().len()) {
                (Some("1.2.840.10045.3.1.7"), 65) | (Some("1.3.132.0.34"), 97) => LeafKey::Ec,
                (Some("1.3.132.0.35"), _) => return unusable("ECDSA on P-521"),
                _ => return unusable("ECDSA on another curve, or a compressed point"),
            },
            Ok(PublicKey::RSA(key)) => {
                // The first zero byte of an INTEGER is its sign.
                let modulus = key.modulus.strip_prefix(&[0]).unwrap_or(key.modulus);
                match modulus.len() * 8 {
                    2048..=8192 if key.exponent.len() <= 5 => LeafKey::Rsa,
                    bits => {
                        return unusable(&format!("RSA of {bits} bits, or with an odd exponent"));
                    }
                }
            }
            Ok(PublicKey::Unknown(bits))
                if bits.len() == 32
                    && parsed.algorithm.algorithm.to_id_string() == "1.3.101.112" =>
            {
                LeafKey::Ed25519
            }
            Ok(_) => return unusable("of another kind"),
            Err(_) => return Err(CsrError::Malformed("the public key is no DER")),
        };
        Ok(Self {
            spki: Bytes::copy_from_slice(parsed.raw),
            bits: Bytes::copy_from_slice(&parsed.subject_public_key.data),
            kind,
        })
    }

    /// SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> &Bytes {
        &self.spki
    }

    /// Bits of the key within it.
    #[must_use]
    pub fn bits(&self) -> &Bytes {
        &self.bits
    }

    /// What kind of key it is.
    #[must_use]
    pub fn kind(&self) -> LeafKey {
        self.kind
    }
}

impl RequestedNames {
    /// The SANs that a CSR names; other kinds of names are passed over.
    ///
    /// # Errors
    /// When it is no CSR.
    pub fn from_csr(csr: &[u8]) -> Result<Self, CsrError> {
        Ok(Self::from_parsed(&parse(csr)?))
    }

    fn from_parsed(parsed: &X509CertificationRequest<'_>) -> Self {
        let mut names = Self::default();
        for extension in parsed.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(alternatives) = extension else {
                continue;
            };
            for name in &alternatives.general_names {
                match name {
                    GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                    GeneralName::DNSName(dns) => names.dns_names.push((*dns).to_owned()),
                    _ => {}
                }
            }
        }
        names
    }
}

fn parse(csr: &[u8]) -> Result<X509CertificationRequest<'_>, CsrError> {
    if csr.len() > MAX_CSR {
        return Err(CsrError::TooLong(csr.len()));
    }
    match X509CertificationRequest::from_der(csr) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(CsrError::Malformed("there is something after it")),
        Err(_) if csr.starts_with(b"-----") => {
            Err(CsrError::Malformed("it is PEM, and DER is expected"))
        }
        Err(_) => Err(CsrError::Malformed("it is no PKCS #10 in DER")),
    }
}

/// The key's own kind and the signature algorithm, together: a hash says nothing of the curve.
fn scheme(
    csr: &X509CertificationRequest<'_>,
    key: &ProvenKey,
) -> Result<&'static dyn VerificationAlgorithm, CsrError> {
    let algorithm = csr.signature_algorithm.algorithm.to_id_string();
    let is_p256 = key.bits.len() == 65;
    Ok(match (key.kind, algorithm.as_str()) {
        (LeafKey::Ec, "1.2.840.10045.4.3.2") if is_p256 => &signature::ECDSA_P256_SHA256_ASN1,
        (LeafKey::Ec, "1.2.840.10045.4.3.3") if is_p256 => &signature::ECDSA_P256_SHA384_ASN1,
        (LeafKey::Ec, "1.2.840.10045.4.3.2") => &signature::ECDSA_P384_SHA256_ASN1,
        (LeafKey::Ec, "1.2.840.10045.4.3.3") => &signature::ECDSA_P384_SHA384_ASN1,
        (LeafKey::Ed25519, "1.3.101.112") => &signature::ED25519,
        (LeafKey::Rsa, "1.2.840.113549.1.1.11") => &signature::RSA_PKCS1_2048_8192_SHA256,
        (LeafKey::Rsa, "1.2.840.113549.1.1.12") => &signature::RSA_PKCS1_2048_8192_SHA384,
        (LeafKey::Rsa, "1.2.840.113549.1.1.13") => &signature::RSA_PKCS1_2048_8192_SHA512,
        _ => return Err(CsrError::Algorithm(shorten(&algorithm))),
    })
}

#[cfg(test)]
mod tests;
