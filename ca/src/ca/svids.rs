//! X.509-SVIDs that are served again until half their life is over.
//!
//! All callers of an entry share its SVID, key and all: one key pair and one signature serve ten thousand
//! streams. A slot's lock is held while its SVID is issued, so callers that come together wait for one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex as AsyncMutex;

use crate::entry::Entry;
use crate::identities::X509Svid;

/// One slot for each entry that was asked for.
#[derive(Default)]
pub(super) struct SvidCache(Mutex<HashMap<String, Slot>>);

/// The SVID of one entry, or the place for it.
pub(super) type Slot = Arc<AsyncMutex<Option<Cached>>>;

/// An SVID, and what it depends on.
#[derive(Clone)]
pub(super) struct Cached {
    svid: Arc<X509Svid>,
    /// The same without its hint, for callers that have the hint from an older entry.
    plain: Arc<OnceLock<Arc<X509Svid>>>,
    entry_revision: i64,
    /// Identifier of the authority that signed it.
    pub(super) authority: String,
    /// When it was issued; it is valid from a little before.
    issued_at: SystemTime,
    /// Half of its life.
    pub(super) renew_at: SystemTime,
}

impl Cached {
    pub(super) fn new(svid: X509Svid, entry: &Entry, authority: String, now: SystemTime) -> Self {
        let life = svid.not_after.duration_since(now).unwrap_or_default();
        Self {
            issued_at: now,
            renew_at: now.checked_add(life / 2).unwrap_or(now),
            svid: Arc::new(svid),
            plain: Arc::default(),
            entry_revision: entry.revision_number,
            authority,
        }
    }

    /// True while it may be served for `entry`; whether its authority is still trusted is the caller's to ask.
    pub(super) fn is_fresh(&self, entry: &Entry, now: SystemTime, backdate: Duration) -> bool {
        self.entry_revision == entry.revision_number
            && now < self.renew_at
            && self.svid.not_after > now
            // After a clock was set back it would not be valid yet.
            && now.checked_add(backdate).is_none_or(|now| now >= self.issued_at)
    }

    /// Its certificate, DER.
    pub(super) fn leaf(&self) -> &[u8] {
        self.svid
            .chain
            .first()
            .map(|leaf| &**leaf)
            .unwrap_or_default()
    }

    /// The SVID, with its hint or without.
    pub(super) fn svid(&self, with_hint: bool) -> Arc<X509Svid> {
        if with_hint || self.svid.hint.is_empty() {
            return Arc::clone(&self.svid);
        }
        Arc::clone(self.plain.get_or_init(|| {
            Arc::new(X509Svid {
                spiffe_id: self.svid.spiffe_id.clone(),
                chain: self.svid.chain.clone(),
                key: self.svid.key.clone(),
                hint: String::new(),
                entry_id: self.svid.entry_id.clone(),
                not_after: self.svid.not_after,
            })
        }))
    }
}

impl SvidCache {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn slot(&self, entry_id: &str) -> Slot {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(entry_id) {
            return Arc::clone(slot);
        }
        Arc::clone(slots.entry(entry_id.to_owned()).or_default())
    }

    /// Slots, full or empty.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Forgets what no entry has any more, and what nobody renewed.
    pub(super) fn prune(&self, is_entry: impl Fn(&str) -> bool, now: SystemTime) {
        self.lock().retain(|id, slot| {
            let is_used = Arc::strong_count(slot) > 1;
            let is_live = slot.try_lock().map_or(true, |cached| {
                cached
                    .as_ref()
                    .is_some_and(|cached| cached.svid.not_after > now)
            });
            is_used || (is_live && is_entry(id))
        });
    }
}
