//! What callers get: the other side of [`Identities`].

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::{OwnedMutexGuard, watch};

use super::Ca;
use super::issue::{JwtRequest, Requester, X509Request};
use super::svids::Cached;
use crate::authority::set::AuthoritySet;
use crate::bundle::Bundle;
use crate::caller::Caller;
use crate::delivery::Deliveries;
use crate::entry::Entry;
use crate::identities::{
    BundlesContext, Identities, IssueError, JwtSvid, ValidatedJwtSvid, WitContext, X509Context,
    X509Svid,
};
use crate::jwt_svid::{self, validate};
use crate::key::{KeyAlgorithm, MemoryKey, SigningKey as _};
use crate::registry;
use crate::spiffe_id::SpiffeId;
use crate::store::{AuthorityKind, AuthorityState};
use crate::trust_domain::TrustDomain;
use crate::x509::csr::ProvenKey;
use crate::x509::profile::LeafRequest;

/// When to look again although nothing is known to change.
const AT_THE_LATEST: Duration = Duration::from_secs(3600);

/// The place for an SVID, while it is issued.
type HeldSlot = OwnedMutexGuard<Option<Cached>>;

#[async_trait]
impl Identities for Ca {
    fn trust_domain(&self) -> &TrustDomain {
        Self::trust_domain(self)
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    fn is_entitled(&self, caller: &Caller) -> bool {
        !self.matching(caller).is_empty()
    }

    async fn x509_context(&self, caller: &Caller) -> Result<X509Context, IssueError> {
        let entries = self.entitled(caller, "x509_svid").await?;
        let cached = self.cached_svids(&entries, caller).await?;
        let now = self.clock.now();
        let mut hints: HashSet<&str> = HashSet::new();
        let mut svids = Vec::with_capacity(cached.len());
        let mut renew_at = now.checked_add(AT_THE_LATEST).unwrap_or(now);
        for (entry, cached) in entries.iter().zip(&cached) {
            // Hints are unique within a message; the oldest entry keeps one (Workload API §5.2.1).
            svids.push(cached.svid(entry.hint.is_empty() || hints.insert(&entry.hint)));
            renew_at = renew_at.min(cached.renew_at);
        }
        let BundlesContext {
            bundle,
            federated,
            crls,
        } = self.visible(&entries);
        Ok(X509Context {
            svids,
            bundle,
            federated,
            crls,
            renew_at: registry::serve_until(&entries).map_or(renew_at, |end| renew_at.min(end)),
        })
    }

    fn serves_wit(&self) -> bool {
        self.options.wit_svid
    }

    async fn wit_context(
        &self,
        caller: &Caller,
        spiffe_id: Option<&SpiffeId>,
    ) -> Result<WitContext, IssueError> {
        let entries = self.entitled(caller, "wit_svid").await?;
        self.wit_svids(entries, caller, spiffe_id).await
    }

    async fn bundles(&self, caller: &Caller) -> Result<BundlesContext, IssueError> {
        let entries = self.entitled(caller, "bundles").await?;
        Ok(self.visible(&entries))
    }

    async fn jwt_svids(
        &self,
        caller: &Caller,
        audiences: &[String],
        spiffe_id: Option<&SpiffeId>,
    ) -> Result<Vec<JwtSvid>, IssueError> {
        jwt_svid::check_audiences(audiences)
            .map_err(|error| IssueError::InvalidArgument(error.to_string()))?;
        let entries = self.entitled(caller, "jwt_svid").await?;
        let mut seen = HashSet::new();
        // Several entries may give a caller the same identity; the oldest speaks for it.
        let wanted: Vec<Arc<Entry>> = entries
            .into_iter()
            .filter(|entry| spiffe_id.is_none_or(|id| id == &entry.spiffe_id))
            .filter(|entry| seen.insert(entry.spiffe_id.clone()))
            .collect();
        let requester = Requester::caller(caller);
        if let (true, Some(id)) = (wanted.is_empty(), spiffe_id) {
            let denied = IssueError::NotEntitled(id.clone());
            self.record_denial(&requester, "jwt_svid", &denied).await?;
            return Err(denied);
        }
        let requests = wanted.iter().map(|entry| JwtRequest {
            spiffe_id: entry.spiffe_id.clone(),
            audiences: audiences.to_vec(),
            ttl: entry.jwt_ttl,
            entry: Some(Arc::clone(entry)),
        });
        let issued = self.issue_jwt(requests.collect(), &requester).await?;
        let mut hints: HashSet<&str> = HashSet::new();
        wanted
            .iter()
            .zip(issued)
            .map(|(entry, issued)| {
                let issued = issued?;
                let keeps_hint = hints.insert(&entry.hint);
                Ok(JwtSvid {
                    spiffe_id: issued.spiffe_id,
                    token: issued.token,
                    hint: if keeps_hint {
                        entry.hint.clone()
                    } else {
                        String::new()
                    },
                    expires_at: issued.expires_at,
                })
            })
            .collect()
    }

    async fn validate_jwt_svid(
        &self,
        caller: &Caller,
        audience: &str,
        token: &str,
    ) -> Result<ValidatedJwtSvid, IssueError> {
        let entries = self.matching(caller);
        let BundlesContext {
            bundle, federated, ..
        } = self.visible(&entries);
        let validated = validate::token(token, audience, self.clock.now(), |trust_domain| {
            if trust_domain == self.trust_domain() {
                return Some(&*bundle);
            }
            let mut federated = federated.iter();
            federated
                .find(|bundle| &bundle.trust_domain == trust_domain)
                .map(|bundle| &**bundle)
        });
        let mut validated =
            validated.map_err(|error| IssueError::InvalidArgument(error.to_string()))?;
        if validated.spiffe_id.trust_domain() != self.trust_domain() {
            // What else another trust domain says of its workloads means nothing here.
            validated
                .claims
                .retain(|name, _| matches!(name.as_str(), "sub" | "exp" | "aud"));
        }
        Ok(validated)
    }
}

impl Ca {
    fn matching(&self, caller: &Caller) -> Vec<Arc<Entry>> {
        let agent = self.registry.local_agent();
        self.registry
            .index()
            .matching(&caller.selectors, &agent, self.clock.now())
    }

    /// The caller's entries, oldest first; none is a denial, and recorded.
    async fn entitled(&self, caller: &Caller, what: &str) -> Result<Vec<Arc<Entry>>, IssueError> {
        let entries = self.matching(caller);
        if entries.is_empty() {
            let denied = IssueError::NoIdentity;
            self.record_denial(&Requester::caller(caller), what, &denied)
                .await?;
            return Err(denied);
        }
        Ok(entries)
    }

    /// Our bundle, and those that any of the entries federates with.
    fn visible(&self, entries: &[Arc<Entry>]) -> BundlesContext {
        let names: BTreeSet<&TrustDomain> = entries
            .iter()
            .flat_map(|entry| &entry.federates_with)
            .collect();
        let known = self.registry.bundles();
        let federated: Vec<Arc<Bundle>> = names
            .into_iter()
            .filter_map(|name| known.get(name).cloned())
            .collect();
        BundlesContext {
            bundle: self.bundle(),
            federated,
            crls: self.revocation_lists(),
        }
    }

    /// An SVID for each entry, in order: from the cache, or issued now, all missing ones together.
    async fn cached_svids(
        &self,
        entries: &[Arc<Entry>],
        caller: &Caller,
    ) -> Result<Vec<Cached>, IssueError> {
        // In one order for everybody: two callers that share entries cannot wait for each other.
        let mut order: Vec<(usize, &Arc<Entry>)> = entries.iter().enumerate().collect();
        order.sort_by(|(_, a), (_, b)| a.id.cmp(&b.id));
        let mut found: Vec<(usize, Cached)> = Vec::with_capacity(entries.len());
        let mut missing: Vec<(usize, &Arc<Entry>, HeldSlot)> = Vec::new();
        for (place, entry) in order {
            let slot = self.svids.slot(&entry.id).lock_owned().await;
            match &*slot {
                Some(cached) if self.may_serve(cached, entry) => {
                    found.push((place, cached.clone()))
                }
                _ => missing.push((place, entry, slot)),
            }
        }
        self.observer.metrics().served_again(found.len());
        if !missing.is_empty() {
            let mut keys = Vec::with_capacity(missing.len());
            let mut requests = Vec::with_capacity(missing.len());
            for (_, entry, _) in &missing {
                let key = MemoryKey::generate(KeyAlgorithm::P256)
                    .map_err(|error| IssueError::Unavailable(error.to_string()))?;
                requests.push(X509Request {
                    leaf: leaf_request(entry, &key)?,
                    entry: Some(Arc::clone(entry)),
                });
                keys.push(key);
            }
            let issued = self
                .issue_x509(requests, &Requester::caller(caller))
                .await?;
            let now = self.clock.now();
            for (((place, entry, mut slot), key), issued) in
                missing.into_iter().zip(keys).zip(issued)
            {
                let issued = issued?;
                let svid = X509Svid {
                    spiffe_id: issued.spiffe_id,
                    chain: issued.chain,
                    key: key.pkcs8().clone(),
                    hint: entry.hint.clone(),
                    entry_id: entry.id.clone(),
                    not_after: issued.not_after,
                };
                let cached = Cached::new(svid, entry, issued.authority, now);
                *slot = Some(cached.clone());
                found.push((place, cached));
            }
        }
        found.sort_by_key(|(place, _)| *place);
        Ok(found.into_iter().map(|(_, cached)| cached).collect())
    }

    fn may_serve(&self, cached: &Cached, entry: &Entry) -> bool {
        cached.is_fresh(entry, self.clock.now(), self.options.backdate)
            && is_trusted(&self.authorities(), &cached.authority)
            && !self.revocations.contains(cached.leaf())
    }

    /// When the SVID cache was last swept is nobody's business: sweeps it.
    pub(super) fn prune_svids(&self, now: SystemTime) {
        let index = self.registry.index();
        self.svids.prune(|id| index.entry(id).is_some(), now);
        self.wits.prune(|id| index.entry(id).is_some());
    }
}

/// What an authority signed is served while it is active or old: tainting it re-issues everything at once.
fn is_trusted(set: &AuthoritySet, authority: &str) -> bool {
    set.with_id(AuthorityKind::X509, authority)
        .is_some_and(|authority| {
            matches!(
                authority.row.state,
                AuthorityState::Active | AuthorityState::Old
            )
        })
}

fn leaf_request(entry: &Entry, key: &MemoryKey) -> Result<LeafRequest, IssueError> {
    Ok(LeafRequest {
        spiffe_id: entry.spiffe_id.clone(),
        dns_names: entry.dns_names.clone(),
        ttl: entry.x509_ttl,
        key: ProvenKey::made_here(key.public_key())
            .map_err(|error| IssueError::Unavailable(error.to_string()))?,
    })
}
