//! A certificate from a SPIFFE Workload API: an X.509-SVID whose entry names our Service.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::x509_source::SvidPicker;
use spiffe::{X509Source, X509Svid};
use tokio::sync::watch;

use super::{Error, Material, Source};
use crate::metrics::{Metrics, count};

/// Rest after a failure that the client does not get over by itself.
const REST: Duration = Duration::from_secs(5);

/// A SPIFFE Workload API, and which of the SVIDs that it gives us is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadApi {
    /// `unix:PATH` or `tcp:IP:PORT`.
    pub endpoint: String,
    /// Hint of the SVID; `None`: the first.
    pub hint: Option<String>,
}

#[derive(Debug)]
struct Hinted(String);

impl SvidPicker for Hinted {
    fn pick_svid(&self, svids: &[Arc<X509Svid>]) -> Option<usize> {
        svids
            .iter()
            .position(|svid| svid.hint() == Some(self.0.as_str()))
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl WorkloadApi {
    /// Follows it until the receiver is gone. What we have stays while nobody answers.
    pub fn follow(self, metrics: Arc<Metrics>) -> (Source, impl Future<Output = ()> + Send) {
        let (sender, receiver) = watch::channel(None);
        let following = async move {
            while !sender.is_closed() {
                if let Err(cause) = self.feed(&sender).await {
                    let error = Error::WorkloadApi {
                        endpoint: self.endpoint.clone(),
                        cause: cause.to_string(),
                    };
                    count(&metrics.certificates_failed);
                    tracing::warn!(%error, "trying again");
                }
                tokio::time::sleep(REST).await;
            }
        };
        (receiver, following)
    }

    async fn feed(&self, sender: &watch::Sender<Option<Arc<Material>>>) -> Result<(), Failure> {
        let mut source = X509Source::builder().endpoint(&self.endpoint);
        if let Some(hint) = &self.hint {
            source = source.picker(Hinted(hint.clone()));
        }
        let source = source.build().await?;
        let mut updates = source.updated();
        loop {
            let svid = source.svid()?;
            let context = source.x509_context()?;
            let bundle = context.bundle_set().get(svid.spiffe_id().trust_domain());
            let bundle = bundle.ok_or("it gives no bundle of our own trust domain")?;
            let der = |certificate: &[u8]| CertificateDer::from(certificate.to_vec());
            let material = Material {
                chain: svid
                    .cert_chain()
                    .iter()
                    .map(|c| der(c.as_bytes()))
                    .collect(),
                key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(
                    svid.private_key().as_bytes().to_vec(),
                )),
                roots: bundle
                    .authorities()
                    .iter()
                    .map(|c| der(c.as_bytes()))
                    .collect(),
            };
            material.server_config()?;
            sender.send_replace(Some(Arc::new(material)));
            updates.changed().await?;
        }
    }
}
