//! Certificates of clients: verified against the trust bundle, then held against the allow-list.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_policy::request::IdentityKind;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use spiffe::{SpiffeId, TrustDomain, X509BundleSet};

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

/// Verifies each client by the bundle of the trust domain that its SPIFFE ID names, and by no other:
/// an authority speaks for its own trust domain alone.
#[derive(Debug)]
pub(super) struct Federated {
    domains: BTreeMap<String, Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
    allowed: Option<AllowList>,
    counters: Arc<Counters>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Federated {
    /// Knows the trust domains of `bundles`; `only` one of them, if that is said.
    pub(super) fn new(
        bundles: &X509BundleSet,
        only: Option<&TrustDomain>,
        allowed: Option<AllowList>,
        counters: Arc<Counters>,
    ) -> Result<Self, Error> {
        let provider = super::provider();
        let mut domains = BTreeMap::new();
        let mut hints = Vec::new();
        for (domain, bundle) in bundles.iter() {
            if only.is_some_and(|only| only != domain) {
                continue;
            }
            let mut roots = RootCertStore::empty();
            for authority in bundle.authorities() {
                roots.add(CertificateDer::from(authority.as_bytes().to_vec()))?;
            }
            // A trust domain without authorities has no members.
            if roots.is_empty() {
                continue;
            }
            hints.extend(roots.subjects());
            let builder =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            let verifier = builder.build();
            let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
            domains.insert(domain.to_string(), verifier);
        }
        Ok(Self {
            domains,
            hints,
            allowed,
            counters,
            algorithms: provider.signature_verification_algorithms,
        })
    }
}

impl ClientCertVerifier for Federated {
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let refused = Error::from(CertificateError::ApplicationVerificationFailure);
        let id = spiffe_id(leaf).and_then(|id| {
            let parsed: Result<SpiffeId, _> = id.parse();
            parsed.map_err(|error| format!("`{id}`: {error}"))
        });
        let id = match id {
            Ok(id) => id,
            Err(who) => {
                refuse(&who, &self.counters);
                return Err(refused);
            }
        };
        let domain = self.domains.get(&id.trust_domain().to_string());
        let domain = domain.ok_or(CertificateError::UnknownIssuer)?;
        let verified = domain.verify_client_cert(leaf, intermediates, now)?;
        let id = id.to_string();
        if self.allowed.as_ref().is_some_and(|list| !list.holds(&id)) {
            refuse(&id, &self.counters);
            return Err(refused);
        }
        Ok(verified)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
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
