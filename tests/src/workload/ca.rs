//! A certificate authority in this process, with its workload socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use portcullis_ca::ca::{Ca, Options};
use portcullis_ca::clock::SystemClock;
use portcullis_ca::entry::Entry;
use portcullis_ca::identities::Identities;
use portcullis_ca::selector::Selector;
use portcullis_ca::spiffe_id::SpiffeId;
use portcullis_ca::store::AuthorityKind;
use portcullis_ca::trust_domain::TrustDomain;
use portcullis_ca::wire::{WorkloadServer, WorkloadServerOptions};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// The trust domain of the tests.
pub const TRUST_DOMAIN: &str = "example.org";

/// A running certificate authority; ends when it is dropped.
pub struct CertificateAuthority {
    runtime: Runtime,
    ca: Arc<Ca>,
    socket: PathBuf,
    _stop: oneshot::Sender<()>,
}

impl CertificateAuthority {
    /// Starts one whose data and socket are in `folder`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::with(folder, |_| {})
    }

    /// Starts one with options of its own.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn with(folder: &Path, change: impl FnOnce(&mut Options)) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let mut options = Options::new(TrustDomain::new(TRUST_DOMAIN)?, folder.join("data"));
        change(&mut options);
        let socket = folder.join("workload.sock");
        let (stop, stopped) = oneshot::channel::<()>();
        let (ca, server) = runtime.block_on(async {
            let ca = Arc::new(Ca::open(options, Arc::new(SystemClock)).await?);
            let server = WorkloadServer::bind(WorkloadServerOptions::new(&socket)).await?;
            anyhow::Ok((ca, server))
        })?;
        let identities: Arc<dyn Identities> = Arc::clone(&ca) as Arc<dyn Identities>;
        runtime.spawn(server.run(identities, async {
            let _ = stopped.await;
        }));
        Ok(Self {
            runtime,
            ca,
            socket,
            _stop: stop,
        })
    }

    /// Where workloads connect.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The authority itself.
    #[must_use]
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// Gives whoever has `selector` the identity `/name` of the trust domain.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn entry(&self, name: &str, selector: &str) -> Result<()> {
        self.entry_with_hint(name, selector, "")
    }

    /// The same, with a hint of the operator's.
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    pub fn entry_with_hint(&self, name: &str, selector: &str, hint: &str) -> Result<()> {
        let registry = self.ca.registry();
        let entry = Entry {
            id: String::new(),
            spiffe_id: SpiffeId::parse(&id(name))?,
            parent_id: registry.local_agent(),
            selectors: vec![selector.parse::<Selector>()?],
            x509_ttl: None,
            jwt_ttl: None,
            dns_names: Vec::new(),
            federates_with: Vec::new(),
            hint: hint.to_owned(),
            admin: false,
            downstream: false,
            store_svid: false,
            expires_at: None,
            revision_number: 0,
            created_at: SystemTime::UNIX_EPOCH,
        };
        let created = registry.create(vec![entry], "tests");
        let results = self.runtime.block_on(created)?;
        for result in results {
            result.map_err(|error| anyhow!("{error}"))?;
        }
        Ok(())
    }

    /// Takes every identity away.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn delete_all(&self) -> Result<()> {
        let registry = self.ca.registry();
        let ids: Vec<String> = registry
            .index()
            .after("")
            .map(|entry| entry.id.clone())
            .collect();
        let deleted = registry.delete(ids, "tests");
        self.runtime.block_on(deleted)?;
        Ok(())
    }

    /// Prepares the next authority: published to everybody, not used yet.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn prepare(&self, kind: AuthorityKind) -> Result<String> {
        let prepared = self.runtime.block_on(self.ca.prepare(kind, "tests"))?;
        Ok(prepared.row.id.clone())
    }

    /// Lets the prepared authority sign, once everybody has it; returns the identifier of the one that did before.
    ///
    /// # Errors
    /// A live stream does not have it in time.
    pub fn activate(&self, kind: AuthorityKind, id: &str) -> Result<String> {
        let before = self.ca.authorities();
        let before = before.active(kind).context("an authority is active")?;
        let before = before.row.id.clone();
        self.runtime.block_on(self.ca.activate(kind, id, "tests"))?;
        Ok(before)
    }

    /// Has everything that an old authority signed issued anew.
    ///
    /// # Errors
    /// It is not old.
    pub fn taint(&self, kind: AuthorityKind, id: &str) -> Result<()> {
        let tainted = self.ca.taint(kind, id, false, "tests");
        self.runtime.block_on(tainted)?;
        Ok(())
    }

    /// Takes a tainted authority out of the bundle.
    ///
    /// # Errors
    /// It is not tainted.
    pub fn revoke(&self, kind: AuthorityKind, id: &str) -> Result<()> {
        self.runtime.block_on(self.ca.revoke(kind, id, "tests"))?;
        Ok(())
    }

    /// Waits until every live stream has our newest bundle.
    ///
    /// # Errors
    /// One has not within ten seconds.
    pub fn delivered(&self) -> Result<()> {
        let reached = self.ca.deliveries().reached(self.ca.bundle().sequence);
        let limit = Duration::from_secs(10);
        self.runtime
            .block_on(async { tokio::time::timeout(limit, reached).await })
            .context("a stream does not have the newest bundle")
    }
}

/// The identity `/name` of the trust domain.
#[must_use]
pub fn id(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{name}")
}
