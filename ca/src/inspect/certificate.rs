//! Certificates, alone and in chains, and what stands beside them in a file.

use std::time::SystemTime;

use bytes::Bytes;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use super::Found;
use crate::clock::{date, unix_seconds};
use crate::key::{MemoryKey, SigningKey as _, pem};
use crate::trust_domain::shorten;
use crate::x509::certificate::hex;
use crate::x509::conform;
use crate::x509::csr::{ProvenKey, RequestedNames};

/// The certificates of one file: each for itself, and how they hang together.
pub(super) fn chain(certificates: &[Bytes], now: SystemTime) -> Vec<Found> {
    let mut all: Vec<Found> = certificates.iter().map(|der| one(der, now)).collect();
    let parsed: Vec<Option<X509Certificate<'_>>> = certificates
        .iter()
        .map(|der| {
            X509Certificate::from_der(der)
                .ok()
                .map(|(_, parsed)| parsed)
        })
        .collect();
    // Only authorities: a bundle, in which nothing has to sign anything.
    let is_leaf = |parsed: &Option<X509Certificate<'_>>| {
        parsed.as_ref().is_some_and(|parsed| !parsed.is_ca())
    };
    let Some(leaf) = parsed.iter().position(is_leaf) else {
        return all;
    };
    if leaf > 0
        && let Some(found) = all.get_mut(leaf)
    {
        found
            .problems
            .push("it is not the first: a chain begins with the leaf (X509-SVID §5.1)".to_owned());
        return all;
    }
    for (index, pair) in parsed.windows(2).enumerate() {
        let [Some(below), Some(above)] = pair else {
            continue;
        };
        let Some(found) = all.get_mut(index + 1) else {
            continue;
        };
        if !above.is_ca() {
            found
                .problems
                .push("it is a second leaf: a chain has one (X509-SVID §5.1)".to_owned());
        } else if below.issuer().as_raw() != above.subject().as_raw()
            || below.verify_signature(Some(above.public_key())).is_err()
        {
            found.problems.push(
                "it did not sign the certificate before it: they are no chain (RFC 5280 §6.1)"
                    .to_owned(),
            );
        }
    }
    if let Some(Some(last)) = parsed.last()
        && parsed.len() > 1
        && last.subject().as_raw() == last.issuer().as_raw()
        && let Some(found) = all.last_mut()
    {
        found
            .notes
            .push("it is self-signed: the root belongs into the bundle, not into the chain".into());
    }
    all
}

fn one(der: &Bytes, now: SystemTime) -> Found {
    let Ok(([], parsed)) = X509Certificate::from_der(der) else {
        let mut found = Found::new("certificate");
        found
            .problems
            .push("it is no X.509 certificate in DER".to_owned());
        return found;
    };
    let (kind, (id, refusals)) = match parsed.is_ca() {
        true => ("X.509 authority", conform::inspect_authority(der)),
        false => ("X.509-SVID", conform::inspect_leaf(der)),
    };
    let mut found = Found::new(kind);
    if let Some(id) = id {
        found.fact("SPIFFE ID", id.as_str());
    } else if parsed.is_ca() {
        found
            .notes
            .push("it has no SPIFFE ID: a signing certificate should (X509-SVID §3.2)".to_owned());
    }
    let (dns, other) = names(&parsed);
    if !dns.is_empty() {
        found.fact("DNS names", shorten(&dns.join(", ")));
    }
    if !other.is_empty() {
        found.fact("Other names", shorten(&other.join(", ")));
    }
    found.fact("Subject", shorten(&parsed.subject().to_string()));
    found.fact("Issuer", shorten(&parsed.issuer().to_string()));
    found.fact("Serial", hex(parsed.raw_serial()));
    let (key, weak) = key(&parsed);
    found.fact("Key", key);
    validity(&mut found, &parsed, now);
    found
        .problems
        .extend(refusals.iter().map(ToString::to_string));
    if weak {
        found
            .problems
            .push("its RSA key is shorter than 2048 bits".to_owned());
    }
    let has_purposes = parsed
        .extensions()
        .iter()
        .any(|one| matches!(one.parsed_extension(), ParsedExtension::ExtendedKeyUsage(_)));
    if !parsed.is_ca() && !has_purposes {
        found
            .notes
            .push("it has no extKeyUsage: a leaf should (X509-SVID §4.4)".to_owned());
    }
    found
}

fn validity(found: &mut Found, parsed: &X509Certificate<'_>, now: SystemTime) {
    let (from, to) = (
        parsed.validity().not_before.timestamp(),
        parsed.validity().not_after.timestamp(),
    );
    found.fact("Valid from", date(from));
    found.fact("Valid to", date(to));
    let now = unix_seconds(now);
    if now > to {
        let ago = ago(now.saturating_sub(to));
        found
            .problems
            .push(format!("it expired {ago} ago (RFC 5280 §4.1.2.5)"));
    } else if now < from {
        let ahead = ago(from.saturating_sub(now));
        found.problems.push(format!(
            "it is not valid before {ahead} from now (RFC 5280 §4.1.2.5)"
        ));
    }
}

/// A time span, its largest unit.
pub(super) fn ago(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{seconds} seconds"),
        120..=7199 => format!("{} minutes", seconds / 60),
        7200..=172_799 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn names(parsed: &X509Certificate<'_>) -> (Vec<String>, Vec<String>) {
    let (mut dns, mut other) = (Vec::new(), Vec::new());
    for extension in parsed.extensions() {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
            continue;
        };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                GeneralName::URI(uri) if uri.starts_with("spiffe://") => {}
                name => other.push(name.to_string()),
            }
        }
    }
    (dns, other)
}

/// The kind of key, and whether it is too short.
fn key(parsed: &X509Certificate<'_>) -> (String, bool) {
    match parsed.public_key().parsed() {
        Ok(PublicKey::EC(point)) => {
            let curve = match point.data().len() {
                65 => "P-256",
                97 => "P-384",
                133 => "P-521",
                _ => "an unknown curve",
            };
            (format!("ECDSA on {curve}"), false)
        }
        Ok(PublicKey::RSA(key)) => {
            let bits = key.key_size();
            (format!("RSA, {bits} bits"), bits < 2048)
        }
        _ => {
            let id = parsed.public_key().algorithm.algorithm.to_id_string();
            match id.as_str() {
                "1.3.101.112" => ("Ed25519".to_owned(), false),
                _ => (format!("of kind {id}"), false),
            }
        }
    }
}

pub(super) fn spki(der: &Bytes) -> Option<Bytes> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Some(der.slice_ref(parsed.public_key().raw))
}

/// A private key: that it is there and of what kind, nothing else of it.
pub(super) fn private_key(label: &str, text: &str) -> (Found, Option<Bytes>) {
    let mut found = Found::new("private key");
    let read = pem::private_key(text).and_then(MemoryKey::from_pkcs8);
    match read {
        Ok(key) => {
            found.fact("Key", key.algorithm().as_str());
            (found, Some(key.public_key().clone()))
        }
        Err(_) if label.contains("ENCRYPTED") => {
            found.notes.push("it is encrypted".to_owned());
            (found, None)
        }
        Err(error) => {
            found.problems.push(error.to_string());
            (found, None)
        }
    }
}

/// A certificate signing request.
pub(super) fn request(der: &[u8]) -> Found {
    let mut found = Found::new("certificate signing request");
    if let Ok(names) = RequestedNames::from_csr(der) {
        for uri in &names.uris {
            found.fact("URI", shorten(uri));
        }
        if !names.dns_names.is_empty() {
            found.fact("DNS names", shorten(&names.dns_names.join(", ")));
        }
    }
    match ProvenKey::from_csr(der) {
        Ok(_) => found
            .notes
            .push("its owner has shown to hold the private key".to_owned()),
        Err(error) => found.problems.push(error.to_string()),
    }
    found
}
