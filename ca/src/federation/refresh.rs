//! When bundles are fetched: as often as they ask for, less often while that fails (SPIFFE Federation §6.2).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::fetch::{self, Authentication, Roots};
use super::{EndpointProfile, RefreshError, Relationship, RelationshipStatus, refresh_interval};
use crate::bundle::Bundle;
use crate::ca::Ca;
use crate::trust_domain::TrustDomain;

/// How long a fetch may take, redirects and all.
const LIMIT: Duration = Duration::from_secs(20);
/// Longest pause between attempts, and the doubling that leads there.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How often somebody looks whether a fetch is due.
const LOOK: Duration = Duration::from_millis(250);

/// Fetches the bundles of all relationships.
#[derive(Debug)]
pub struct Refresher {
    roots: Roots,
    shortest: Duration,
    pub(super) limit: Duration,
    status: Mutex<BTreeMap<TrustDomain, RelationshipStatus>>,
}

impl Refresher {
    /// Fetches no bundle more often than every `shortest`.
    #[must_use]
    pub fn new(roots: Roots, shortest: Duration) -> Self {
        Self {
            roots,
            shortest,
            limit: LIMIT,
            status: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TrustDomain, RelationshipStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the last attempts with a trust domain went.
    #[must_use]
    pub fn status(&self, trust_domain: &TrustDomain) -> RelationshipStatus {
        self.lock().get(trust_domain).cloned().unwrap_or_default()
    }

    /// Fetches whatever is due, for ever.
    pub async fn run(&self, ca: &Ca) {
        loop {
            self.refresh_due(ca).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Fetches what is due, all at once: a slow endpoint holds up nobody else's bundle.
    async fn refresh_due(&self, ca: &Ca) {
        let relationships = ca.registry().federations();
        let now = ca.clock().now();
        let due: Vec<Arc<Relationship>> = {
            let mut status = self.lock();
            status.retain(|name, _| relationships.contains_key(name));
            let is_due = |relationship: &&Arc<Relationship>| {
                let status = status.get(&relationship.trust_domain);
                let next = status.and_then(|status| status.next_at);
                // A clock that was set back must not make us wait for the old time.
                next.is_none_or(|next| {
                    next <= now
                        || next
                            .duration_since(now)
                            .is_ok_and(|left| left > Duration::from_secs(2 * 86_400))
                })
            };
            relationships.values().filter(is_due).cloned().collect()
        };
        let each = due.iter().map(|relationship| async {
            let name = &relationship.trust_domain;
            match self.refresh(ca, name).await {
                Ok(true) => tracing::info!(trust_domain = %name, "a federated bundle has changed"),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(trust_domain = %name, %error, "a federated bundle was not refreshed");
                }
            }
        });
        futures_all(each).await;
    }

    /// Fetches a trust domain's bundle now; true when it has changed.
    ///
    /// # Errors
    /// When it does not come, is none, is older than what is known, or cannot be stored. The known one stays.
    pub async fn refresh(&self, ca: &Ca, trust_domain: &TrustDomain) -> Result<bool, RefreshError> {
        let relationship = ca
            .registry()
            .federations()
            .get(trust_domain)
            .cloned()
            .ok_or_else(|| RefreshError::NoRelationship(trust_domain.clone()))?;
        let fetched = self.fetch(ca, &relationship).await;
        let now = ca.clock().now();
        let taken = match fetched {
            Ok(bundle) => {
                let pause = refresh_interval(&bundle, self.shortest);
                ca.registry()
                    .set_fetched_bundle(bundle)
                    .await
                    .map(|changed| (changed, pause))
            }
            Err(error) => Err(error),
        };
        let mut all = self.lock();
        let status = all.entry(trust_domain.clone()).or_default();
        match taken {
            Ok((changed, pause)) => {
                status.refreshed_at = Some(now);
                status.error = None;
                status.failures = 0;
                status.succeeded = status.succeeded.saturating_add(1);
                status.next_at = now.checked_add(jittered(pause));
                Ok(changed)
            }
            Err(error) => {
                status.error = Some(error.to_string());
                status.failures = status.failures.saturating_add(1);
                status.failed = status.failed.saturating_add(1);
                let doubled = 1_u32 << status.failures.saturating_sub(1).min(10);
                let pause = self.shortest.saturating_mul(doubled).min(LONGEST_PAUSE);
                status.next_at = now.checked_add(jittered(pause.max(self.shortest)));
                Err(error)
            }
        }
    }

    async fn fetch(&self, ca: &Ca, relationship: &Relationship) -> Result<Bundle, RefreshError> {
        let authentication = match &relationship.profile {
            EndpointProfile::HttpsWeb => Authentication::Web(&self.roots),
            EndpointProfile::HttpsSpiffe(id) => {
                // The newest bundle that is known: an endpoint in its own trust domain renews itself (§5.2.2).
                let bundle = match id.trust_domain() == ca.trust_domain() {
                    true => Some(ca.bundle()),
                    false => ca.registry().bundle(id.trust_domain()),
                };
                let none = || RefreshError::NoEndpointBundle(id.trust_domain().clone());
                Authentication::Spiffe(&relationship.profile, bundle.ok_or_else(none)?)
            }
        };
        let document = fetch::get(&relationship.url, authentication, self.limit).await?;
        let trust_domain = relationship.trust_domain.clone();
        Bundle::from_document(trust_domain.clone(), &document).map_err(|cause| {
            RefreshError::Document {
                url: relationship.url.clone(),
                trust_domain,
                cause,
            }
        })
    }
}

/// Up to a tenth sooner, so that not all of the world asks at the same second.
fn jittered(pause: Duration) -> Duration {
    use ring::rand::SecureRandom as _;
    let mut byte = [0_u8];
    // Without randomness there is no jitter, and nothing worse.
    let _ = ring::rand::SystemRandom::new().fill(&mut byte);
    let [byte] = byte;
    pause.saturating_sub(pause / 10 * u32::from(byte) / 255)
}

/// Waits for all of them together.
async fn futures_all<F: Future<Output = ()>>(all: impl Iterator<Item = F>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        match all.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

/// The moment from which a successor is known to everybody who polls our own bundle (SPIFFE Federation §4.1): three hints.
#[must_use]
pub(crate) fn propagated(published: SystemTime, propagation: Duration) -> SystemTime {
    published.checked_add(propagation).unwrap_or(published)
}
