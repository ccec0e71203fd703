//! Who answers at an endpoint of the profile https_spiffe (SPIFFE Federation §5.2.2): an X.509-SVID, not a host name.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use crate::bundle::Bundle;
use crate::spiffe_id::SpiffeId;
use crate::x509::chain;

/// Accepts the one SPIFFE ID that was configured, by the bundle of its trust domain.
#[derive(Debug)]
pub(super) struct SpiffeEndpoint {
    pub(super) id: SpiffeId,
    pub(super) bundle: Arc<Bundle>,
    pub(super) provider: Arc<CryptoProvider>,
}

/// Somebody else answers.
#[derive(Debug, thiserror::Error)]
#[error("the endpoint is `{found}`, and `{expected}` is configured (SPIFFE Federation §5.2.2)")]
struct OtherEndpoint {
    found: SpiffeId,
    expected: SpiffeId,
}

impl ServerCertVerifier for SpiffeEndpoint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused = |error: Arc<dyn std::error::Error + Send + Sync>| -> Error {
            CertificateError::Other(OtherError(error)).into()
        };
        let chain: Vec<Bytes> = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|certificate| Bytes::copy_from_slice(certificate))
            .collect();
        let now = SystemTime::UNIX_EPOCH
            .checked_add(std::time::Duration::from_secs(now.as_secs()))
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let found =
            chain::verify(&chain, &self.bundle, now).map_err(|error| refused(Arc::new(error)))?;
        match found == self.id {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(refused(Arc::new(OtherEndpoint {
                found,
                expected: self.id.clone(),
            }))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
