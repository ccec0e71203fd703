//! Whose certificate it is.

use rustls::pki_types::CertificateDer;
use spiffe::SpiffeId;
use x509_parser::parse_x509_certificate;

/// Why a certificate is no X.509-SVID of a workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAnSvid {
    /// There is none.
    #[error("the peer has presented no certificate")]
    Missing,
    /// It cannot be read, or its names are not those of an SVID.
    #[error("the certificate is no X.509-SVID: {0} (X509-SVID §2)")]
    Unreadable(String),
    /// It names a trust domain.
    #[error("`{0}` names a trust domain, no workload (X509-SVID §5.2)")]
    TrustDomain(SpiffeId),
    /// It could sign others, or must not sign a handshake.
    #[error("the certificate is none of a workload: {0} (X509-SVID §5.2)")]
    Usage(&'static str),
}

/// The SPIFFE ID in the first of a peer's certificates, as `rustls` hands them out after a handshake
/// (`connection.peer_certificates()`).
///
/// This reads; what was verified was verified in the handshake.
///
/// # Errors
/// [`NotAnSvid`]; after a handshake made with an [`Identity`](crate::Identity)'s configuration never.
pub fn peer_id(certificates: Option<&[CertificateDer<'_>]>) -> Result<SpiffeId, NotAnSvid> {
    let leaf = certificates.and_then(<[_]>::first);
    svid_id(leaf.ok_or(NotAnSvid::Missing)?)
}

/// The SPIFFE ID of a leaf that meets X509-SVID section 5.2.
pub(crate) fn svid_id(leaf: &CertificateDer<'_>) -> Result<SpiffeId, NotAnSvid> {
    let unreadable = |cause: String| NotAnSvid::Unreadable(cause);
    let id =
        spiffe::cert::spiffe_id_from_der(leaf).map_err(|error| unreadable(error.to_string()))?;
    if id.path().is_empty() {
        return Err(NotAnSvid::TrustDomain(id));
    }
    let (rest, certificate) =
        parse_x509_certificate(leaf).map_err(|error| unreadable(error.to_string()))?;
    if !rest.is_empty() {
        return Err(unreadable("something follows the certificate".to_owned()));
    }
    let constraints = certificate
        .basic_constraints()
        .map_err(|error| unreadable(error.to_string()))?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(NotAnSvid::Usage("it is an authority"));
    }
    let usage = certificate
        .key_usage()
        .map_err(|error| unreadable(error.to_string()))?;
    let Some(usage) = usage else {
        return Err(NotAnSvid::Usage("it has no key usage"));
    };
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(NotAnSvid::Usage("it may sign certificates or revocations"));
    }
    if !usage.value.digital_signature() {
        return Err(NotAnSvid::Usage("it may not sign"));
    }
    Ok(id)
}

/// True for a certificate that may stand between a leaf and an authority: what states its key usage states
/// `keyCertSign` (RFC 5280, section 4.2.1.3), which the verifier beneath us does not ask for.
pub(crate) fn may_sign(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else {
        return false;
    };
    match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn certificate(uris: &[&str], ca: bool, usages: &[KeyUsagePurpose]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        for uri in uris {
            let name = SanType::URI((*uri).try_into().unwrap());
            params.subject_alt_names.push(name);
        }
        params.is_ca = if ca {
            IsCa::Ca(BasicConstraints::Unconstrained)
        } else {
            IsCa::ExplicitNoCa
        };
        params.key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_workload_is_one_name_that_signs_nothing_but_handshakes() {
        use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyAgreement, KeyCertSign};
        let web = "spiffe://example.org/web";
        let leaf = certificate(&[web], false, &[DigitalSignature, KeyAgreement]);
        assert_eq!(peer_id(Some(&[leaf])).unwrap().to_string(), web);
        assert_eq!(peer_id(None), Err(NotAnSvid::Missing));
        assert_eq!(peer_id(Some(&[])), Err(NotAnSvid::Missing));
        let refused = |uris: &[&str], ca, usages: &[KeyUsagePurpose]| {
            let error = svid_id(&certificate(uris, ca, usages)).unwrap_err();
            error.to_string()
        };
        for (said, uris, ca, usages) in [
            ("an authority", &[web][..], true, &[DigitalSignature][..]),
            ("no key usage", &[web], false, &[]),
            ("may sign", &[web], false, &[DigitalSignature, KeyCertSign]),
            ("may sign", &[web], false, &[DigitalSignature, CrlSign]),
            ("may not sign", &[web], false, &[KeyAgreement]),
            (
                "trust domain",
                &["spiffe://example.org"],
                false,
                &[DigitalSignature],
            ),
            ("no X.509-SVID", &[], false, &[DigitalSignature]),
            (
                "no X.509-SVID",
                &["https://example.org/web"],
                false,
                &[DigitalSignature],
            ),
            (
                "no X.509-SVID",
                &[web, "spiffe://example.org/b"],
                false,
                &[DigitalSignature],
            ),
        ] {
            let told = refused(uris, ca, usages);
            assert!(told.contains(said), "{said}: {told}");
        }
        let mut longer = certificate(&[web], false, &[DigitalSignature]).to_vec();
        longer.push(0);
        svid_id(&longer.into()).unwrap_err();
        svid_id(&CertificateDer::from(&b"\x30\x03"[..])).unwrap_err();
    }

    #[test]
    fn only_what_may_sign_stands_between() {
        use KeyUsagePurpose::{DigitalSignature, KeyCertSign};
        assert!(may_sign(&certificate(&[], true, &[KeyCertSign])));
        assert!(may_sign(&certificate(&[], true, &[])));
        assert!(!may_sign(&certificate(&[], true, &[DigitalSignature])));
        assert!(!may_sign(&CertificateDer::from(&b"\x30"[..])));
    }
}
