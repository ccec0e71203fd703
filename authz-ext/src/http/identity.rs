//! The client's identity, from the one source that the listener names.
//!
//! A header is believed only from peers on the listener's trust list, and that alone is not enough:
//! a trusted proxy relays what its client sent, so it must delete or overwrite every header named
//! here. A second identity beside the one that is read is refused, whatever it says.

pub mod certificate;
pub mod xfcc;

use portcullis_policy::decision::Reason;
use portcullis_policy::request::{Identity, IdentityKind};
use tonic::codegen::http::HeaderMap;

use self::xfcc::Element;
use super::header::{malformed, once, text};
use super::peer::{Peer, TrustList};
use crate::check::Refusal;

/// X-Forwarded-Client-Cert, as Envoy writes it.
pub const XFCC: &str = "x-forwarded-client-cert";

/// Headers in which proxies hand over a client's certificate.
pub const CERTIFICATE_HEADERS: [&str; 5] = [
    // ingress-nginx
    "ssl-client-cert",
    // what we show for nginx, HAProxy, Caddy and Apache
    "x-client-cert",
    "x-ssl-client-cert",
    // Traefik's passTLSClientCert
    "x-forwarded-tls-client-cert",
    // RFC 9440
    "client-cert",
];

/// What ingress-nginx says of the certificate that it hands over.
const VERIFIED: &str = "ssl-client-verify";

/// Where the identity comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// X-Forwarded-Client-Cert.
    ForwardedClientCert {
        /// Elements that trusted proxies between the client and ours have added; the one before them
        /// counts. Zero: the right-most.
        trusted_hops: usize,
    },
    /// A header that holds the client's certificate.
    Certificate {
        /// Its name, lower case.
        header: String,
    },
    /// The peer's own certificate: the proxy's mutual TLS with us.
    Peer,
}

/// A listener's way to learn identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The one source.
    pub source: IdentitySource,
    /// Refuses a certificate with two URI names: it is no X509-SVID (X509-SVID §2).
    pub require_svid: bool,
}

/// A client's names, in Envoy's order, and whether it presented a certificate at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Presented {
    pub(super) identities: Vec<Identity>,
    pub(super) certificate: bool,
}

/// True for a header that holds somebody's identity, in whatever dialect.
fn is_identity_header(name: &str, source: &IdentitySource) -> bool {
    let named = matches!(source, IdentitySource::Certificate { header } if header == name);
    named || name == XFCC || CERTIFICATE_HEADERS.contains(&name)
}

/// Reads the identity that `headers` and `peer` give.
pub(super) fn read(
    headers: &HeaderMap,
    options: Option<&Options>,
    trusted: &TrustList,
    peer: &Peer,
) -> Result<Presented, Refusal> {
    let Some(options) = options else {
        // No source is named: whatever a header says, nobody has an identity.
        return Ok(Presented::default());
    };
    let source = &options.source;
    let filled = |name: &str| headers.get_all(name).iter().any(|value| !value.is_empty());
    let present: Vec<&str> = headers
        .keys()
        .map(|name| name.as_str())
        .filter(|name| is_identity_header(name, source) && filled(name))
        .collect();
    if !present.is_empty() && !trusted.holds(peer) {
        return Err(Refusal::new(
            Reason::UntrustedIdentitySource,
            format!(
                "`{}` comes from a peer that is not on the listener's trust list",
                present.join("`, `")
            ),
        ));
    }
    let ours = match source {
        IdentitySource::ForwardedClientCert { .. } => Some(XFCC),
        IdentitySource::Certificate { header } => Some(header.as_str()),
        IdentitySource::Peer => None,
    };
    if let Some(other) = present.iter().find(|name| Some(**name) != ours) {
        return Err(Refusal::new(
            Reason::AmbiguousIdentity,
            format!("`{other}` is a second identity: have the proxy delete it"),
        ));
    }
    let presented = match source {
        IdentitySource::ForwardedClientCert { trusted_hops } => forwarded(headers, *trusted_hops)?,
        IdentitySource::Certificate { header } => in_header(headers, header)?,
        IdentitySource::Peer => Presented {
            identities: peer.identities.clone(),
            certificate: !peer.identities.is_empty(),
        },
    };
    let uris = presented.identities.iter();
    let uris = uris.filter(|identity| identity.kind == IdentityKind::Uri);
    if options.require_svid && uris.count() > 1 {
        return Err(Refusal::new(
            Reason::AmbiguousIdentity,
            "the certificate has several URI names: it is no SVID",
        ));
    }
    Ok(presented)
}

fn forwarded(headers: &HeaderMap, trusted_hops: usize) -> Result<Presented, Refusal> {
    let mut elements = Vec::new();
    // Several lines of one list header are one list (RFC 9110 section 5.3).
    let lines = headers.get_all(XFCC).iter().count();
    for value in headers.get_all(XFCC) {
        let value = text(XFCC, value)?;
        // What a proxy has nothing to say in it may leave empty; beside others it would be nobody's.
        if lines == 1 && value.trim().is_empty() {
            continue;
        }
        let parsed = xfcc::parse(value).map_err(|error| malformed(format!("`{XFCC}`: {error}")))?;
        elements.extend(parsed);
    }
    let from_the_right = elements.into_iter().rev().nth(trusted_hops);
    // Fewer elements than hops: the client of the first hop showed no certificate.
    from_the_right.map_or_else(|| Ok(Presented::default()), presented)
}

fn presented(element: Element) -> Result<Presented, Refusal> {
    let named: Vec<Identity> = identities(&element);
    let identities = match element.certificate {
        None => named,
        Some(pem) => {
            let der =
                certificate::der(&pem).map_err(|error| malformed(format!("`{XFCC}`: {error}")))?;
            agree(&der, element.hash.as_deref(), &named)?
        }
    };
    Ok(Presented {
        identities,
        certificate: true,
    })
}

/// Envoy's order: every URI, then every DNS name, then the subject.
fn identities(element: &Element) -> Vec<Identity> {
    let of = |kind, values: &[String]| -> Vec<Identity> {
        let values = values.iter().filter(|value| !value.is_empty());
        values
            .map(|value| Identity {
                kind,
                value: value.clone(),
            })
            .collect()
    };
    let mut identities = of(IdentityKind::Uri, &element.uris);
    identities.extend(of(IdentityKind::Dns, &element.dns_names));
    identities.extend(of(IdentityKind::Subject, element.subject.as_slice()));
    identities
}

/// The names of the certificate, which must be those that the element states beside it.
fn agree(der: &[u8], hash: Option<&str>, named: &[Identity]) -> Result<Vec<Identity>, Refusal> {
    let two = |what: &str| {
        Refusal::new(
            Reason::AmbiguousIdentity,
            format!("`{XFCC}`: the element's {what} is not that of its certificate"),
        )
    };
    let own =
        certificate::identities(der).map_err(|error| malformed(format!("`{XFCC}`: {error}")))?;
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    if let Some(hash) = hash {
        let found: String = digest
            .as_ref()
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        if !hash.eq_ignore_ascii_case(&found) {
            return Err(two("`Hash`"));
        }
    }
    for identity in named {
        // A subject can be written in several ways; URIs and DNS names cannot.
        if identity.kind != IdentityKind::Subject && !own.contains(identity) {
            return Err(two("name"));
        }
    }
    Ok(own)
}

fn in_header(headers: &HeaderMap, name: &str) -> Result<Presented, Refusal> {
    if headers.get_all(name).iter().count() > 1 {
        return Err(Refusal::new(
            Reason::AmbiguousIdentity,
            format!("`{name}` is there twice"),
        ));
    }
    let Some(value) = once(headers, name)? else {
        return Ok(Presented::default());
    };
    if let Some(said) = once(headers, VERIFIED)?
        && said != "SUCCESS"
    {
        return Err(Refusal::new(
            Reason::UntrustedIdentitySource,
            "the proxy did not verify the certificate that it hands over (`ssl-client-verify`)",
        ));
    }
    let wrong = |error| malformed(format!("`{name}`: {error}"));
    let der = certificate::der(value).map_err(wrong)?;
    Ok(Presented {
        identities: certificate::identities(&der).map_err(wrong)?,
        certificate: true,
    })
}

#[cfg(test)]
mod tests;
