//! A certificate authority for one test: every certificate it signs lives as long as the test does.

use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The names that a certificate carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Names {
    /// URI subject alternative names, in order. An SVID has exactly one.
    pub uris: Vec<String>,
    /// DNS subject alternative names.
    pub dns: Vec<String>,
    /// Common name of the subject.
    pub common_name: Option<String>,
}

impl Names {
    /// One SPIFFE ID and nothing else.
    #[must_use]
    pub fn spiffe(id: &str) -> Self {
        Self {
            uris: vec![id.to_owned()],
            ..Self::default()
        }
    }
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate alone: the authority signs directly.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaf")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// The authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// A new authority with a key of its own.
    ///
    /// # Errors
    /// No key or certificate can be made.
    pub fn new() -> io::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "portcullis test authority");
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.self_signed(&key).map_err(io::Error::other)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// The authority's certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a leaf that carries `names`, for either side of a connection.
    ///
    /// # Errors
    /// A name cannot be written into a certificate.
    pub fn leaf(&self, names: &Names) -> io::Result<Leaf> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = &names.common_name {
            params
                .distinguished_name
                .push(DnType::CommonName, name.as_str());
        }
        for uri in &names.uris {
            params.subject_alt_names.push(SanType::URI(
                uri.as_str().try_into().map_err(io::Error::other)?,
            ));
        }
        for name in &names.dns {
            params.subject_alt_names.push(SanType::DnsName(
                name.as_str().try_into().map_err(io::Error::other)?,
            ));
        }
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(io::Error::other)?
            .pem();
        Ok(Leaf {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

/// A TLS client that shows `leaf`, or no certificate.
///
/// It does not look at the server's names: what the server is was settled by starting it.
///
/// # Errors
/// The PEM texts do not hold what they should.
pub fn tls_client(leaf: Option<&Leaf>) -> io::Result<Arc<rustls::ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match leaf {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let certificates = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes());
            let certificates = certificates
                .collect::<Result<_, _>>()
                .map_err(io::Error::other)?;
            let key =
                PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).map_err(io::Error::other)?;
            builder
                .with_client_auth_cert(certificates, key)
                .map_err(io::Error::other)?
        }
    };
    // Each connection is a new handshake: a resumed session would carry the first one's identity.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Takes any server certificate: these tests are about what the server thinks of the client.
#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &rustls::pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
