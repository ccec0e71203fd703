//! Federation relationships, and the bundles that they bring.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use super::{Actor, Registry, RegistryError, Results};
use crate::bundle::Bundle;
use crate::federation::{RefreshError, Relationship};
use crate::journal::Record;
use crate::registry::bundles::SetMode;
use crate::store;
use crate::trust_domain::TrustDomain;

/// All relationships, by name.
pub type Federations = Arc<BTreeMap<TrustDomain, Arc<Relationship>>>;

impl Registry {
    /// The relationships.
    #[must_use]
    pub fn federations(&self) -> Federations {
        Arc::clone(
            &self
                .federations
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Sets relationships, each with the bundle to begin with, if there is one. Each stands or falls alone; those that
    /// stand are stored together.
    ///
    /// # Errors
    /// When nothing could be stored.
    pub async fn set_federations(
        &self,
        relationships: Vec<(Relationship, Option<Bundle>)>,
        mode: SetMode,
        actor: &Actor,
    ) -> Result<Results<Arc<Relationship>>, RegistryError> {
        let mut writer = self.store.writer().await;
        let mut transaction = writer.begin().await?;
        let mut known = BTreeMap::clone(&self.federations());
        let mut bundles = self.bundles().clone();
        let (mut results, mut records) = (Vec::new(), Vec::new());
        let now = self.clock.now();
        for (relationship, bundle) in relationships {
            let name = relationship.trust_domain.clone();
            let is_there = known.contains_key(&name);
            if name == self.trust_domain {
                results.push(Err(RegistryError::OwnFederation(name)));
                continue;
            }
            if is_there && mode == SetMode::Create {
                results.push(Err(RegistryError::FederationExists(name)));
                continue;
            }
            if !is_there && mode == SetMode::Update {
                results.push(Err(RegistryError::NoFederation(name)));
                continue;
            }
            if let Some(bundle) = bundle {
                store::bundles::put(&mut transaction, &bundle, now).await?;
                records.push(
                    Record::new("bundle_set")
                        .with("actor", actor)
                        .with("trust_domain", name.as_str())
                        .with("sequence", bundle.sequence),
                );
                bundles.insert(name.clone(), Arc::new(bundle));
            }
            store::federations::put(&mut transaction, &relationship, now).await?;
            records.push(
                Record::new("federation_set")
                    .with("actor", actor)
                    .with("trust_domain", name.as_str())
                    .with("url", relationship.url.as_str())
                    .with("profile", relationship.profile.as_str()),
            );
            let relationship = Arc::new(relationship);
            known.insert(name, Arc::clone(&relationship));
            results.push(Ok(relationship));
        }
        if !records.is_empty() {
            self.finish(transaction, records).await?;
            *self.bundles.write().unwrap_or_else(PoisonError::into_inner) = bundles;
            *self
                .federations
                .write()
                .unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
            self.changed();
        }
        Ok(results)
    }

    /// Ends a relationship. The bundle stays as it is: workloads lose no trust by surprise.
    ///
    /// # Errors
    /// When nothing could be stored; the inner error is that there is none.
    pub async fn delete_federation(
        &self,
        trust_domain: TrustDomain,
        actor: &Actor,
    ) -> Result<Result<TrustDomain, RegistryError>, RegistryError> {
        let mut writer = self.store.writer().await;
        let mut known = BTreeMap::clone(&self.federations());
        if known.remove(&trust_domain).is_none() {
            return Ok(Err(RegistryError::NoFederation(trust_domain)));
        }
        let mut transaction = writer.begin().await?;
        store::federations::remove(&mut transaction, &trust_domain).await?;
        let record = Record::new("federation_deleted")
            .with("actor", actor)
            .with("trust_domain", trust_domain.as_str());
        self.finish(transaction, vec![record]).await?;
        *self
            .federations
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        Ok(Ok(trust_domain))
    }

    /// Takes over a bundle that was fetched, whole; true when it is another one. An older sequence than the known one is
    /// refused, and so is the bundle of a relationship that ended meanwhile.
    ///
    /// # Errors
    /// When it is refused or cannot be stored.
    pub async fn set_fetched_bundle(&self, bundle: Bundle) -> Result<bool, RefreshError> {
        let name = bundle.trust_domain.clone();
        let mut writer = self.store.writer().await;
        // Looked at as the only writer: what was read before may be older by now.
        if !self.federations().contains_key(&name) {
            return Err(RefreshError::NoRelationship(name));
        }
        if let Some(known) = self.bundle(&name) {
            if bundle.sequence < known.sequence {
                return Err(RefreshError::Older {
                    trust_domain: name,
                    offered: bundle.sequence,
                    known: known.sequence,
                });
            }
            if *known == bundle {
                return Ok(false);
            }
            if bundle.sequence == known.sequence && bundle.sequence > 0 {
                let sequence = bundle.sequence;
                tracing::warn!(trust_domain = %name, sequence, "a bundle has changed and its sequence has not");
            }
        }
        let mut transaction = writer.begin().await.map_err(RegistryError::from)?;
        store::bundles::put(&mut transaction, &bundle, self.clock.now())
            .await
            .map_err(RegistryError::from)?;
        let record = Record::new("bundle_fetched")
            .with("trust_domain", name.as_str())
            .with("sequence", bundle.sequence)
            .with("x509_authorities", bundle.x509_authorities.len())
            .with("jwt_authorities", bundle.jwt_authorities.len());
        self.finish(transaction, vec![record]).await?;
        self.bundles
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, Arc::new(bundle));
        self.changed();
        Ok(true)
    }
}
