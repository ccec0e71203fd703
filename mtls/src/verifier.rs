//! Peers: verified by the bundle of their own trust domain, then held against who is meant.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use spiffe::SpiffeId;
use spiffe_rustls::Authorizer;

use crate::material::{Current, Domain};
use crate::peer::{may_sign, svid_id};

/// What both sides of a connection have in common.
struct Peers {
    current: Arc<Current>,
    authorizer: Arc<dyn Authorizer>,
}

/// Servers that a client connects to.
pub(crate) struct Servers(Peers);

/// Clients that a server lets in.
pub(crate) struct Clients(Peers);

impl Servers {
    pub(crate) fn new(current: Arc<Current>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self(Peers {
            current,
            authorizer,
        })
    }
}

impl Clients {
    pub(crate) fn new(current: Arc<Current>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self(Peers {
            current,
            authorizer,
        })
    }
}

impl Peers {
    /// Who it says it is, and what that is to be verified by.
    fn claimed(&self, leaf: &CertificateDer<'_>) -> Result<(SpiffeId, Domain), Error> {
        let id = svid_id(leaf).map_err(|error| {
            tracing::warn!(%error, "handshake refused");
            CertificateError::Other(OtherError(Arc::new(error)))
        })?;
        match self.current.domain(id.trust_domain()) {
            Ok(domain) => Ok((id, domain)),
            Err(crate::Error::Tls(error)) => Err(error),
            Err(error) => Err(Error::Other(OtherError(Arc::new(error)))),
        }
    }

    /// Asked once the certificate is verified.
    fn authorize(&self, id: &SpiffeId) -> Result<(), Error> {
        if self.authorizer.authorize(id) {
            return Ok(());
        }
        tracing::warn!(peer = %id, "handshake refused: the peer is not among those that are meant");
        // The peer sees the alert `access_denied`.
        Err(CertificateError::ApplicationVerificationFailure.into())
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").finish_non_exhaustive()
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Servers").field(&self.0).finish()
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clients").field(&self.0).finish()
    }
}

fn signers<'a>(intermediates: &'a [CertificateDer<'_>]) -> Vec<CertificateDer<'a>> {
    let signers = intermediates.iter().filter(|one| may_sign(one));
    signers
        .map(|one| CertificateDer::from(one.as_ref()))
        .collect()
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (id, domain) = self.0.claimed(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &domain.roots,
            &signers(intermediates),
            now,
            self.0.current.algorithms().all,
        )?;
        self.0.authorize(&id)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.current.algorithms(),
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.current.algorithms(),
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.current.algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for Clients {
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let (id, domain) = self.0.claimed(leaf)?;
        let verified = domain
            .clients
            .verify_client_cert(leaf, &signers(intermediates), now)?;
        self.0.authorize(&id)?;
        Ok(verified)
    }

    /// None: which authorities there are changes between handshakes, and a workload presents its SVID anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.current.algorithms(),
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.current.algorithms(),
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.current.algorithms().supported_schemes()
    }
}
