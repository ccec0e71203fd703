//! Names of the peer's certificate, in the order and the form in which Envoy tries them.

use percent_encoding::percent_decode_str;
use portcullis_policy::request::{Identity, IdentityKind};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use super::Invalid;

mod subject;

/// Every URI SAN, then every DNS SAN, then the subject of the leaf (the first certificate).
///
/// `certificate` is PEM, percent-encoded as `include_peer_certificate` sends it.
pub(super) fn identities(certificate: &str) -> Result<Vec<Identity>, Invalid> {
    let pem: Vec<u8> = percent_decode_str(certificate).collect();
    let (_, pem) = parse_x509_pem(&pem).map_err(|error| unreadable(&error))?;
    if pem.label != "CERTIFICATE" {
        return Err(unreadable(&format_args!(
            "it is a `{}`",
            pem.label.escape_debug()
        )));
    }
    identities_of_der(&pem.contents).map_err(|words| unreadable(&words))
}

/// The same of one certificate in DER, with nothing behind it.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn identities_of_der(der: &[u8]) -> Result<Vec<Identity>, String> {
    let (rest, leaf) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err("there is something behind it".to_owned());
    }
    let mut uris = Vec::new();
    let mut dns_names = Vec::new();
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| error.to_string())?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push(identity(IdentityKind::Uri, uri)),
            GeneralName::DNSName(name) => dns_names.push(identity(IdentityKind::Dns, name)),
            GeneralName::Invalid(..) => {
                return Err("a subject alternative name is malformed".to_owned());
            }
            _ => {}
        }
    }
    let subject = subject::rfc2253(leaf.subject());
    let mut identities = uris;
    identities.append(&mut dns_names);
    if !subject.is_empty() {
        identities.push(identity(IdentityKind::Subject, &subject));
    }
    let mut seen = std::collections::HashSet::new();
    identities.retain(|identity| seen.insert(identity.value.clone()));
    Ok(identities)
}

fn identity(kind: IdentityKind, value: &str) -> Identity {
    Identity {
        kind,
        value: value.to_owned(),
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Invalid {
    Invalid(format!("`source.certificate` cannot be read: {error}"))
}
