//! The bytes of a certificate (RFC 5280 §4.1), written out.
//!
//! Names and public keys go in as the DER that they had before: nothing is read and written anew, so
//! an issuer's subject and its children's issuer are equal, and so are the key that was asked for and
//! the one that is certified.

use std::time::SystemTime;

use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use time::OffsetDateTime;

use crate::clock::{from_unix_seconds, unix_seconds};
use crate::der;
use crate::key::{KeyAlgorithm, KeyError, SigningKey};
use crate::spiffe_id::SpiffeId;

/// A serial number: 127 random bits, never 0 (RFC 5280 §4.1.2.2 asks for positive and at most 20 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Serial([u8; 16]);

impl Serial {
    /// A new one.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| KeyError::Generate)?;
        let [first, .., last] = &mut bytes;
        // The first bit is the sign; the last keeps it from being 0.
        *first &= 0x7f;
        *last |= 1;
        Ok(Self(bytes))
    }

    /// Big-endian, with leading zeros.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// As hexadecimal digits, the way `openssl x509 -serial` prints it.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    let digits = bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]);
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(digits);
    text
}

/// What a certificate is to be, before it is signed.
#[derive(Clone, Debug)]
pub struct Template<'a> {
    /// Its number.
    pub serial: Serial,
    /// Issuer's subject, DER.
    pub issuer: &'a [u8],
    /// Subject, DER.
    pub subject: &'a [u8],
    /// Start of its validity; whole seconds.
    pub not_before: SystemTime,
    /// End of its validity; whole seconds.
    pub not_after: SystemTime,
    /// SubjectPublicKeyInfo, DER, as it was handed in.
    pub public_key: &'a [u8],
    /// The URI SAN.
    pub spiffe_id: &'a SpiffeId,
    /// DNS SANs, in order.
    pub dns_names: &'a [String],
    /// A signing certificate, or a leaf.
    pub is_ca: bool,
    /// Bits of the key usage.
    pub key_usage: KeyUsage,
    /// Subject key identifier of the issuer.
    pub issuer_key_id: &'a [u8],
}

/// Bits of the key usage extension (RFC 5280 §4.2.1.3), first bit highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsage(u8);

impl KeyUsage {
    /// For signing certificates: keyCertSign and cRLSign (X509-SVID §4.3).
    pub const CA: Self = Self(0b0000_0110);

    /// For leaves: digitalSignature, and what the kind of key can do besides (X509-SVID §4.3).
    #[must_use]
    pub fn leaf(public_key: LeafKey) -> Self {
        Self(match public_key {
            LeafKey::Rsa => 0b1010_0000,
            LeafKey::Ec => 0b1000_1000,
            LeafKey::Ed25519 => 0b1000_0000,
        })
    }
}

/// Kinds of public keys that leaves may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafKey {
    /// RSA, 2048 bits and more: keyEncipherment too.
    Rsa,
    /// ECDSA: keyAgreement too.
    Ec,
    /// Ed25519.
    Ed25519,
}

/// Identifier of a key: the first 160 bits of the SHA-256 of its bits (RFC 7093 §2, method 1).
#[must_use]
pub fn key_id(public_key_bits: &[u8]) -> Vec<u8> {
    let hash = digest::digest(&digest::SHA256, public_key_bits);
    hash.as_ref().iter().take(20).copied().collect()
}

impl Template<'_> {
    /// The `TBSCertificate`, to be signed by a key of `algorithm`. `public_key_bits` are those of the
    /// subject's key.
    #[must_use]
    pub fn to_be_signed(&self, algorithm: KeyAlgorithm, public_key_bits: &[u8]) -> Vec<u8> {
        der::sequence(&[
            // version 3
            der::value(0xa0, &der::unsigned(&[2])),
            der::unsigned(self.serial.as_bytes()),
            algorithm.signature_identifier(),
            self.issuer.to_vec(),
            der::sequence(&[time(self.not_before), time(self.not_after)]),
            self.subject.to_vec(),
            self.public_key.to_vec(),
            der::value(0xa3, &der::sequence(&self.extensions(public_key_bits))),
        ])
    }

    fn extensions(&self, public_key_bits: &[u8]) -> Vec<Vec<u8>> {
        let constraints = match self.is_ca {
            true => der::sequence(&[der::value(0x01, &[0xff])]),
            false => der::sequence(&[]),
        };
        let mut extensions = vec![
            // keyUsage: present and critical (X509-SVID §4.3).
            extension(&[0x55, 0x1d, 0x0f], true, &self.key_usage.to_der()),
            // basicConstraints (X509-SVID §4.1).
            extension(&[0x55, 0x1d, 0x13], true, &constraints),
            // subjectKeyIdentifier.
            extension(
                &[0x55, 0x1d, 0x0e],
                false,
                &der::value(0x04, &key_id(public_key_bits)),
            ),
            // authorityKeyIdentifier.
            extension(
                &[0x55, 0x1d, 0x23],
                false,
                &der::sequence(&[der::value(0x80, self.issuer_key_id)]),
            ),
        ];
        if !self.is_ca {
            // extKeyUsage: serverAuth and clientAuth (X509-SVID §4.4).
            let purposes = der::sequence(&[
                der::object_id(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]),
                der::object_id(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]),
            ]);
            extensions.push(extension(&[0x55, 0x1d, 0x25], false, &purposes));
        }
        // subjectAltName: critical if the subject is empty (X509-SVID §2, RFC 5280 §4.2.1.6).
        let mut names = vec![der::value(0x86, self.spiffe_id.as_str().as_bytes())];
        let dns = self.dns_names.iter();
        names.extend(dns.map(|name| der::value(0x82, name.as_bytes())));
        let critical = self.subject == der::sequence(&[]);
        extensions.push(extension(
            &[0x55, 0x1d, 0x11],
            critical,
            &der::sequence(&names),
        ));
        extensions
    }
}

impl KeyUsage {
    fn to_der(self) -> Vec<u8> {
        // DER drops trailing zero bits of a named bit list.
        let unused = u8::try_from(self.0.trailing_zeros().min(7)).unwrap_or(7);
        der::value(0x03, &[unused, self.0])
    }
}

pub(super) fn extension(id: &[u8], critical: bool, content: &[u8]) -> Vec<u8> {
    let mut parts = vec![der::object_id(id)];
    if critical {
        parts.push(der::value(0x01, &[0xff]));
    }
    parts.push(der::value(0x04, content));
    der::sequence(&parts)
}

/// A certificate from what was to be signed, and the signature.
#[must_use]
pub fn assemble(to_be_signed: &[u8], algorithm: KeyAlgorithm, signature: &[u8]) -> Vec<u8> {
    der::sequence(&[
        to_be_signed.to_vec(),
        algorithm.signature_identifier(),
        der::bit_string(signature),
    ])
}

/// Signs a template with `key`.
///
/// # Errors
/// When the key fails.
pub async fn sign(
    template: &Template<'_>,
    public_key_bits: &[u8],
    key: &dyn SigningKey,
) -> Result<Vec<u8>, KeyError> {
    let to_be_signed = template.to_be_signed(key.algorithm(), public_key_bits);
    let signature = key.sign(&to_be_signed).await?;
    Ok(assemble(&to_be_signed, key.algorithm(), &signature))
}

/// Attributes of a subject that we write.
#[derive(Clone, Copy, Debug)]
pub enum Attribute {
    /// CN.
    CommonName,
    /// O.
    Organization,
    /// serialNumber.
    SerialNumber,
}

/// A distinguished name, DER, each attribute in its own RDN.
#[must_use]
pub fn name(attributes: &[(Attribute, &str)]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = attributes
        .iter()
        .map(|(attribute, text)| {
            let (id, tag) = match attribute {
                Attribute::CommonName => (0x03, 0x0c),
                Attribute::Organization => (0x0a, 0x0c),
                // PrintableString: X.520 allows nothing else.
                Attribute::SerialNumber => (0x05, 0x13),
            };
            let pair = [
                der::object_id(&[0x55, 0x04, id]),
                der::value(tag, text.as_bytes()),
            ];
            der::value(0x31, &der::sequence(&pair))
        })
        .collect();
    der::sequence(&parts)
}

/// UTCTime through 2049, GeneralizedTime from 2050 (RFC 5280 §4.1.2.5).
pub(super) fn time(time: SystemTime) -> Vec<u8> {
    let time = OffsetDateTime::from(time);
    let tail = format!(
        "{:02}{:02}{:02}{:02}{:02}Z",
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    match time.year() {
        year @ 1950..2050 => der::value(0x17, format!("{:02}{tail}", year % 100).as_bytes()),
        year => der::value(0x18, format!("{year:04}{tail}").as_bytes()),
    }
}

/// The whole seconds of a time: certificates know nothing finer.
#[must_use]
pub fn whole_seconds(time: SystemTime) -> SystemTime {
    from_unix_seconds(unix_seconds(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn serials_are_positive_and_do_not_repeat() {
        let serials: HashSet<[u8; 16]> = (0..1000).map(|_| Serial::random().unwrap().0).collect();
        assert_eq!(serials.len(), 1000);
        assert!(serials.iter().all(|serial| serial[0] < 0x80));
        assert!(
            serials.iter().any(|serial| serial[0] >= 0x40),
            "127 bits are used"
        );
    }

    #[test]
    fn the_form_of_a_time_changes_in_2050() {
        assert_eq!(time(from_unix_seconds(0)), b"\x17\x0d700101000000Z");
        assert_eq!(
            time(from_unix_seconds(2_524_607_999)),
            b"\x17\x0d491231235959Z"
        );
        assert_eq!(
            time(from_unix_seconds(2_524_608_000)),
            b"\x18\x0f20500101000000Z"
        );
    }

    #[test]
    fn unused_bits_are_counted() {
        assert_eq!(KeyUsage::CA.to_der(), [3, 2, 1, 6]);
        assert_eq!(KeyUsage::leaf(LeafKey::Ed25519).to_der(), [3, 2, 7, 0x80]);
        assert_eq!(KeyUsage::leaf(LeafKey::Ec).to_der(), [3, 2, 3, 0x88]);
    }
}
