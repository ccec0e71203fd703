//! The lives of authorities: prepared, active, old, tainted, revoked.
//!
//! An authority signs only after the bundle that it stands in was stored, read back, and given to every
//! live stream. The exceptions say so in the journal: the first authorities of an empty store, one whose
//! predecessor can sign no more, and an emergency.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Ca;
use crate::authority::{self, Authority, AuthorityError};
use crate::fail;
use crate::journal::{Record, rfc3339};
use crate::key::SigningKey;
use crate::observe::metrics::Step;
use crate::store::{self, AuthorityKind, AuthorityRow, AuthorityState, Meta};

/// How long activation by hand waits for live streams.
const DELIVERY_BY_HAND: Duration = Duration::from_secs(5);

/// What is to be stored of authorities, in one transaction.
pub(super) struct Plan {
    /// New or changed.
    pub(super) authorities: Vec<Authority>,
    /// To be forgotten.
    pub(super) forget: Vec<String>,
    /// The bundle is another one afterwards.
    pub(super) publishes: bool,
    pub(super) records: Vec<Record>,
}

impl Ca {
    /// Makes an authority of each kind that signs, where there is none.
    pub(super) async fn ensure_active(&self) -> Result<(), AuthorityError> {
        for kind in self.kinds() {
            let _changing = self.changing.lock().await;
            let (set, now) = (self.authorities(), self.clock.now());
            if set.active(kind).is_some_and(|active| active.can_sign(now)) {
                continue;
            }
            let is_first = !set.all().iter().any(|known| known.row.kind == kind);
            let prepared = set.newest(kind, AuthorityState::Prepared);
            let ready = prepared.filter(|ready| ready.key.is_some() && ready.is_valid(now));
            let mut next = match ready {
                Some(ready) => Authority::clone(ready),
                None => self.make(kind).await?,
            };
            let reason = match is_first {
                true => "the first of this store",
                false => "the active one can sign no more",
            };
            self.rehearse(&next, now).await?;
            next.row.state = AuthorityState::Active;
            next.row.activated_at = Some(now);
            let record = changed(&next, "authority_activated")
                .with("reason", reason)
                .with("waited", false);
            let mut authorities = Vec::new();
            if let Some(active) = set.active(kind) {
                authorities.push(self.retired(active, now));
            }
            authorities.push(next);
            let plan = Plan {
                authorities,
                forget: Vec::new(),
                publishes: true,
                records: vec![record],
            };
            self.observer
                .changing(kind, Step::Activate, self.carry_out(plan))
                .await?;
        }
        Ok(())
    }

    /// Prepares and publishes an authority; it signs nothing yet.
    ///
    /// # Errors
    /// When one is prepared already, or this one cannot be made or stored.
    pub async fn prepare(
        &self,
        kind: AuthorityKind,
        actor: &str,
    ) -> Result<Arc<Authority>, AuthorityError> {
        let _changing = self.changing.lock().await;
        self.prepare_alone(kind, actor).await
    }

    pub(super) async fn prepare_alone(
        &self,
        kind: AuthorityKind,
        actor: &str,
    ) -> Result<Arc<Authority>, AuthorityError> {
        let preparing = self.prepare_unseen(kind, actor);
        let observer = &self.observer;
        observer.changing(kind, Step::Prepare, preparing).await
    }

    async fn prepare_unseen(
        &self,
        kind: AuthorityKind,
        actor: &str,
    ) -> Result<Arc<Authority>, AuthorityError> {
        if !self.kinds().any(|known| known == kind) {
            return Err(AuthorityError::Off(kind.as_str()));
        }
        if let Some(prepared) = self.authorities().newest(kind, AuthorityState::Prepared) {
            return Err(AuthorityError::AlreadyPrepared(prepared.row.id.clone()));
        }
        let authority = self.make(kind).await?;
        self.rehearse(&authority, self.clock.now()).await?;
        let id = authority.row.id.clone();
        let record = changed(&authority, "authority_prepared").with("actor", actor);
        self.carry_out(Plan {
            authorities: vec![authority],
            forget: Vec::new(),
            publishes: true,
            records: vec![record],
        })
        .await?;
        self.find(kind, &id)
    }

    /// Lets a prepared authority sign, once every live stream has the bundle with it.
    ///
    /// # Errors
    /// When it is not prepared, fails its rehearsal, or a live stream does not have it after some seconds.
    pub async fn activate(
        &self,
        kind: AuthorityKind,
        id: &str,
        actor: &str,
    ) -> Result<Arc<Authority>, AuthorityError> {
        let found = self.find(kind, id)?;
        let row = &prepared(&found)?.row;
        let published = row.published;
        let left = self.until_propagated(row);
        if left > Duration::ZERO {
            return Err(AuthorityError::NotPropagated {
                id: id.to_owned(),
                left,
            });
        }
        // Not under the lock: what may take seconds must not hold up a taint.
        let _ = tokio::time::timeout(DELIVERY_BY_HAND, self.deliveries.reached(published)).await;
        let behind = self.deliveries.behind(published);
        if behind > 0 {
            return Err(AuthorityError::NotDelivered {
                id: id.to_owned(),
                behind,
            });
        }
        let _changing = self.changing.lock().await;
        self.activate_alone(kind, id, actor, true).await
    }

    pub(super) async fn activate_alone(
        &self,
        kind: AuthorityKind,
        id: &str,
        actor: &str,
        waited: bool,
    ) -> Result<Arc<Authority>, AuthorityError> {
        let activating = self.activate_unseen(kind, id, actor, waited);
        let observer = &self.observer;
        observer.changing(kind, Step::Activate, activating).await
    }

    async fn activate_unseen(
        &self,
        kind: AuthorityKind,
        id: &str,
        actor: &str,
        waited: bool,
    ) -> Result<Arc<Authority>, AuthorityError> {
        let now = self.clock.now();
        let found = self.find(kind, id)?;
        let mut next = Authority::clone(prepared(&found)?);
        self.rehearse(&next, now).await?;
        next.row.state = AuthorityState::Active;
        next.row.activated_at = Some(now);
        let record = changed(&next, "authority_activated")
            .with("actor", actor)
            .with("waited", waited)
            .with("streams_behind", self.deliveries.behind(next.row.published));
        let mut authorities = Vec::new();
        if let Some(active) = self.authorities().active(kind) {
            authorities.push(self.retired(active, now));
        }
        authorities.push(next);
        self.carry_out(Plan {
            authorities,
            forget: Vec::new(),
            publishes: false,
            records: vec![record],
        })
        .await?;
        self.find(kind, id)
    }

    /// Marks an authority as not to be trusted much longer: everything that it signed is issued anew at once. The active
    /// one is refused, unless in an emergency: then another is prepared, published and activated first, without waiting.
    ///
    /// # Errors
    /// When it is in a state that cannot be tainted, or nothing could be stored.
    pub async fn taint(
        &self,
        kind: AuthorityKind,
        id: &str,
        emergency: bool,
        actor: &str,
    ) -> Result<Arc<Authority>, AuthorityError> {
        let _changing = self.changing.lock().await;
        let tainting = self.taint_alone(kind, id, emergency, actor);
        self.observer.changing(kind, Step::Taint, tainting).await
    }

    async fn taint_alone(
        &self,
        kind: AuthorityKind,
        id: &str,
        emergency: bool,
        actor: &str,
    ) -> Result<Arc<Authority>, AuthorityError> {
        let found = self.find(kind, id)?;
        match found.row.state {
            AuthorityState::Prepared | AuthorityState::Old => {}
            AuthorityState::Active if emergency => {
                let next = match self.authorities().newest(kind, AuthorityState::Prepared) {
                    Some(prepared) => Arc::clone(prepared),
                    None => self.prepare_alone(kind, actor).await?,
                };
                self.activate_alone(kind, &next.row.id, actor, false)
                    .await?;
            }
            AuthorityState::Active => return Err(AuthorityError::TaintActive(id.to_owned())),
            AuthorityState::Tainted => return Err(state(&found, "it is tainted already")),
            AuthorityState::Revoked => return Err(state(&found, "there is nothing left to taint")),
        }
        self.close_list(&found).await?;
        // As it is after an activation.
        let mut tainted = Authority::clone(&*self.find(kind, id)?);
        tainted.row.state = AuthorityState::Tainted;
        tainted.row.tainted_at = Some(self.clock.now());
        tainted.key = None;
        let record = changed(&tainted, "authority_tainted")
            .with("actor", actor)
            .with("emergency", emergency);
        self.carry_out(Plan {
            authorities: vec![tainted],
            forget: Vec::new(),
            publishes: true,
            records: vec![record],
        })
        .await?;
        self.forget_key(id);
        self.find(kind, id)
    }

    /// Takes a tainted authority, or one that never signed, out of the bundle: what it signed is invalid from now on.
    ///
    /// # Errors
    /// When it is in another state, or nothing could be stored.
    pub async fn revoke(
        &self,
        kind: AuthorityKind,
        id: &str,
        actor: &str,
    ) -> Result<Arc<Authority>, AuthorityError> {
        let _changing = self.changing.lock().await;
        let revoking = self.revoke_alone(kind, id, actor);
        self.observer.changing(kind, Step::Revoke, revoking).await
    }

    async fn revoke_alone(
        &self,
        kind: AuthorityKind,
        id: &str,
        actor: &str,
    ) -> Result<Arc<Authority>, AuthorityError> {
        let found = self.find(kind, id)?;
        match found.row.state {
            AuthorityState::Tainted | AuthorityState::Prepared => {}
            AuthorityState::Active => {
                return Err(state(
                    &found,
                    "prepare and activate another one, then taint it",
                ));
            }
            AuthorityState::Old => {
                return Err(state(
                    &found,
                    "taint it first, so that what it signed is replaced",
                ));
            }
            AuthorityState::Revoked => return Err(state(&found, "it is revoked already")),
        }
        let mut revoked = Authority::clone(&found);
        revoked.row.state = AuthorityState::Revoked;
        revoked.row.revoked_at = Some(self.clock.now());
        revoked.key = None;
        let record = changed(&revoked, "authority_revoked").with("actor", actor);
        self.carry_out(Plan {
            authorities: vec![revoked],
            forget: Vec::new(),
            publishes: true,
            records: vec![record],
        })
        .await?;
        self.forget_key(id);
        self.find(kind, id)
    }

    /// How long those who poll our bundle may still be without an authority.
    pub(super) fn until_propagated(&self, row: &AuthorityRow) -> Duration {
        let end = crate::federation::propagated(row.prepared_at, self.options.propagation);
        // Set back, the clock says nothing about how long it has been published: the whole time at the most.
        let left = end.duration_since(self.clock.now()).unwrap_or_default();
        left.min(self.options.propagation)
    }

    async fn make(&self, kind: AuthorityKind) -> Result<Authority, AuthorityError> {
        let now = self.clock.now();
        let options = &self.options;
        let algorithm = match kind {
            AuthorityKind::X509 => options.x509_key,
            AuthorityKind::Jwt | AuthorityKind::Wit => options.jwt_key,
        };
        let key = self.new_key(algorithm)?;
        let signing: Arc<dyn SigningKey> = Arc::clone(&key) as _;
        let authority = match kind {
            AuthorityKind::X509 => {
                let plan = authority::x509::Plan {
                    trust_domain: &options.trust_domain,
                    ttl: options.authority_ttl,
                    backdate: options.backdate,
                    upstream: self.upstream.as_ref(),
                };
                authority::x509::make(plan, signing, now).await?
            }
            AuthorityKind::Jwt | AuthorityKind::Wit => {
                let ttl = options.authority_ttl;
                authority::jwt::make(kind, signing, ttl, options.backdate, now)?
            }
        };
        // The key is on disk before anything is published that only it can sign for.
        if let Some(keys) = &self.keys {
            fail::point("key made");
            keys.store(&authority.row.id, &key)?;
            fail::point("key stored");
        }
        Ok(authority)
    }

    async fn rehearse(&self, authority: &Authority, now: SystemTime) -> Result<(), AuthorityError> {
        match authority.row.kind {
            AuthorityKind::X509 => {
                authority::x509::rehearse(authority, &self.options.trust_domain, now).await
            }
            AuthorityKind::Jwt | AuthorityKind::Wit if authority.key.is_none() => {
                Err(AuthorityError::KeyGone(authority.row.id.clone()))
            }
            AuthorityKind::Jwt | AuthorityKind::Wit => Ok(()),
        }
    }

    fn find(&self, kind: AuthorityKind, id: &str) -> Result<Arc<Authority>, AuthorityError> {
        let set = self.authorities();
        set.with_id(kind, id)
            .cloned()
            .ok_or_else(|| AuthorityError::NotFound {
                kind: kind.as_str(),
                id: crate::trust_domain::shorten(id),
            })
    }

    /// Stored, recorded, committed, read back, and only then seen.
    pub(super) async fn carry_out(&self, mut plan: Plan) -> Result<(), AuthorityError> {
        let failed = |error: &dyn std::fmt::Display| AuthorityError::Store(error.to_string());
        let set = self.authorities();
        let mut writer = self.store.writer().await;
        let mut transaction = writer.begin().await.map_err(|error| failed(&error))?;
        let sequence = match plan.publishes {
            true => store::next(&mut transaction, Meta::BundleSequence)
                .await
                .map_err(|error| failed(&error))?,
            false => set.bundle().sequence,
        };
        for authority in &mut plan.authorities {
            if authority.row.published == 0 {
                authority.row.published = sequence;
            }
            authority
                .row
                .put(&mut transaction)
                .await
                .map_err(|error| failed(&error))?;
        }
        for id in &plan.forget {
            AuthorityRow::remove(&mut transaction, id)
                .await
                .map_err(|error| failed(&error))?;
        }
        fail::point("written");
        let records = plan
            .records
            .into_iter()
            .map(|record| record.with("bundle_sequence", sequence));
        self.journal
            .append(records.collect())
            .await
            .map_err(|error| failed(&error))?;
        fail::point("recorded");
        transaction.commit().await.map_err(|error| failed(&error))?;
        fail::point("committed");
        let mut look = writer.begin_anew().await.map_err(|error| failed(&error))?;
        let stored = AuthorityRow::all(&mut look)
            .await
            .map_err(|error| failed(&error))?;
        look.commit().await.map_err(|error| failed(&error))?;
        let mut authorities: Vec<Arc<Authority>> = Vec::with_capacity(stored.len());
        for row in stored {
            let changed = plan
                .authorities
                .iter()
                .find(|changed| changed.row.id == row.id)
                .cloned();
            let known = || {
                set.all()
                    .iter()
                    .find(|known| known.row.id == row.id)
                    .map(|known| Authority::clone(known))
            };
            let Some(mut authority) = changed.or_else(known) else {
                continue;
            };
            // What was read back is what counts.
            authority.row = row;
            authorities.push(Arc::new(authority));
        }
        fail::point("read back");
        self.swap(authorities, sequence);
        fail::point("published");
        drop(writer);
        // Before it signs, an authority has a list; one that cannot be had now is tried again by the clock.
        if let Err(error) = self.renew_lists().await {
            tracing::error!(%error, "a revocation list could not be renewed");
        }
        Ok(())
    }

    /// It signs no more SVIDs.
    fn retired(&self, active: &Authority, now: SystemTime) -> Authority {
        let mut old = active.clone();
        if !self.signs_lists(active.row.kind) {
            old.key = None;
        }
        old.row.state = AuthorityState::Old;
        old.row.retired_at = Some(now);
        old
    }

    /// A key file that stays behind signs nothing: its authority is not in the bundle.
    pub(super) fn forget_key(&self, id: &str) {
        fail::point("over");
        if let Some(Err(error)) = self.keys.as_ref().map(|keys| keys.remove(id)) {
            tracing::warn!(%error, "the private key of an authority that is over could not be removed");
        }
    }
}

fn prepared(authority: &Authority) -> Result<&Authority, AuthorityError> {
    match authority.row.state {
        AuthorityState::Prepared => Ok(authority),
        _ => Err(state(
            authority,
            "only a prepared authority can be activated",
        )),
    }
}

fn state(authority: &Authority, hint: &'static str) -> AuthorityError {
    AuthorityError::State {
        id: authority.row.id.clone(),
        state: authority.row.state.as_str(),
        hint,
    }
}

pub(super) fn changed(authority: &Authority, event: &'static str) -> Record {
    Record::new(event)
        .with("authority", authority.row.id.as_str())
        .with("kind", authority.row.kind.as_str())
        .with("state", authority.row.state.as_str())
        .with("not_after", rfc3339(authority.row.not_after))
}
