//! Issuing WIT-SVIDs, where they are switched on: as X.509-SVIDs, one for each entry, served again until half its life
//! is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ring::digest;
use tokio::sync::Mutex as AsyncMutex;

use super::Ca;
use super::issue::{Requester, with_entry};
use crate::caller::Caller;
use crate::entry::Entry;
use crate::identities::{IssueError, WitContext, WitSvid};
use crate::journal::{Record, rfc3339};
use crate::key::{KeyAlgorithm, MemoryKey, SigningKey as _};
use crate::registry;
use crate::spiffe_id::SpiffeId;
use crate::store::{AuthorityKind, AuthorityState};
use crate::wit_svid;
use crate::x509::certificate::hex;

type Slot = Arc<AsyncMutex<Option<Cached>>>;

/// One slot for each entry that was asked for.
#[derive(Default)]
pub(super) struct WitCache(Mutex<HashMap<String, Slot>>);

#[derive(Clone)]
struct Cached {
    svid: Arc<WitSvid>,
    entry_revision: i64,
    authority: String,
    issued_at: SystemTime,
    renew_at: SystemTime,
}

impl WitCache {
    fn slot(&self, entry_id: &str) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(entry_id.to_owned()).or_default())
    }

    /// Forgets what no entry has any more.
    pub(super) fn prune(&self, is_entry: impl Fn(&str) -> bool) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|id, slot| Arc::strong_count(slot) > 1 || is_entry(id));
    }
}

impl Ca {
    /// A WIT-SVID for each of the caller's entries, or for those of one SPIFFE ID.
    pub(super) async fn wit_svids(
        &self,
        entries: Vec<Arc<Entry>>,
        caller: &Caller,
        wanted: Option<&SpiffeId>,
    ) -> Result<WitContext, IssueError> {
        let requester = Requester::caller(caller);
        let entries: Vec<Arc<Entry>> = entries
            .into_iter()
            .filter(|entry| wanted.is_none_or(|id| id == &entry.spiffe_id))
            .collect();
        if let (true, Some(id)) = (entries.is_empty(), wanted) {
            let denied = IssueError::NotEntitled(id.clone());
            self.record_denial(&requester, "wit_svid", &denied).await?;
            return Err(denied);
        }
        let mut svids: Vec<Arc<WitSvid>> = Vec::with_capacity(entries.len());
        let mut renew_at = registry::serve_until(&entries);
        for entry in &entries {
            let slot = self.wits.slot(&entry.id);
            let mut slot = slot.lock().await;
            let cached = match slot
                .as_ref()
                .filter(|cached| self.may_serve_wit(cached, entry))
            {
                Some(cached) => cached.clone(),
                None => {
                    let issuing = async { Ok(vec![self.issue_wit(entry, &requester).await]) };
                    let observer = &self.observer;
                    let issued = observer.issuing(AuthorityKind::Wit, 1, issuing).await?;
                    let none = || IssueError::Unavailable("no result".to_owned());
                    let issued = issued.into_iter().next().ok_or_else(none)??;
                    slot.insert(issued).clone()
                }
            };
            renew_at = Some(renew_at.map_or(cached.renew_at, |at| at.min(cached.renew_at)));
            // Hints are unique within a message; the oldest entry keeps one (Workload API §7.2.1).
            let is_taken = |hint: &str| svids.iter().any(|svid| svid.hint == hint);
            svids.push(
                match cached.svid.hint.is_empty() || !is_taken(&cached.svid.hint) {
                    true => Arc::clone(&cached.svid),
                    false => Arc::new(WitSvid {
                        hint: String::new(),
                        ..WitSvid::clone(&cached.svid)
                    }),
                },
            );
        }
        Ok(WitContext {
            svids,
            sequence: self.bundle().sequence,
            renew_at,
        })
    }

    fn may_serve_wit(&self, cached: &Cached, entry: &Entry) -> bool {
        let now = self.clock.now();
        let authorities = self.authorities();
        let authority = authorities.with_id(AuthorityKind::Wit, &cached.authority);
        cached.entry_revision == entry.revision_number
            && now < cached.renew_at
            // After a clock was set back it would not be valid yet.
            && now.checked_add(self.options.backdate).is_none_or(|now| now >= cached.issued_at)
            && authority.is_some_and(|authority| {
                matches!(authority.row.state, AuthorityState::Active | AuthorityState::Old)
            })
    }

    /// Profile, prepare, journal, sign, conform, journal.
    async fn issue_wit(
        &self,
        entry: &Arc<Entry>,
        requester: &Requester,
    ) -> Result<Cached, IssueError> {
        let (authority, key) = self.signer(AuthorityKind::Wit)?;
        let unavailable =
            |error: &dyn std::fmt::Display| IssueError::Unavailable(error.to_string());
        let now = self.clock.now();
        let own = MemoryKey::generate(KeyAlgorithm::P256).map_err(|error| unavailable(&error))?;
        let public = digest::digest(&digest::SHA256, own.public_key());
        let id = authority.row.id.as_str();
        let prepared = self
            .wit_profile
            .prepare(
                &entry.spiffe_id,
                own.public_key(),
                entry.x509_ttl,
                (id, key.algorithm(), authority.row.not_after),
                now,
            )
            .map_err(|error| IssueError::InvalidArgument(error.to_string()))?;
        let token = prepared.token;
        let record = |event| -> Record {
            with_entry(requester.record(event), Some(entry))
                .with("spiffe_id", token.spiffe_id.as_str())
                .with("jti", prepared.id.as_str())
                .with("spki_sha256", hex(public.as_ref()))
                .with("not_after", rfc3339(token.expires_at))
                .with("authority", id)
        };
        self.journal.append(vec![record("wit_prepared")]).await?;
        let signed = match key.sign(token.signing_input()).await {
            Ok(signature) => token
                .clone()
                .with_signature(&signature)
                .ok_or_else(|| "the signature has an unknown form".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let bundle = self.bundle();
        let conforming = signed.and_then(|text| {
            let valid = wit_svid::validate(&text, now, |_| Some(&bundle));
            match valid {
                Ok(valid) if valid.spiffe_id == entry.spiffe_id => Ok(text),
                Ok(_) => Err("it names somebody else".to_owned()),
                Err(refusal) => Err(refusal.to_string()),
            }
        });
        let (text, private) = match conforming.and_then(|text| {
            let private = wit_svid::private_jwk(&own);
            Ok((text, private.ok_or("the key has no JWK")?))
        }) {
            Ok(made) => made,
            Err(cause) => {
                tracing::error!(%cause, "a token was not served");
                let failed = record("wit_failed").with("cause", cause.as_str());
                self.journal.append(vec![failed]).await?;
                return Err(IssueError::Unavailable(format!("signing failed: {cause}")));
            }
        };
        self.journal.append(vec![record("wit_issued")]).await?;
        let life = token.expires_at.duration_since(now).unwrap_or_default();
        Ok(Cached {
            svid: Arc::new(WitSvid {
                spiffe_id: token.spiffe_id.clone(),
                token: text,
                key: private.into(),
                hint: entry.hint.clone(),
            }),
            entry_revision: entry.revision_number,
            authority: id.to_owned(),
            issued_at: now,
            renew_at: now.checked_add(life / 2).unwrap_or(now),
        })
    }
}
