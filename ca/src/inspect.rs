//! What is this? Certificates, bundles and tokens in words, with every clause of the SPIFFE standards that they break.
//!
//! Nothing here decides whether to trust: a signature by an authority is verified against a bundle, and there is none.

mod bundle;
mod certificate;
mod token;

use std::time::SystemTime;

use bytes::Bytes;

use crate::key::pem::{self, PemError};
use crate::trust_domain::shorten;

/// One thing that was found in what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is, in the words of the standards: `X.509-SVID`, `X.509 authority`, `SPIFFE bundle`, `JWT-SVID`.
    pub kind: &'static str,
    /// What it says: names and values, in an order for people.
    pub facts: Vec<(&'static str, String)>,
    /// What is wrong, each with its clause.
    pub problems: Vec<String>,
    /// What is allowed, and worth knowing.
    pub notes: Vec<String>,
}

impl Found {
    fn new(kind: &'static str) -> Self {
        Self {
            kind,
            facts: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn fact(&mut self, name: &'static str, value: impl Into<String>) {
        self.facts.push((name, value.into()));
    }
}

/// Something that is none of what can be told here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Nothing there.
    #[error("there is nothing in it")]
    Empty,
    /// Damaged PEM.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// Something else.
    #[error("it is no certificate (PEM or DER), no SPIFFE bundle document and no token: {0}")]
    Unknown(String),
}

/// Tells what `input` is: PEM, DER, a bundle document or a token, and what it breaks at `now`.
///
/// # Errors
/// When it is none of these.
pub fn inspect(input: &[u8], now: SystemTime) -> Result<Vec<Found>, InspectError> {
    let text = std::str::from_utf8(input).ok().map(str::trim);
    match text {
        Some("") => Err(InspectError::Empty),
        Some(text) if text.starts_with('{') => {
            bundle::inspect(text.as_bytes(), now).map_err(InspectError::Unknown)
        }
        Some(text) if text.contains("-----BEGIN ") => Ok(in_pem(text, now)?),
        Some(text) => token::inspect(text, now)
            .map(|found| vec![found])
            .map_err(InspectError::Unknown),
        None => in_der(input, now),
    }
}

fn in_pem(text: &str, now: SystemTime) -> Result<Vec<Found>, PemError> {
    let (mut certificates, mut keys, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for block in pem::blocks(text)? {
        match block.label.as_str() {
            "CERTIFICATE" => certificates.push(Bytes::copy_from_slice(&block.content)),
            label if label.ends_with("PRIVATE KEY") => {
                keys.push(certificate::private_key(label, text));
            }
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => {
                others.push(certificate::request(&block.content));
            }
            label => {
                let mut found = Found::new("PEM block");
                found.fact("Label", shorten(label));
                let at = block.line;
                found
                    .problems
                    .push(format!("the block in line {at} has no meaning in SPIFFE"));
                others.push(found);
            }
        }
    }
    let mut all = certificate::chain(&certificates, now);
    let spki = certificates.first().and_then(certificate::spki);
    for (mut found, key) in keys {
        if let (Some(spki), Some(key)) = (&spki, key)
            && *spki != key
        {
            found.problems.push(
                "it is not the private key of the first certificate: they are no pair".to_owned(),
            );
        }
        all.push(found);
    }
    all.extend(others);
    if all.is_empty() {
        return Err(PemError::Missing("CERTIFICATE"));
    }
    Ok(all)
}

fn in_der(der: &[u8], now: SystemTime) -> Result<Vec<Found>, InspectError> {
    let der = Bytes::copy_from_slice(der);
    match crate::x509::chain::split(&der) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificate::chain(&certificates, now)),
        _ => {
            let found = certificate::request(&der);
            if found.problems.is_empty() {
                return Ok(vec![found]);
            }
            Err(InspectError::Unknown("it is no DER of these".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests;
