//! Our identity from a SPIFFE Workload API: certificate, key and bundles, renewed by its stream.

use std::sync::Arc;
use std::time::Duration;

use spiffe::{SpiffeId, X509Source};
use spiffe_rustls::{TrustDomainPolicy, mtls_server};
use tokio::sync::watch;

use super::{AllowList, Current, clients};
use crate::limits::Counters;

/// Rest after a failure that the source does not get over by itself.
const REST: Duration = Duration::from_secs(5);

/// Follows the Workload API for one listener.
#[derive(Debug)]
pub(crate) struct Follower {
    endpoint: String,
    allowed: Option<AllowList>,
    alpn: &'static [u8],
    counters: Arc<Counters>,
    current: watch::Sender<Current>,
}

impl Follower {
    pub(super) fn new(
        endpoint: String,
        allowed: Option<AllowList>,
        alpn: &'static [u8],
        counters: Arc<Counters>,
    ) -> (Self, watch::Receiver<Current>) {
        let (current, receiver) = watch::channel(None);
        let follower = Self {
            endpoint,
            allowed,
            alpn,
            counters,
            current,
        };
        (follower, receiver)
    }

    /// Follows it until dropped. Without an identity no handshake succeeds; one that we have stays in
    /// force while nobody answers.
    pub(super) async fn run(self) {
        loop {
            if let Err(error) = self.follow().await {
                let endpoint = &self.endpoint;
                tracing::warn!(endpoint, %error, "no identity from the Workload API; trying again");
            }
            tokio::time::sleep(REST).await;
        }
    }

    async fn follow(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let source = X509Source::builder().endpoint(&self.endpoint);
        let source = source.build().await?;
        let svid = source.svid()?;
        let allowed = self.allowed.clone();
        let counters = Arc::clone(&self.counters);
        // Its bundle verifies each client: the one of the trust domain that its SPIFFE ID names.
        let domains = match &allowed {
            Some(_) => TrustDomainPolicy::AnyInBundleSet,
            None => TrustDomainPolicy::LocalOnly(svid.spiffe_id().trust_domain().clone()),
        };
        let config = mtls_server(source.clone())
            .authorize(move |id: &SpiffeId| {
                let id = id.to_string();
                let may = allowed.as_ref().is_none_or(|allowed| allowed.holds(&id));
                if !may {
                    clients::refuse(&id, &counters);
                }
                may
            })
            .trust_domain_policy(domains)
            .with_alpn_protocols([self.alpn])
            .build()?;
        let again = self.current.borrow().is_some();
        self.current.send_replace(Some(Arc::new(config)));
        if again {
            Counters::count(&self.counters.certificates_swapped);
        }
        tracing::info!(endpoint = self.endpoint, id = %svid.spiffe_id(), "serving with an identity from the Workload API");
        let mut updates = source.updated();
        let mut serial = svid;
        while updates.changed().await.is_ok() {
            let Ok(now) = source.svid() else { continue };
            // An update may bring other bundles alone.
            if now.leaf().as_bytes() != serial.leaf().as_bytes() {
                Counters::count(&self.counters.certificates_swapped);
                tracing::info!(endpoint = self.endpoint, id = %now.spiffe_id(), "a new certificate is in force");
                serial = now;
            }
        }
        Err("the source ended".into())
    }
}
