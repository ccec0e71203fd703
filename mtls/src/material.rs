//! What handshakes are made with, prepared once for each update.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use spiffe::x509_source::X509SourceState;
use spiffe::{TrustDomain, X509Bundle, X509Source, X509Svid};

/// The source, and what was made of its last state.
///
/// Every handshake looks at the source itself and prepares what it finds, if it is the first to see it: there is no
/// task that lags behind, so no moment in which the source is ahead of what can be used.
#[derive(Debug)]
pub(crate) struct Current {
    source: X509Source,
    provider: Arc<CryptoProvider>,
    prepared: Mutex<Option<Arc<Prepared>>>,
}

/// One state of the source, ready for use.
#[derive(Debug)]
struct Prepared {
    revision: u64,
    /// `None` where the state has no SVID for us.
    key: Option<Arc<CertifiedKey>>,
    domains: BTreeMap<TrustDomain, Domain>,
}

/// What members of one trust domain are verified by.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    /// Its authorities.
    pub(crate) roots: Arc<RootCertStore>,
    /// They, as a verifier of clients.
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
}

impl Current {
    pub(crate) fn new(source: X509Source, provider: Arc<CryptoProvider>) -> Self {
        Self {
            source,
            provider,
            prepared: Mutex::new(None),
        }
    }

    pub(crate) fn source(&self) -> &X509Source {
        &self.source
    }

    pub(crate) fn algorithms(&self) -> WebPkiSupportedAlgorithms {
        self.provider.signature_verification_algorithms
    }

    /// Certificate and key to present now.
    pub(crate) fn key(&self) -> Result<Arc<CertifiedKey>, crate::Error> {
        let state = self.source.state();
        // An SVID that has expired, or that was withdrawn, is not presented.
        state.svid()?;
        let prepared = self.prepared(&state)?;
        let missing = || rustls::Error::General("the SVID's key is unusable".to_owned());
        Ok(prepared.key.clone().ok_or_else(missing)?)
    }

    /// What members of `trust_domain` are verified by now.
    pub(crate) fn domain(&self, trust_domain: &TrustDomain) -> Result<Domain, crate::Error> {
        let state = self.source.state();
        let prepared = self.prepared(&state)?;
        let domain = prepared.domains.get(trust_domain).cloned();
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        Ok(domain.ok_or(unknown)?)
    }

    fn prepared(&self, state: &X509SourceState) -> Result<Arc<Prepared>, crate::Error> {
        let context = state.context()?;
        // Preparing panics nowhere; a poisoned lock holds a whole value all the same.
        let mut last = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*last
            && last.revision >= state.revision()
        {
            return Ok(Arc::clone(last));
        }
        let key = state.svid().ok().and_then(|svid| self.certified(&svid));
        let mut domains = BTreeMap::new();
        for (name, bundle) in context.bundle_set().iter() {
            if let Some(domain) = self.verifiers(name, bundle) {
                domains.insert(name.clone(), domain);
            }
        }
        let prepared = Arc::new(Prepared {
            revision: state.revision(),
            key,
            domains,
        });
        *last = Some(Arc::clone(&prepared));
        Ok(prepared)
    }

    fn certified(&self, svid: &X509Svid) -> Option<Arc<CertifiedKey>> {
        let chain = svid.cert_chain().iter();
        let chain = chain.map(|certificate| certificate.as_bytes().to_vec().into());
        let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
        let made =
            CertifiedKey::from_der(chain.collect(), PrivateKeyDer::Pkcs8(key), &self.provider);
        made.inspect_err(
            |error| tracing::error!(%error, "an SVID from the Workload API is unusable"),
        )
        .map(Arc::new)
        .ok()
    }

    fn verifiers(&self, name: &TrustDomain, bundle: &X509Bundle) -> Option<Domain> {
        let mut roots = RootCertStore::empty();
        for authority in bundle.authorities() {
            // One that we cannot read verifies nothing; the others do.
            if let Err(error) = roots.add(CertificateDer::from(authority.as_bytes().to_vec())) {
                tracing::warn!(trust_domain = %name, %error, "an authority is left out");
            }
        }
        let roots = Arc::new(roots);
        let builder = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&roots),
            Arc::clone(&self.provider),
        );
        // A trust domain without authorities has no members.
        let clients = builder.build().ok()?;
        Some(Domain { roots, clients })
    }
}
