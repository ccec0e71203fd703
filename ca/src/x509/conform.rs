//! Does a certificate conform to X509-SVID? Each refusal cites its clause.
//!
//! Every certificate that was signed here is read again and checked before anybody gets it, and so is
//! every certificate that others hand us as an authority.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::profile::{Issuer, Prepared};
use crate::clock::unix_seconds;
use crate::spiffe_id::{SpiffeId, SpiffeIdError};

/// A clause that a certificate breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not DER, or something after it.
    #[error("it is no X.509 certificate in DER")]
    Malformed,
    /// Version 1 or 2.
    #[error("it is not of version 3: it cannot have extensions (RFC 5280 §4.1.2.1)")]
    Version,
    /// Negative, zero, or longer than 20 bytes.
    #[error("its serial number is not a positive integer of at most 20 bytes (RFC 5280 §4.1.2.2)")]
    Serial,
    /// An extension twice.
    #[error("it has the same extension twice (RFC 5280 §4.2)")]
    RepeatedExtension,
    /// The end comes before the start.
    #[error("its validity ends before it begins (RFC 5280 §4.1.2.5)")]
    Validity,
    /// No URI SAN, or more than one.
    #[error("it has {0} URI SANs: exactly one is required (X509-SVID §2)")]
    UriCount(usize),
    /// The URI SAN is no SPIFFE ID in canonical form.
    #[error("its URI SAN is no SPIFFE ID: {0} (X509-SVID §2)")]
    SpiffeId(#[from] SpiffeIdError),
    /// A leaf whose ID has no path.
    #[error("its SPIFFE ID `{0}` has no path: that of a leaf has one (X509-SVID §3.1)")]
    LeafWithoutPath(SpiffeId),
    /// An empty subject and a SAN extension that is not critical.
    #[error("its subject is empty and its SAN extension is not critical (X509-SVID §3.1)")]
    UncriticalSan,
    /// A signing certificate whose ID has a path.
    #[error("it is a signing certificate and its SPIFFE ID `{0}` has a path (X509-SVID §3.2)")]
    AuthorityWithPath(SpiffeId),
    /// Another trust domain.
    #[error("its SPIFFE ID `{0}` is not in the trust domain that it is for (X509-SVID §3.2)")]
    OtherTrustDomain(SpiffeId),
    /// A leaf with the CA flag.
    #[error("it is a leaf and basicConstraints says cA: true (X509-SVID §4.1)")]
    LeafIsCa,
    /// An authority without the CA flag.
    #[error(
        "it is a signing certificate and basicConstraints does not say cA: true (X509-SVID §4.1)"
    )]
    AuthorityIsNotCa,
    /// No key usage.
    #[error("it has no keyUsage extension (X509-SVID §4.3)")]
    NoKeyUsage,
    /// A key usage that may be overlooked.
    #[error("its keyUsage extension is not critical (X509-SVID §4.3)")]
    UncriticalKeyUsage,
    /// A leaf that cannot sign.
    #[error("it is a leaf and keyUsage lacks digitalSignature (X509-SVID §4.3)")]
    LeafCannotSign,
    /// A leaf that could sign certificates or CRLs.
    #[error("it is a leaf and keyUsage has keyCertSign or cRLSign (X509-SVID §4.3)")]
    LeafSignsCertificates,
    /// An authority that cannot sign certificates.
    #[error("it is a signing certificate and keyUsage lacks keyCertSign (X509-SVID §4.3)")]
    AuthorityCannotSign,
    /// Extended key usage with half of what is needed.
    #[error("its extKeyUsage lacks serverAuth or clientAuth (X509-SVID §4.4)")]
    HalfExtendedKeyUsage,
    /// It is not the certificate that was prepared.
    #[error("its {0} is not what was prepared")]
    NotAsPrepared(&'static str),
}

/// Checks that `certificate` is a leaf as X509-SVID wants it, and the very one that was prepared.
///
/// # Errors
/// With the clause that it breaks.
pub fn leaf(certificate: &[u8], prepared: &Prepared, issuer: Issuer<'_>) -> Result<(), Refusal> {
    let parsed = parse(certificate)?;
    let id = first(leaf_clauses(&parsed))?;
    let request = prepared.request();
    let same = |what, is_same: bool| match is_same {
        true => Ok(()),
        false => Err(Refusal::NotAsPrepared(what)),
    };
    same("SPIFFE ID", id == request.spiffe_id)?;
    same(
        "public key",
        parsed.public_key().raw == &request.key.spki()[..],
    )?;
    same("issuer", parsed.issuer().as_raw() == issuer.subject)?;
    same(
        "serial number",
        serial_is(&parsed, prepared.serial().as_bytes()),
    )?;
    let validity = parsed.validity();
    same(
        "validity",
        validity.not_before.timestamp() == unix_seconds(prepared.not_before())
            && validity.not_after.timestamp() == unix_seconds(prepared.not_after()),
    )?;
    same(
        "end, which is after the authority's,",
        validity.not_after.timestamp() <= unix_seconds(issuer.not_after),
    )?;
    let (mut key_id, mut issuer_key_id, mut dns) = (None, None, Vec::new());
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => key_id = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                issuer_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                dns.extend(names.general_names.iter().filter_map(|name| match name {
                    GeneralName::DNSName(dns) => Some((*dns).to_owned()),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    same("subject key identifier", key_id == Some(prepared.key_id()))?;
    same(
        "authority key identifier",
        issuer_key_id.as_deref() == Some(issuer.key_id),
    )?;
    same("list of DNS names", dns == request.dns_names)
}

fn serial_is(parsed: &X509Certificate<'_>, serial: &[u8; 16]) -> bool {
    fn without_zeros(bytes: &[u8]) -> impl Iterator<Item = &u8> {
        bytes.iter().skip_while(|byte| **byte == 0)
    }
    without_zeros(parsed.raw_serial()).eq(without_zeros(serial))
}

/// Checks that a certificate from anywhere is a leaf as X509-SVID wants it, and says whose.
///
/// # Errors
/// With the clause that it breaks.
pub fn any_leaf(certificate: &[u8]) -> Result<SpiffeId, Refusal> {
    first(leaf_clauses(&parse(certificate)?))
}

/// Every clause that a certificate breaks as a leaf, and its SPIFFE ID where it has one.
#[must_use]
pub fn inspect_leaf(certificate: &[u8]) -> (Option<SpiffeId>, Vec<Refusal>) {
    match parse(certificate) {
        Ok(parsed) => leaf_clauses(&parsed),
        Err(refusal) => (None, vec![refusal]),
    }
}

/// Every clause that a certificate breaks as a signing certificate of the trust domain that it names itself, and that
/// trust domain's SPIFFE ID where it names one.
#[must_use]
pub fn inspect_authority(certificate: &[u8]) -> (Option<SpiffeId>, Vec<Refusal>) {
    match parse(certificate) {
        Ok(parsed) => authority_clauses(&parsed, None),
        Err(refusal) => (None, vec![refusal]),
    }
}

fn first((id, refusals): (Option<SpiffeId>, Vec<Refusal>)) -> Result<SpiffeId, Refusal> {
    match refusals.into_iter().next() {
        Some(refusal) => Err(refusal),
        None => id.ok_or(Refusal::UriCount(0)),
    }
}

/// Checks that a certificate can be a signing certificate of `trust_domain`. An SPIFFE ID is not required
/// of it, but one that is there must be the trust domain's.
///
/// # Errors
/// With the clause that it breaks.
pub fn authority(
    certificate: &[u8],
    trust_domain: &crate::trust_domain::TrustDomain,
) -> Result<(), Refusal> {
    let parsed = parse(certificate)?;
    let (_, refusals) = authority_clauses(&parsed, Some(trust_domain));
    refusals.into_iter().next().map_or(Ok(()), Err)
}

fn authority_clauses(
    parsed: &X509Certificate<'_>,
    trust_domain: Option<&crate::trust_domain::TrustDomain>,
) -> (Option<SpiffeId>, Vec<Refusal>) {
    let mut refusals = general_clauses(parsed);
    let names = Names::of(parsed);
    if names.uris.len() > 1 {
        refusals.push(Refusal::UriCount(names.uris.len()));
    }
    let mut id = None;
    // Other URIs than SPIFFE IDs stand in the certificates of roots that were not made for SPIFFE.
    if let Some(uri) = names.uris.first().filter(|uri| uri.starts_with("spiffe:")) {
        match SpiffeId::parse(uri) {
            Ok(found) => {
                if !found.path().is_empty() {
                    refusals.push(Refusal::AuthorityWithPath(found.clone()));
                }
                if trust_domain.is_some_and(|expected| found.trust_domain() != expected) {
                    refusals.push(Refusal::OtherTrustDomain(found.clone()));
                }
                id = Some(found);
            }
            Err(error) => refusals.push(error.into()),
        }
    }
    if !parsed.is_ca() {
        refusals.push(Refusal::AuthorityIsNotCa);
    }
    match names.key_usage {
        None => refusals.push(Refusal::NoKeyUsage),
        Some((critical, usage)) => {
            if !critical {
                refusals.push(Refusal::UncriticalKeyUsage);
            }
            if !usage.key_cert_sign() {
                refusals.push(Refusal::AuthorityCannotSign);
            }
        }
    }
    (id, refusals)
}

fn parse(certificate: &[u8]) -> Result<X509Certificate<'_>, Refusal> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(Refusal::Malformed),
    }
}

fn general_clauses(parsed: &X509Certificate<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if parsed.version().0 != 2 {
        refusals.push(Refusal::Version);
    }
    let serial = parsed.raw_serial();
    let is_negative = serial.first().is_some_and(|byte| *byte >= 0x80);
    if serial.len() > 20 || is_negative || serial.iter().all(|byte| *byte == 0) {
        refusals.push(Refusal::Serial);
    }
    let extensions = parsed.extensions().iter();
    let mut ids: Vec<&[u8]> = extensions.map(|one| one.oid.as_bytes()).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != parsed.extensions().len() {
        refusals.push(Refusal::RepeatedExtension);
    }
    let validity = parsed.validity();
    if validity.not_after.timestamp() < validity.not_before.timestamp() {
        refusals.push(Refusal::Validity);
    }
    refusals
}

fn leaf_clauses(parsed: &X509Certificate<'_>) -> (Option<SpiffeId>, Vec<Refusal>) {
    let mut refusals = general_clauses(parsed);
    let names = Names::of(parsed);
    let mut id = None;
    match names.uris.as_slice() {
        [uri] => match SpiffeId::parse(uri) {
            Ok(found) => {
                if found.path().is_empty() {
                    refusals.push(Refusal::LeafWithoutPath(found.clone()));
                }
                id = Some(found);
            }
            Err(error) => refusals.push(error.into()),
        },
        uris => refusals.push(Refusal::UriCount(uris.len())),
    }
    if parsed.subject().iter().next().is_none() && !names.is_critical {
        refusals.push(Refusal::UncriticalSan);
    }
    if parsed.is_ca() {
        refusals.push(Refusal::LeafIsCa);
    }
    match names.key_usage {
        None => refusals.push(Refusal::NoKeyUsage),
        Some((critical, usage)) => {
            if !critical {
                refusals.push(Refusal::UncriticalKeyUsage);
            }
            if usage.key_cert_sign() || usage.crl_sign() {
                refusals.push(Refusal::LeafSignsCertificates);
            }
            if !usage.digital_signature() {
                refusals.push(Refusal::LeafCannotSign);
            }
        }
    }
    if names
        .extended
        .is_some_and(|(server, client)| !(server && client))
    {
        refusals.push(Refusal::HalfExtendedKeyUsage);
    }
    (id, refusals)
}

/// What the clauses look at.
struct Names<'a> {
    uris: Vec<&'a str>,
    is_critical: bool,
    key_usage: Option<(bool, &'a x509_parser::extensions::KeyUsage)>,
    extended: Option<(bool, bool)>,
}

impl<'a> Names<'a> {
    fn of(parsed: &'a X509Certificate<'_>) -> Self {
        let mut names = Self {
            uris: Vec::new(),
            is_critical: false,
            key_usage: None,
            extended: None,
        };
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(alternatives) => {
                    names.is_critical = extension.critical;
                    names
                        .uris
                        .extend(
                            alternatives
                                .general_names
                                .iter()
                                .filter_map(|name| match name {
                                    GeneralName::URI(uri) => Some(*uri),
                                    _ => None,
                                }),
                        );
                }
                ParsedExtension::KeyUsage(usage) => {
                    names.key_usage = Some((extension.critical, usage));
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    names.extended = Some((usage.server_auth, usage.client_auth));
                }
                _ => {}
            }
        }
        names
    }
}

#[cfg(test)]
mod tests;
