//! Bundles of other trust domains.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLockReadGuard};

use super::{Actor, Registry, RegistryError, Results};
use crate::bundle::Bundle;
use crate::entry::Entry;
use crate::journal::Record;
use crate::store;
use crate::trust_domain::TrustDomain;

/// What setting a bundle may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// There must be none.
    Create,
    /// There must be one.
    Update,
    /// Either.
    Set,
}

/// What becomes of entries that federate with a bundle that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteMode {
    /// The bundle stays while there are any.
    Restrict,
    /// They are deleted, too.
    Delete,
    /// They no longer federate with it.
    Dissociate,
}

impl Registry {
    /// The bundles, by name. Hold it shortly and across no `.await`.
    pub fn bundles(&self) -> RwLockReadGuard<'_, BTreeMap<TrustDomain, Arc<Bundle>>> {
        self.bundles.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bundle of another trust domain.
    #[must_use]
    pub fn bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<Bundle>> {
        self.bundles().get(trust_domain).cloned()
    }

    /// Sets bundles of other trust domains. Each stands or falls alone; those that stand are stored together.
    ///
    /// # Errors
    /// When nothing could be stored.
    pub async fn set_bundles(
        &self,
        bundles: Vec<Bundle>,
        mode: SetMode,
        actor: &Actor,
    ) -> Result<Results<Arc<Bundle>>, RegistryError> {
        let mut writer = self.store.writer().await;
        let mut transaction = writer.begin().await?;
        let mut known: BTreeMap<TrustDomain, Arc<Bundle>> = self.bundles().clone();
        let (mut results, mut records) = (Vec::new(), Vec::new());
        let now = self.clock.now();
        for bundle in bundles {
            let name = bundle.trust_domain.clone();
            let is_there = known.contains_key(&name);
            if name == self.trust_domain {
                results.push(Err(RegistryError::OwnBundle(name)));
            } else if is_there && mode == SetMode::Create {
                results.push(Err(RegistryError::BundleExists(name)));
            } else if !is_there && mode == SetMode::Update {
                results.push(Err(RegistryError::NoBundle(name)));
            } else {
                store::bundles::put(&mut transaction, &bundle, now).await?;
                let bundle = Arc::new(bundle);
                records.push(
                    Record::new("bundle_set")
                        .with("actor", actor)
                        .with("trust_domain", name.as_str())
                        .with("sequence", bundle.sequence)
                        .with("x509_authorities", bundle.x509_authorities.len())
                        .with("jwt_authorities", bundle.jwt_authorities.len()),
                );
                known.insert(name, Arc::clone(&bundle));
                results.push(Ok(bundle));
            }
        }
        if !records.is_empty() {
            self.finish(transaction, records).await?;
            *self.bundles.write().unwrap_or_else(PoisonError::into_inner) = known;
            self.changed();
        }
        Ok(results)
    }

    /// Deletes bundles of other trust domains, and does to entries what `mode` says. They are done one after the other.
    ///
    /// # Errors
    /// When something could not be stored.
    pub async fn delete_bundles(
        &self,
        trust_domains: Vec<TrustDomain>,
        mode: DeleteMode,
        actor: &Actor,
    ) -> Result<Results<TrustDomain>, RegistryError> {
        let mut results = Vec::new();
        for trust_domain in trust_domains {
            results.push(self.delete_bundle(trust_domain, mode, actor).await?);
        }
        Ok(results)
    }

    async fn delete_bundle(
        &self,
        trust_domain: TrustDomain,
        mode: DeleteMode,
        actor: &Actor,
    ) -> Result<Result<TrustDomain, RegistryError>, RegistryError> {
        if !self.bundles().contains_key(&trust_domain) {
            return Ok(Err(RegistryError::NoBundle(trust_domain)));
        }
        let federated: Vec<String> = {
            let index = self.index();
            let entries = index
                .after("")
                .filter(|entry| entry.federates_with.contains(&trust_domain));
            entries.map(|entry| entry.id.clone()).collect()
        };
        if !federated.is_empty() {
            match mode {
                DeleteMode::Restrict => {
                    return Ok(Err(RegistryError::BundleInUse {
                        trust_domain,
                        count: federated.len(),
                    }));
                }
                DeleteMode::Delete => {
                    self.delete(federated, actor).await?;
                }
                DeleteMode::Dissociate => {
                    let leave = |entry: &mut Entry| {
                        entry.federates_with.retain(|other| other != &trust_domain);
                        Ok(())
                    };
                    let updates = federated.into_iter().map(|id| (id, leave)).collect();
                    self.update(updates, actor).await?;
                }
            }
        }
        let mut writer = self.store.writer().await;
        let mut transaction = writer.begin().await?;
        store::bundles::remove(&mut transaction, &trust_domain).await?;
        let record = Record::new("bundle_deleted")
            .with("actor", actor)
            .with("trust_domain", trust_domain.as_str());
        self.finish(transaction, vec![record]).await?;
        self.bundles
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&trust_domain);
        self.changed();
        Ok(Ok(trust_domain))
    }
}
