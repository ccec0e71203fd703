//! Somebody who applies policies without a pause, and the certificate that a replica shows meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{Api, Client};
use portcullis_admission::certificate::{Material, Root};
use portcullis_tests::authority::tls_client;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::webhook::{Service, bad, configuration, good, judged_namespace, path, policy, send};
use crate::cluster::{self, until};

const PLURAL: &str = "authorizationpolicies";

/// What came of the calls.
type Outcome = (usize, Vec<String>);

/// Applies a good and a bad policy, and connects anew as an API server does, again and again.
pub struct Applying {
    over: Arc<AtomicBool>,
    task: JoinHandle<Outcome>,
}

impl Applying {
    /// Begins, in a namespace that `configuration` has judged at `url`; the certificate is verified for `name`.
    pub fn start(
        client: &Client,
        namespace: &str,
        configuration: &str,
        service: SocketAddr,
        name: &str,
    ) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let probe = path(namespace, PLURAL, "", "?dryRun=All");
        let (client, flag) = (client.clone(), Arc::clone(&over));
        let (configuration, name) = (configuration.to_owned(), name.to_owned());
        let task = tokio::spawn(async move {
            let (mut calls, mut failed) = (0, Vec::new());
            while !flag.load(Ordering::SeqCst) {
                for (spec, wanted) in [(good(), 201), (bad(), 403)] {
                    let said = send(&client, "POST", &probe, &policy("web", spec)).await;
                    calls += 1;
                    if said.status != wanted || said.is_failure() {
                        failed.push(format!("{} {}", said.status, said.message()));
                    }
                }
                // API servers keep connections: whoever comes new must find a certificate that holds, too.
                let roots = roots(&client, &configuration).await;
                let shown = shown(service, &name).await;
                let verified = shown.and_then(|shown| {
                    let held = shown.verify(&roots, &name, SystemTime::now());
                    held.map_err(|error| error.to_string())
                });
                calls += 1;
                failed.extend(verified.err());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (calls, failed)
        });
        Self { over, task }
    }

    /// Ends: no call has failed, and there were some.
    pub async fn stop(self) {
        self.over.store(true, Ordering::SeqCst);
        let (calls, failed) = self.task.await.unwrap();
        assert!(calls > 50, "{calls}");
        assert_eq!(failed, [""; 0], "of {calls} calls");
    }
}

/// Applies the configuration `name` for `url`, with an own namespace, which it returns.
pub async fn configured(client: &Client, name: &str, url: &str) -> String {
    let shipped = configuration(url, name, name, &[]);
    cluster::apply(client, &shipped).await.unwrap();
    judged_namespace(client, name, serde_json::json!({})).await
}

/// Waits until the API server asks the webhook about this namespace.
pub async fn asked(client: &Client, namespace: &str) {
    let probe = path(namespace, PLURAL, "", "?dryRun=All");
    until("the API server asks the webhook", async || {
        let said = send(client, "POST", &probe, &policy("probe", bad())).await;
        said.status == 403 && said.message().contains("denied the request")
    })
    .await;
}

/// Roots that API servers are told by this configuration.
pub async fn roots(client: &Client, configuration: &str) -> Vec<Root> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let found = api.get(configuration).await.unwrap();
    let webhooks = found.webhooks.unwrap_or_default();
    let bundle = webhooks[0].client_config.ca_bundle.clone();
    certificates(&bundle.map(|pem| pem.0).unwrap_or_default())
}

/// Those of a PEM text.
pub fn certificates(pem: &[u8]) -> Vec<Root> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    all.unwrap()
}

/// The certificate that whoever connects is shown.
pub async fn shown(address: SocketAddr, name: &str) -> Result<Material, String> {
    let connected = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| e.to_string())?;
        let name = ServerName::try_from(name.to_owned()).map_err(|e| e.to_string())?;
        let tls = TlsConnector::from(tls_client(None).map_err(|e| e.to_string())?);
        let stream = tls.connect(name, stream).await.map_err(|e| e.to_string())?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(Material {
            chain: chain
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
            // Nobody needs the key of what is only looked at.
            key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(Vec::new())),
            roots: Vec::new(),
        })
    };
    let limited = tokio::time::timeout(cluster::LIMIT, connected).await;
    limited.map_err(|_| "no handshake in time".to_owned())?
}

/// True when the certificate that is shown was signed below one of `roots`.
pub async fn is_of(address: SocketAddr, name: &str, roots: &[Root]) -> bool {
    let shown = shown(address, name).await;
    shown.is_ok_and(|shown| shown.verify(roots, name, SystemTime::now()).is_ok())
}

/// The URL of a Service by a name that certificates can hold.
pub fn local_url(service: &Service) -> String {
    format!("https://localhost:{}", service.address.port())
}
