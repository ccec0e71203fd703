//! Certificates of clients: verified against the trust bundle, then held against the allow-list.

use std::sync::Arc;

use portcullis_policy::request::IdentityKind;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::AllowList;
use crate::facts::certificate::identities_of_der;
use crate::limits::Counters;

/// Asks `inner`, which knows the authorities, and then the list.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    pub(super) allowed: AllowList,
    pub(super) counters: Arc<Counters>,
}

/// The one SPIFFE ID of a certificate; one with two URI names is no SVID (X509-SVID section 2).
fn spiffe_id(certificate: &[u8]) -> Result<String, String> {
    let names = identities_of_der(certificate)?;
    let mut uris = names.into_iter().filter(|n| n.kind == IdentityKind::Uri);
    match (uris.next(), uris.next()) {
        (Some(id), None) => Ok(id.value),
        (None, _) => Err("it has no SPIFFE ID".to_owned()),
        (Some(_), Some(_)) => Err("it has several URI names".to_owned()),
    }
}

/// Says that a peer is not on the list, and counts it.
pub(super) fn refuse(who: &str, counters: &Counters) {
    Counters::count(&counters.peers_refused);
    let peer = who.escape_debug();
    tracing::warn!(%peer, "connection refused: the client is not among `allowed_ids`");
}

impl ClientCertVerifier for Listed {
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(leaf, intermediates, now)?;
        match spiffe_id(leaf) {
            Ok(id) if self.allowed.holds(&id) => Ok(verified),
            Ok(who) | Err(who) => {
                refuse(&who, &self.counters);
                // The client sees the alert `access_denied`.
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let inner = &self.inner;
        inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let inner = &self.inner;
        inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
