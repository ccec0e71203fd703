//! The registry: which callers have which identities, and the bundles of other trust domains.
//!
//! One writer at a time: a change is validated, written, recorded in the journal, committed, and only then
//! seen in memory. Readers never wait for the disk.

pub mod bundles;
pub mod federations;
pub mod index;
pub mod reconcile;
pub mod validate;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::bundle::Bundle;
use crate::clock::Clock;
use crate::entry::Entry;
use crate::journal::{Journal, JournalError, Record};
use crate::spiffe_id::SpiffeId;
use crate::store::{self, Meta, Store, StoreError};
use crate::trust_domain::TrustDomain;
use crate::x509::certificate::{hex, whole_seconds};
use federations::Federations;
use index::{Change, Index};
use validate::EntryError;

/// Who changes the registry, for the journal: `uid:0`, a SPIFFE ID.
pub type Actor = str;

/// The registry.
#[derive(Debug)]
pub struct Registry {
    trust_domain: TrustDomain,
    store: Arc<Store>,
    journal: Journal,
    clock: Arc<dyn Clock>,
    index: RwLock<Index>,
    bundles: RwLock<BTreeMap<TrustDomain, Arc<Bundle>>>,
    federations: RwLock<Federations>,
    changes: watch::Sender<u64>,
}

/// A change of the registry that was not made.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The entry breaks a rule.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// There is one that grants the same.
    #[error("similar entry already exists")]
    Similar(Arc<Entry>),
    /// The identifier is taken.
    #[error("an entry with the identifier `{0}` already exists")]
    IdTaken(String),
    /// No such entry.
    #[error("entry not found: `{0}`")]
    NotFound(String),
    /// No such bundle.
    #[error("bundle not found: `{0}`")]
    NoBundle(TrustDomain),
    /// There is a bundle of that trust domain.
    #[error("bundle already exists: `{0}`")]
    BundleExists(TrustDomain),
    /// Our own bundle is made of our authorities.
    #[error(
        "`{0}` is our own trust domain: its bundle follows from its authorities and cannot be set"
    )]
    OwnBundle(TrustDomain),
    /// Entries federate with it.
    #[error(
        "{count} entries federate with `{trust_domain}`: change them first, or delete the bundle in mode `dissociate` or `delete`"
    )]
    BundleInUse {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// How many entries.
        count: usize,
    },
    /// No such relationship.
    #[error("there is no federation relationship with the trust domain `{0}`")]
    NoFederation(TrustDomain),
    /// There is one with that trust domain.
    #[error("a federation relationship with the trust domain `{0}` already exists")]
    FederationExists(TrustDomain),
    /// Nobody federates with itself.
    #[error(
        "`{0}` is our own trust domain: its bundle follows from its authorities and is not fetched"
    )]
    OwnFederation(TrustDomain),
    /// The database failed; nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal failed; nothing was changed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl From<sqlx::Error> for RegistryError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// One result for each item that was handed in, in order.
pub type Results<T> = Vec<Result<T, RegistryError>>;

impl Registry {
    /// Reads everything that is stored.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn open(
        trust_domain: TrustDomain,
        store: Arc<Store>,
        journal: Journal,
        clock: Arc<dyn Clock>,
        changes: watch::Sender<u64>,
    ) -> Result<Self, StoreError> {
        let mut index = Index::default();
        let (bundles, federations) = {
            let mut writer = store.writer().await;
            let mut transaction = writer.begin().await?;
            let revision = store::meta(&mut transaction, Meta::Revision)
                .await?
                .unwrap_or(0);
            let entries = store::entries::all(&mut transaction).await?;
            let changes = entries
                .into_iter()
                .map(|entry| Change::Put(Arc::new(entry)));
            if revision > 0 {
                // A new index is at revision 0: this cannot go back.
                let _ = index.apply(changes.collect(), revision);
            }
            let federations = store::federations::all(&mut transaction).await?;
            (store::bundles::all(&mut transaction).await?, federations)
        };
        let federations = federations
            .into_iter()
            .map(|one| (one.trust_domain.clone(), Arc::new(one)));
        let bundles = bundles
            .into_iter()
            .map(|bundle| (bundle.trust_domain.clone(), Arc::new(bundle)));
        Ok(Self {
            bundles: RwLock::new(bundles.collect()),
            federations: RwLock::new(Arc::new(federations.collect())),
            index: RwLock::new(index),
            trust_domain,
            store,
            journal,
            clock,
            changes,
        })
    }

    /// The entries. Hold it shortly and across no `.await`.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The SPIFFE ID of the agent in this process, the parent of entries that name none.
    #[must_use]
    pub fn local_agent(&self) -> SpiffeId {
        local_agent(&self.trust_domain)
    }

    /// Creates entries. Each stands or falls alone; those that stand are stored together.
    ///
    /// # Errors
    /// When nothing could be stored.
    pub async fn create(
        &self,
        entries: Vec<Entry>,
        actor: &Actor,
    ) -> Result<Results<Arc<Entry>>, RegistryError> {
        let mut change = self.begin().await?;
        let now = whole_seconds(self.clock.now());
        let mut results = Vec::with_capacity(entries.len());
        for mut entry in entries {
            entry.created_at = now;
            entry.revision_number = 0;
            results.push(self.admit(&mut entry, &change).map(|()| {
                let entry = Arc::new(entry);
                change.put(Arc::clone(&entry), "entry_created", actor);
                entry
            }));
        }
        self.commit(change).await?;
        Ok(results)
    }

    fn admit(&self, entry: &mut Entry, change: &Pending) -> Result<(), RegistryError> {
        validate::entry(entry, &self.trust_domain)?;
        let index = self.index();
        match entry.id.is_empty() {
            true => entry.id = uuid()?,
            false => {
                validate::id(&entry.id)?;
                if index.entry(&entry.id).is_some() || change.entries.contains_key(&entry.id) {
                    return Err(RegistryError::IdTaken(entry.id.clone()));
                }
            }
        }
        self.conflicts(entry, &index, change)
    }

    /// What cannot stand beside the others.
    fn conflicts(
        &self,
        entry: &Entry,
        index: &Index,
        change: &Pending,
    ) -> Result<(), RegistryError> {
        let is_gone =
            |other: &&Arc<Entry>| change.entries.get(&other.id).is_none_or(Option::is_some);
        if let Some(similar) = index
            .similar(entry)
            .filter(|other| other.id != entry.id)
            .filter(is_gone)
        {
            return Err(RegistryError::Similar(Arc::clone(similar)));
        }
        if let Some(similar) = change
            .similar
            .get(&similarity(entry))
            .filter(|other| other.id != entry.id)
        {
            return Err(RegistryError::Similar(Arc::clone(similar)));
        }
        if !entry.hint.is_empty() {
            let taken = index.with_hint(&entry.hint, entry).filter(is_gone);
            let taken = taken.or_else(|| {
                change
                    .hints
                    .get(&hint_key(entry))
                    .filter(|other| other.id != entry.id)
            });
            if let Some(other) = taken {
                return Err(EntryError::HintTaken {
                    hint: entry.hint.clone(),
                    id: other.id.clone(),
                }
                .into());
            }
        }
        Ok(())
    }

    /// Changes entries: `update` gets each as it is and makes of it what it shall be.
    ///
    /// # Errors
    /// When nothing could be stored.
    pub async fn update<F>(
        &self,
        updates: Vec<(String, F)>,
        actor: &Actor,
    ) -> Result<Results<Arc<Entry>>, RegistryError>
    where
        F: FnOnce(&mut Entry) -> Result<(), RegistryError>,
    {
        let mut change = self.begin().await?;
        let mut results = Vec::with_capacity(updates.len());
        for (id, update) in updates {
            let updated = self.updated(&id, update, &change);
            if let Ok(entry) = &updated {
                change.put(Arc::clone(entry), "entry_updated", actor);
            }
            results.push(updated);
        }
        self.commit(change).await?;
        Ok(results)
    }

    fn updated<F>(&self, id: &str, update: F, change: &Pending) -> Result<Arc<Entry>, RegistryError>
    where
        F: FnOnce(&mut Entry) -> Result<(), RegistryError>,
    {
        let index = self.index();
        let before = match change.entries.get(id) {
            Some(pending) => pending.as_ref(),
            None => index.entry(id),
        };
        let before = before.ok_or_else(|| RegistryError::NotFound(id.to_owned()))?;
        let mut entry = Entry::clone(before);
        update(&mut entry)?;
        validate::entry(&mut entry, &self.trust_domain)?;
        // Not for the update to say.
        entry.id = id.to_owned();
        entry.created_at = before.created_at;
        entry.revision_number = before.revision_number + 1;
        self.conflicts(&entry, &index, change)?;
        Ok(Arc::new(entry))
    }

    /// Deletes entries.
    ///
    /// # Errors
    /// When nothing could be stored.
    pub async fn delete(
        &self,
        ids: Vec<String>,
        actor: &Actor,
    ) -> Result<Results<String>, RegistryError> {
        let mut change = self.begin().await?;
        let mut results = Vec::with_capacity(ids.len());
        for id in ids {
            let is_there = match change.entries.get(&id) {
                Some(pending) => pending.clone(),
                None => self.index().entry(&id).cloned(),
            };
            results.push(match is_there {
                None => Err(RegistryError::NotFound(id)),
                Some(entry) => {
                    change.remove(&entry, "entry_deleted", actor);
                    Ok(id)
                }
            });
        }
        self.commit(change).await?;
        Ok(results)
    }

    /// Removes entries whose time is over; says how many.
    ///
    /// # Errors
    /// When nothing could be stored.
    pub async fn prune(&self) -> Result<usize, RegistryError> {
        let now = self.clock.now();
        let expired: Vec<Arc<Entry>> = {
            let index = self.index();
            index
                .after("")
                .filter(|entry| entry.is_expired(now))
                .cloned()
                .collect()
        };
        if expired.is_empty() {
            return Ok(0);
        }
        let mut change = self.begin().await?;
        for entry in &expired {
            change.remove(entry, "entry_expired", "expiry");
        }
        self.commit(change).await?;
        Ok(expired.len())
    }

    /// Wakes everybody whose answer may be another now.
    fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    async fn begin(&self) -> Result<Pending<'_>, RegistryError> {
        Ok(Pending {
            writer: self.store.writer().await,
            entries: HashMap::new(),
            order: Vec::new(),
            similar: HashMap::new(),
            hints: HashMap::new(),
            records: Vec::new(),
        })
    }

    /// Written, recorded, committed, seen: in this order.
    async fn commit(&self, mut change: Pending<'_>) -> Result<(), RegistryError> {
        if change.order.is_empty() {
            return Ok(());
        }
        let mut transaction = change.writer.begin().await?;
        let revision = store::next(&mut transaction, Meta::Revision).await?;
        let mut changes = Vec::with_capacity(change.order.len());
        let mut puts = Vec::new();
        for id in change.order {
            match change.entries.remove(&id) {
                Some(Some(entry)) => {
                    puts.push(Arc::clone(&entry));
                    changes.push(Change::Put(entry));
                }
                Some(None) => {
                    // In the order in which they were asked for.
                    store::entries::put(&mut transaction, &std::mem::take(&mut puts), revision)
                        .await?;
                    store::entries::remove(&mut transaction, &id).await?;
                    changes.push(Change::Remove(id));
                }
                // An identifier that was changed twice: the last word was written the first time.
                None => {}
            }
        }
        store::entries::put(&mut transaction, &puts, revision).await?;
        let records = change
            .records
            .into_iter()
            .map(|record| record.with("revision", revision));
        self.finish(transaction, records.collect()).await?;
        if let Err(error) = self.index_mut().apply(changes, revision) {
            tracing::error!(%error, "the registry in memory is ahead of the one on disk");
        }
        self.changed();
        Ok(())
    }

    async fn finish(
        &self,
        transaction: store::OpenTransaction<'_>,
        records: Vec<Record>,
    ) -> Result<(), RegistryError> {
        crate::fail::point("written");
        self.journal.append(records).await?;
        crate::fail::point("recorded");
        if let Err(error) = transaction.commit().await {
            // The journal says more than what is: it says so, too.
            let undone = Record::new("registry_change_undone").with("cause", error.to_string());
            self.journal.append(vec![undone]).await?;
            return Err(error.into());
        }
        crate::fail::point("committed");
        Ok(())
    }
}

/// Changes that are not stored yet; whoever has them is the only writer.
struct Pending<'a> {
    writer: store::Writer<'a>,
    /// `None`: to be removed.
    entries: HashMap<String, Option<Arc<Entry>>>,
    order: Vec<String>,
    similar: HashMap<String, Arc<Entry>>,
    hints: HashMap<String, Arc<Entry>>,
    records: Vec<Record>,
}

impl Pending<'_> {
    fn put(&mut self, entry: Arc<Entry>, event: &'static str, actor: &Actor) {
        self.record(event, &entry, actor);
        self.similar.insert(similarity(&entry), Arc::clone(&entry));
        if !entry.hint.is_empty() {
            self.hints.insert(hint_key(&entry), Arc::clone(&entry));
        }
        self.order.push(entry.id.clone());
        self.entries.insert(entry.id.clone(), Some(entry));
    }

    fn remove(&mut self, entry: &Entry, event: &'static str, actor: &Actor) {
        self.record(event, entry, actor);
        self.similar.remove(&similarity(entry));
        self.hints.remove(&hint_key(entry));
        self.order.push(entry.id.clone());
        self.entries.insert(entry.id.clone(), None);
    }

    fn record(&mut self, event: &'static str, entry: &Entry, actor: &Actor) {
        let selectors: Vec<String> = entry.selectors.iter().map(ToString::to_string).collect();
        self.records.push(
            Record::new(event)
                .with("actor", actor)
                .with("entry", entry.id.as_str())
                .with("entry_revision", entry.revision_number)
                .with("spiffe_id", entry.spiffe_id.as_str())
                .with("parent_id", entry.parent_id.as_str())
                .with("selectors", selectors),
        );
    }
}

/// The SPIFFE ID of the agent in the process of a trust domain's server.
#[must_use]
pub fn local_agent(trust_domain: &TrustDomain) -> SpiffeId {
    SpiffeId::new(trust_domain, "/spire/agent/local")
        .unwrap_or_else(|_| SpiffeId::of_trust_domain(trust_domain))
}

/// Two entries with the same text grant the same identity to the same callers.
fn similarity(entry: &Entry) -> String {
    format!("{} {}", entry.spiffe_id, callers(entry))
}

fn hint_key(entry: &Entry) -> String {
    format!("{} {}", callers(entry), entry.hint)
}

fn callers(entry: &Entry) -> String {
    let selectors: Vec<String> = entry.selectors.iter().map(ToString::to_string).collect();
    format!("{} {}", entry.parent_id, serde_json::Value::from(selectors))
}

/// A random UUID (RFC 9562 §5.4).
fn uuid() -> Result<String, RegistryError> {
    use ring::rand::{SecureRandom as _, SystemRandom};
    let mut bytes = [0u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        RegistryError::Store(StoreError::Content {
            what: "identifier",
            name: "new".to_owned(),
            cause: "the random source failed".to_owned(),
        })
    })?;
    let mut number = u128::from_be_bytes(bytes);
    number = number & !(0xf << 76) | 0x4 << 76;
    number = number & !(0x3 << 62) | 0x2 << 62;
    let text = hex(&number.to_be_bytes());
    let ends = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    let parts = ends.map(|(start, end)| text.get(start..end).unwrap_or_default());
    Ok(parts.join("-"))
}

/// Time that an entry may be served from now, at most until its expiry.
#[must_use]
pub fn serve_until(entries: &[Arc<Entry>]) -> Option<SystemTime> {
    entries.iter().filter_map(|entry| entry.expires_at).min()
}

#[cfg(test)]
mod tests;
