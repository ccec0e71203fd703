//! Our identity from a SPIFFE Workload API: certificate, key and bundles, renewed by its stream.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::x509_source::SvidPicker;
use spiffe::{X509Source, X509Svid};
use tokio::sync::watch;

use super::clients::Federated;
use super::{AllowList, Current};
use crate::limits::Counters;

/// Rest after a failure that the source does not get over by itself.
const REST: Duration = Duration::from_secs(5);

/// A SPIFFE Workload API, and which of the SVIDs that it gives us is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadApi {
    /// `unix:PATH` or `tcp:IP:PORT`.
    pub endpoint: String,
    /// Which SVID; `None`: the first, which is the default one (SPIFFE Workload API section 5.3).
    pub choice: Option<Choice>,
}

/// One SVID of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// That of this SPIFFE ID.
    SpiffeId(String),
    /// That with this hint of the operator's; the first, if there are several.
    Hint(String),
}

impl Choice {
    fn is(&self, svid: &X509Svid) -> bool {
        match self {
            Self::SpiffeId(id) => svid.spiffe_id().to_string() == *id,
            Self::Hint(hint) => svid.hint() == Some(hint),
        }
    }
}

impl SvidPicker for Choice {
    fn pick_svid(&self, svids: &[Arc<X509Svid>]) -> Option<usize> {
        let found = svids.iter().position(|svid| self.is(svid));
        if found.is_none() {
            let given = svids.iter().map(|svid| (svid.spiffe_id(), svid.hint()));
            let given: Vec<String> = given
                .map(|(id, hint)| match hint {
                    Some(hint) => format!("{id} (hint `{hint}`)"),
                    None => id.to_string(),
                })
                .collect();
            tracing::warn!(wanted = ?self, ?given, "no SVID of the Workload API is the one that the listener names");
        }
        found
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Follows the Workload API for one listener.
#[derive(Debug)]
pub(crate) struct Follower {
    endpoint: String,
    choice: Option<Choice>,
    allowed: Option<AllowList>,
    alpn: &'static [u8],
    counters: Arc<Counters>,
    current: watch::Sender<Current>,
}

impl Follower {
    pub(super) fn new(
        source: WorkloadApi,
        allowed: Option<AllowList>,
        alpn: &'static [u8],
        counters: Arc<Counters>,
    ) -> (Self, watch::Receiver<Current>) {
        let (current, receiver) = watch::channel(None);
        let follower = Self {
            endpoint: source.endpoint,
            choice: source.choice,
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

    async fn follow(&self) -> Result<(), Failure> {
        let mut source = X509Source::builder().endpoint(&self.endpoint);
        if let Some(choice) = &self.choice {
            source = source.picker(choice.clone());
        }
        let source = source.build().await?;
        let mut updates = source.updated();
        let mut leaf = None;
        loop {
            match self.serve(&source, &mut leaf) {
                Ok(()) => {}
                // What was in force stays.
                Err(error) => {
                    Counters::count(&self.counters.certificates_refused);
                    let endpoint = &self.endpoint;
                    tracing::error!(endpoint, %error, "an identity from the Workload API is refused");
                }
            }
            updates.changed().await?;
        }
    }

    /// Puts in force what the source has now: certificate and bundles together, in one step.
    fn serve(&self, source: &X509Source, leaf: &mut Option<Vec<u8>>) -> Result<(), Failure> {
        let context = source.x509_context()?;
        let svid = source.svid()?;
        let id = svid.spiffe_id();
        let clients = Federated::new(
            context.bundle_set(),
            // Without a list: those of our own trust domain.
            self.allowed.is_none().then(|| id.trust_domain()),
            self.allowed.clone(),
            Arc::clone(&self.counters),
        )?;
        let chain = svid.cert_chain().iter();
        let chain = chain.map(|c| CertificateDer::from(c.as_bytes().to_vec()));
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(
            svid.private_key().as_bytes().to_vec(),
        ));
        let mut config = ServerConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(clients))
            .with_single_cert(chain.collect(), key)?;
        super::settle(&mut config, self.alpn);
        let first = self.current.send_replace(Some(Arc::new(config))).is_none();
        // An update may bring other bundles alone.
        let now = svid.leaf().as_bytes().to_vec();
        if leaf.as_ref() != Some(&now) {
            *leaf = Some(now);
            if !first {
                Counters::count(&self.counters.certificates_swapped);
            }
            tracing::info!(endpoint = self.endpoint, %id, "a certificate from the Workload API is in force");
        }
        Ok(())
    }
}
