//! A certificate as proxies put it into a header.
//!
//! | proxy | form |
//! |---|---|
//! | nginx `$ssl_client_escaped_cert`, ingress-nginx | percent-encoded PEM |
//! | Apache, HAProxy after a PEM converter | PEM with blanks in place of line ends |
//! | Traefik `passTLSClientCert.pem` | the Base64 of PEM without its frame, a chain joined by commas |
//! | HAProxy `ssl_c_der,base64`, Caddy `certificate_der_base64` | Base64 of DER |
//! | RFC 9440 `Client-Cert` | Base64 of DER between colons |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use portcullis_policy::request::Identity;

use crate::facts;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Why a value is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACertificate {
    /// Percent-encoding that gives no text.
    #[error("what is percent-encoded is not ASCII text")]
    Encoding,
    /// PEM that does not begin or end as it must.
    #[error("the PEM frame is not whole")]
    Frame,
    /// Characters that are no Base64.
    #[error("the certificate is not Base64")]
    Base64,
    /// DER that is no certificate.
    #[error("the certificate cannot be read: {0}")]
    Der(String),
}

/// DER of the first certificate of a header's value: the leaf.
///
/// # Errors
/// [`NotACertificate`].
pub fn der(value: &str) -> Result<Vec<u8>, NotACertificate> {
    let decoded: String;
    let mut text = value.trim();
    if text.contains('%') {
        let bytes: Vec<u8> = percent_decode_str(text).collect();
        decoded = String::from_utf8(bytes)
            .ok()
            .filter(|text| text.is_ascii())
            .ok_or(NotACertificate::Encoding)?;
        text = decoded.trim();
    }
    let base64 = if text.starts_with("-----") {
        let body = text.strip_prefix(BEGIN).ok_or(NotACertificate::Frame)?;
        let (body, _chain) = body.split_once(END).ok_or(NotACertificate::Frame)?;
        body
    } else {
        let first = text.split(',').next().unwrap_or_default().trim();
        // A byte sequence of RFC 8941.
        match first.strip_prefix(':') {
            Some(rest) => rest.strip_suffix(':').ok_or(NotACertificate::Frame)?,
            None => first,
        }
    };
    let compact: String = base64.split_ascii_whitespace().collect();
    if compact.is_empty() {
        return Err(NotACertificate::Base64);
    }
    STANDARD
        .decode(compact)
        .map_err(|_| NotACertificate::Base64)
}

/// The names of a certificate, in Envoy's order.
///
/// # Errors
/// [`NotACertificate::Der`].
pub fn identities(der: &[u8]) -> Result<Vec<Identity>, NotACertificate> {
    facts::certificate::identities_of_der(der).map_err(NotACertificate::Der)
}
