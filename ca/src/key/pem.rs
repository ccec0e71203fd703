//! PEM (RFC 7468), strictly enough: certificates and private keys that people hand us.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use zeroize::Zeroizing;

use super::{KeyAlgorithm, KeyError};
use crate::der;

/// Most text that is read as PEM, bytes.
pub const MAX_PEM: usize = 8 << 20;

/// Text that is no PEM, or holds something else than was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Nothing between the lines.
    #[error("there is no `-----BEGIN {0}-----` in it")]
    Missing(&'static str),
    /// A block without its end.
    #[error("the PEM block that begins in line {0} has no end")]
    Unfinished(usize),
    /// A block whose end names something else, or whose content is no base64.
    #[error("the PEM block that begins in line {0} is damaged")]
    Damaged(usize),
    /// A block of another kind among certificates.
    #[error("the PEM block in line {line} is `{label}`, not `CERTIFICATE`")]
    OtherLabel {
        /// Its first line.
        line: usize,
        /// What it is.
        label: String,
    },
    /// Too much of it.
    #[error("the PEM text has {0} bytes, at most 8 MiB are read")]
    TooLong(usize),
}

/// One block.
pub struct Block {
    /// Its first line, from 1.
    pub line: usize,
    /// What it says it is: `CERTIFICATE`.
    pub label: String,
    /// What is in it.
    pub content: Zeroizing<Vec<u8>>,
}

/// The blocks of a PEM text, in order.
///
/// # Errors
/// When it is too long, or a block is damaged.
pub fn blocks(text: &str) -> Result<Vec<Block>, PemError> {
    if text.len() > MAX_PEM {
        return Err(PemError::TooLong(text.len()));
    }
    let mut found = Vec::new();
    let mut open: Option<(usize, String, Zeroizing<String>)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        match &mut open {
            None => {
                if let Some(label) = label(line, "-----BEGIN ") {
                    open = Some((index + 1, label.to_owned(), Zeroizing::new(String::new())));
                }
            }
            Some((start, begun, body)) => match label(line, "-----END ") {
                Some(ended) if ended == begun => {
                    let content = STANDARD
                        .decode(body.as_bytes())
                        .map_err(|_| PemError::Damaged(*start))?;
                    found.push(Block {
                        line: *start,
                        label: std::mem::take(begun),
                        content: Zeroizing::new(content),
                    });
                    open = None;
                }
                Some(_) => return Err(PemError::Damaged(*start)),
                None if line.starts_with("-----") => return Err(PemError::Damaged(*start)),
                None => body.push_str(line),
            },
        }
    }
    match open {
        Some((start, ..)) => Err(PemError::Unfinished(start)),
        None => Ok(found),
    }
}

fn label<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix("-----")
}

/// The certificates of a PEM text, DER, in order; at least one, and nothing else among them.
///
/// # Errors
/// When there is none, or anything else.
pub fn certificates(text: &str) -> Result<Vec<Bytes>, PemError> {
    let blocks = blocks(text)?;
    if blocks.is_empty() {
        return Err(PemError::Missing("CERTIFICATE"));
    }
    blocks
        .into_iter()
        .map(|block| match block.label.as_str() {
            "CERTIFICATE" => Ok(Bytes::copy_from_slice(&block.content)),
            _ => Err(PemError::OtherLabel {
                line: block.line,
                label: block.label,
            }),
        })
        .collect()
}

/// The private key of a PEM text as PKCS#8, DER: from `PRIVATE KEY`, `EC PRIVATE KEY` (SEC 1) or `RSA PRIVATE KEY` (PKCS #1).
///
/// # Errors
/// When there is none that can be used.
pub fn private_key(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let blocks = blocks(text).map_err(|error| KeyError::Unusable(error.to_string()))?;
    for block in blocks {
        match block.label.as_str() {
            "PRIVATE KEY" => return Ok(block.content),
            "RSA PRIVATE KEY" => return Ok(wrap(KeyAlgorithm::Rsa, &block.content)),
            "EC PRIVATE KEY" => {
                let p384 = [0x2b, 0x81, 0x04, 0x00, 0x22];
                let is_p384 = block
                    .content
                    .windows(p384.len())
                    .any(|window| window == p384);
                let algorithm = if is_p384 {
                    KeyAlgorithm::P384
                } else {
                    KeyAlgorithm::P256
                };
                return Ok(wrap(algorithm, &block.content));
            }
            "ENCRYPTED PRIVATE KEY" => {
                return Err(KeyError::Unusable(
                    "it is encrypted; decrypt it first: `openssl pkey -in key.pem -out plain.pem`"
                        .to_owned(),
                ));
            }
            // Parameters and certificates may stand beside it.
            _ => {}
        }
    }
    Err(KeyError::Unusable(
        "there is no `-----BEGIN PRIVATE KEY-----` in it".to_owned(),
    ))
}

/// PKCS#8 around an algorithm's own form (RFC 5208).
fn wrap(algorithm: KeyAlgorithm, key: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(der::sequence(&[
        der::unsigned(&[0]),
        algorithm.key_identifier(),
        der::value(0x04, key),
    ]))
}

/// A certificate as PEM.
#[must_use]
pub fn certificate_text(certificate: &[u8]) -> String {
    block_text("CERTIFICATE", certificate)
}

/// A revocation list, DER, as PEM.
#[must_use]
pub fn crl_text(list: &[u8]) -> String {
    block_text("X509 CRL", list)
}

/// A private key (PKCS#8) as PEM.
#[must_use]
pub fn private_key_text(pkcs8: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(block_text("PRIVATE KEY", pkcs8))
}

fn block_text(label: &str, content: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(content));
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryKey, SigningKey as _};
    use super::*;

    #[test]
    fn certificates_come_back_in_order() {
        let text = format!(
            "# a comment\n{}\n{}",
            certificate_text(b"first"),
            certificate_text(&[7; 100])
        );
        let read = certificates(&text).unwrap();
        assert_eq!(
            read,
            [Bytes::from_static(b"first"), Bytes::from(vec![7; 100])]
        );
        assert_eq!(certificates(&text.replace('\n', "\r\n")).unwrap(), read);
    }

    #[test]
    fn hostile_pem_is_refused_with_its_line() {
        let key = private_key_text(b"k");
        for (text, error) in [
            ("", PemError::Missing("CERTIFICATE")),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n",
                PemError::Unfinished(1),
            ),
            (
                "\n-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----",
                PemError::Damaged(2),
            ),
            (
                "-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n",
                PemError::Damaged(1),
            ),
            ("-----BEGIN A-----\n-----END B-----\n", PemError::Damaged(1)),
            (
                &key,
                PemError::OtherLabel {
                    line: 1,
                    label: "PRIVATE KEY".to_owned(),
                },
            ),
        ] {
            assert_eq!(certificates(text), Err(error), "{text}");
        }
        assert!(matches!(
            certificates(&" ".repeat(MAX_PEM + 1)),
            Err(PemError::TooLong(_))
        ));
    }

    #[test]
    fn a_sec1_key_becomes_pkcs8() {
        let key = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
        // ECPrivateKey stands last in PKCS#8, in an OCTET STRING: SEQUENCE, length, version 1.
        let start = [0x6b, 2, 1, 1];
        let at = key.pkcs8().windows(4).position(|window| window == start);
        let sec1 = block_text("EC PRIVATE KEY", &key.pkcs8()[at.unwrap() - 1..]);
        let read = MemoryKey::from_pkcs8(private_key(&sec1).unwrap()).unwrap();
        assert_eq!(read.public_key(), key.public_key());
        let text = private_key_text(key.pkcs8());
        let read = MemoryKey::from_pkcs8(private_key(&text).unwrap()).unwrap();
        assert_eq!(read.public_key(), key.public_key());
        for text in ["", &block_text("ENCRYPTED PRIVATE KEY", b"x")] {
            assert!(private_key(text).is_err());
        }
    }
}
