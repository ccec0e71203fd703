//! The way to a Kubernetes API server: TLS by rustls on ring, with the authorities that the cluster names.
//!
//! kube's own TLS would bring the platform's verifier and a second set of roots along.

mod roots;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::ExposeSecret as _;
use tower::ServiceBuilder;
use tower::retry::RetryLayer;

use self::roots::{ReloadedRoots, verifier};

/// Time to a connection. A watch that says nothing for longer than its own limit is ended by kube's watcher.
const CONNECT: Duration = Duration::from_secs(10);

/// Silence after which a connection is probed.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Which cluster, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// A kubeconfig; `None`: `$KUBECONFIG`, then `~/.kube/config`, then the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; `None` for its current one.
    pub context: Option<String>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read, or lacks what it refers to.
    #[error("cannot use the kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// Neither a kubeconfig nor a service account is there.
    #[error(
        "no cluster to talk to: {0}; give a kubeconfig, or run in a pod with a service account"
    )]
    Nowhere(#[from] kube::config::InferConfigError),
    /// A certificate or key cannot be used.
    #[error("cannot use the {what} of the cluster: {cause}")]
    Credential {
        /// Which of them.
        what: &'static str,
        /// Why.
        cause: String,
    },
    /// The kubeconfig asks for something that is not done.
    #[error("the kubeconfig has `{field}`, which is not supported: {why}")]
    Unsupported {
        /// The field.
        field: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// kube refuses the way it is to identify itself.
    #[error("cannot authenticate to the cluster: {0}")]
    Authentication(#[from] kube::Error),
}

impl ConnectError {
    fn credential(what: &'static str, cause: impl ToString) -> Self {
        Self::Credential {
            what,
            cause: cause.to_string(),
        }
    }
}

/// A client of `cluster`, on the runtime that it is called on. Nothing is sent yet.
///
/// # Errors
/// [`ConnectError`].
pub async fn client(cluster: &Cluster) -> Result<Client, ConnectError> {
    connect(config(cluster).await?)
}

/// Where `cluster` is and as whom it is spoken to; the default namespace is the context's.
///
/// # Errors
/// [`ConnectError::Kubeconfig`] and [`ConnectError::Nowhere`].
pub async fn config(cluster: &Cluster) -> Result<Config, ConnectError> {
    if cluster.kubeconfig.is_none() && cluster.context.is_none() {
        return Ok(Config::infer().await?);
    }
    let kubeconfig = match &cluster.kubeconfig {
        Some(path) => Kubeconfig::read_from(path)?,
        None => Kubeconfig::read()?,
    };
    let options = KubeConfigOptions {
        context: cluster.context.clone(),
        ..KubeConfigOptions::default()
    };
    Ok(Config::from_custom_kubeconfig(kubeconfig, &options).await?)
}

/// A client by `config`.
///
/// # Errors
/// [`ConnectError`]: credentials that cannot be used, or settings that are not supported.
pub fn connect(config: Config) -> Result<Client, ConnectError> {
    if config.proxy_url.is_some() {
        return Err(ConnectError::Unsupported {
            field: "proxy-url",
            why: "connect to the API server directly",
        });
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    // A peer that is gone without a word would leave a watch silent until its own limit.
    http.set_keepalive(Some(KEEPALIVE));
    http.set_keepalive_interval(Some(KEEPALIVE / 2));
    http.set_keepalive_retries(Some(3));
    let https = HttpsConnectorBuilder::new().with_tls_config(tls(&config)?);
    // Plain HTTP is what `kubectl proxy` speaks on loopback.
    let https = https.https_or_http();
    let https = match &config.tls_server_name {
        None => https,
        Some(name) => {
            let name = ServerName::try_from(name.clone())
                .map_err(|cause| ConnectError::credential("tls-server-name", cause))?;
            https.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
    };
    let mut connector = TimeoutConnector::new(https.enable_http1().wrap_connector(http));
    connector.set_connect_timeout(config.connect_timeout.or(Some(CONNECT)));
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let hyper: legacy::Client<_, Body> =
        legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(
            config
                .default_retry
                .then(|| RetryLayer::new(RetryPolicy::server_retry())),
        )
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(tower::BoxError::from)
        .service(hyper);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

fn tls(config: &Config) -> Result<ClientConfig, ConnectError> {
    if config.accept_invalid_certs {
        return Err(ConnectError::Unsupported {
            field: "insecure-skip-tls-verify",
            why: "policies and identities come through this connection; give `certificate-authority-data`",
        });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let refused = |cause: rustls::Error| ConnectError::credential("TLS versions", cause);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(refused)?;
    let verifier: Arc<dyn rustls::client::danger::ServerCertVerifier> =
        match (&config.root_cert_file, &config.root_cert) {
            (Some(path), _) => Arc::new(ReloadedRoots::new(path.clone(), provider)?),
            (None, Some(roots)) => {
                let roots = roots.iter().cloned().map(CertificateDer::from);
                verifier(roots, provider)?
            }
            (None, None) => {
                let native = rustls_native_certs::load_native_certs();
                verifier(native.certs.into_iter(), provider)?
            }
        };
    // `dangerous` is rustls's word for a verifier that is handed in; ours is webpki's.
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match identity(config)? {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|cause| ConnectError::credential("client certificate", cause)),
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The client certificate of the kubeconfig, from the file or from its text.
fn identity(config: &Config) -> Result<Option<Identity>, ConnectError> {
    let auth = &config.auth_info;
    let certificate = material(
        "client certificate",
        auth.client_certificate_data.as_deref(),
        auth.client_certificate.as_deref(),
    )?;
    let key_data = auth.client_key_data.as_ref();
    let key = material(
        "client key",
        key_data.map(|key| key.expose_secret()),
        auth.client_key.as_deref(),
    )?;
    let (certificate, key) = match (certificate, key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => {
            return Err(ConnectError::credential("client key", "there is none"));
        }
        (None, Some(_)) => {
            return Err(ConnectError::credential(
                "client certificate",
                "there is none",
            ));
        }
    };
    let chain = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|cause| ConnectError::credential("client certificate", cause))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|cause| ConnectError::credential("client key", cause))?;
    Ok(Some((chain, key)))
}

/// Base64 in the kubeconfig, else the file that it names.
fn material(
    what: &'static str,
    data: Option<&str>,
    file: Option<&str>,
) -> Result<Option<Vec<u8>>, ConnectError> {
    if let Some(data) = data {
        let decoded = BASE64_STANDARD.decode(data.trim());
        return decoded
            .map(Some)
            .map_err(|cause| ConnectError::credential(what, cause));
    }
    let Some(file) = file else { return Ok(None) };
    let read = std::fs::read(Path::new(file));
    read.map(Some)
        .map_err(|cause: io::Error| ConnectError::credential(what, format!("`{file}`: {cause}")))
}

#[cfg(test)]
mod tests;
