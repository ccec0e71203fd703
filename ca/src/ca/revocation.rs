//! Revoking single X.509-SVIDs, and the lists that tell of them.
//!
//! ```text
//! serial -> journal: who signed it? -> stored, recorded -> a new list of its authority -> every stream
//! ```
//!
//! Where it is on, every X.509 authority has a list, even an empty one, renewed when half its time is over.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Mutex;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Ca;
use crate::authority::{Authority, AuthorityError};
use crate::journal::{Record, rfc3339};
use crate::key;
use crate::store::{AuthorityKind, RevocationListRow, RevocationRow, Store, StoreError};
use crate::x509::certificate::{assemble, hex, whole_seconds};
use crate::x509::crl::{Reason, Revoked, Template};
use crate::x509::csr::ProvenKey;

/// An SVID that is not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// It is off.
    #[error("revocation is off: set `ca.revocation: true` in the configuration and start again")]
    Off,
    /// No serial number.
    #[error(
        "`{0}` is no serial number: write its hexadecimal digits, as `openssl x509 -serial` prints them"
    )]
    Serial(String),
    /// We never issued it.
    #[error(
        "no X.509-SVID with the serial number `{0}` was issued here, as far as the audit journal goes"
    )]
    Unknown(String),
    /// Its time is over anyway.
    #[error("the X.509-SVID `{0}` has expired already: there is nothing to revoke")]
    Expired(String),
    /// It is listed.
    #[error("the X.509-SVID `{0}` is revoked already")]
    Already(String),
    /// Nobody can sign the list.
    #[error(
        "the authority `{0}` that signed it can sign no list any more: taint or revoke the authority, `ca authority taint {0}`"
    )]
    Authority(String),
    /// The journal cannot be read.
    #[error("the audit journal cannot be read: {0}")]
    Journal(#[from] io::Error),
    /// Nothing was stored.
    #[error("{0}")]
    Store(String),
}

/// What is revoked, and the newest list of each authority. Immutable: a change is a new value.
#[derive(Clone, Debug, Default)]
struct State {
    revoked: Vec<RevocationRow>,
    lists: Vec<RevocationListRow>,
}

/// What is revoked; empty where revocation is off.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    state: RwLock<Arc<State>>,
    /// Who changes it holds it.
    changing: Mutex<()>,
}

impl Revocations {
    /// What is stored.
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let mut writer = store.writer().await;
        let mut transaction = writer.begin().await?;
        let state = State {
            revoked: RevocationRow::all(&mut transaction).await?,
            lists: RevocationListRow::all(&mut transaction).await?,
        };
        Ok(Self {
            state: RwLock::new(Arc::new(state)),
            changing: Mutex::new(()),
        })
    }

    fn now(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn swap(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }

    /// True when this certificate, DER, must not be served any more.
    pub(super) fn contains(&self, leaf: &[u8]) -> bool {
        let state = self.now();
        if state.revoked.is_empty() {
            return false;
        }
        let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
            return true;
        };
        let serial = format!("{:0>32}", hex(leaf.raw_serial()));
        state.revoked.iter().any(|row| row.serial == serial)
    }
}

impl Ca {
    /// The newest revocation list of each authority that is published, DER; none where revocation is off.
    #[must_use]
    pub fn revocation_lists(&self) -> Vec<Bytes> {
        if self.options.revocation.is_none() {
            return Vec::new();
        }
        let (state, set) = (self.revocations.now(), self.authorities());
        let lists = state.lists.iter().filter(|list| {
            set.with_id(AuthorityKind::X509, &list.authority)
                .is_some_and(|authority| authority.is_published())
        });
        lists.map(|list| list.der.clone()).collect()
    }

    /// What is revoked, oldest first.
    #[must_use]
    pub fn revoked(&self) -> Vec<RevocationRow> {
        self.revocations.now().revoked.clone()
    }

    /// Revokes an X.509-SVID: it is listed from now on, everybody on a stream gets the list, and whoever was served it
    /// gets another one.
    ///
    /// # Errors
    /// [`RevocationError`]; nothing is revoked then, except where it says that the list is still to come.
    pub async fn revoke_svid(
        &self,
        serial: &str,
        reason: Reason,
        actor: &str,
    ) -> Result<RevocationRow, RevocationError> {
        if self.options.revocation.is_none() {
            return Err(RevocationError::Off);
        }
        let serial = digits(serial)?;
        let _changing = self.revocations.changing.lock().await;
        let state = self.revocations.now();
        if state.revoked.iter().any(|row| row.serial == serial) {
            return Err(RevocationError::Already(serial));
        }
        let (path, wanted) = (self.journal.path().to_owned(), serial.clone());
        let found = tokio::task::spawn_blocking(move || issued(&path, &wanted)).await;
        let found = found.map_err(|error| RevocationError::Store(error.to_string()))??;
        let (authority, not_after) =
            found.ok_or_else(|| RevocationError::Unknown(serial.clone()))?;
        let now = whole_seconds(self.clock.now());
        if not_after <= now {
            return Err(RevocationError::Expired(serial));
        }
        let set = self.authorities();
        let signer = set.with_id(AuthorityKind::X509, &authority);
        if signer.is_none_or(|signer| signer.key.is_none() || !signer.is_published()) {
            return Err(RevocationError::Authority(authority));
        }
        let row = RevocationRow {
            serial,
            authority,
            reason,
            revoked_at: now,
            not_after,
        };
        let record = Record::new("x509_revoked")
            .with("admin", actor)
            .with("serial", row.serial.as_str())
            .with("authority", row.authority.as_str())
            .with("reason", reason.as_str())
            .with("not_after", rfc3339(not_after));
        let mut next = State::clone(&state);
        next.revoked.push(row.clone());
        let failed = |error: &dyn std::fmt::Display| RevocationError::Store(error.to_string());
        let mut writer = self.store.writer().await;
        let mut transaction = writer.begin().await.map_err(|error| failed(&error))?;
        row.add(&mut transaction)
            .await
            .map_err(|error| failed(&error))?;
        let recorded = self.journal.append(vec![record]).await;
        recorded.map_err(|error| failed(&error))?;
        transaction.commit().await.map_err(|error| failed(&error))?;
        drop(writer);
        self.revocations.swap(next);
        // Whoever was served it is served another one, whatever becomes of the list.
        self.changes.send_modify(|version| *version += 1);
        let renewed = self.renew_lists_alone(None).await;
        renewed.map_err(|error| {
            failed(&format_args!(
                "`{}` is revoked, its list is still to come: {error}",
                row.serial
            ))
        })?;
        Ok(row)
    }

    /// Signs the lists that are due: new, changed, or more than half over.
    ///
    /// # Errors
    /// When one cannot be signed, recorded or stored; the others are as they were.
    pub(super) async fn renew_lists(&self) -> Result<(), AuthorityError> {
        if self.options.revocation.is_none() {
            return Ok(());
        }
        let _changing = self.revocations.changing.lock().await;
        self.renew_lists_alone(None).await
    }

    /// Signs the last list of an authority whose key is about to go: good for as long as its SVIDs can be.
    pub(super) async fn close_list(&self, authority: &Authority) -> Result<(), AuthorityError> {
        if self.options.revocation.is_none() || authority.row.kind != AuthorityKind::X509 {
            return Ok(());
        }
        let _changing = self.revocations.changing.lock().await;
        self.renew_lists_alone(Some(&authority.row.id)).await
    }

    async fn renew_lists_alone(&self, last: Option<&str>) -> Result<(), AuthorityError> {
        let Some(life) = self.options.revocation else {
            return Ok(());
        };
        let failed = |error: &dyn std::fmt::Display| AuthorityError::Store(error.to_string());
        let now = whole_seconds(self.clock.now());
        let (state, set) = (self.revocations.now(), self.authorities());
        let mut next = State::clone(&state);
        // Gone from the lists only after one that came after their end (RFC 5280 §5).
        next.revoked
            .retain(|row| row.not_after.checked_add(life).is_none_or(|end| end > now));
        next.lists
            .retain(|list| set.with_id(AuthorityKind::X509, &list.authority).is_some());
        let mut signed = Vec::new();
        for authority in set.all() {
            let is_last = last == Some(authority.row.id.as_str());
            let known = next
                .lists
                .iter()
                .position(|list| list.authority == authority.row.id);
            let known_list = known.and_then(|at| next.lists.get(at));
            let of_it = next.revoked.iter();
            let of_it: Vec<&RevocationRow> = of_it
                .filter(|row| row.authority == authority.row.id)
                .collect();
            let is_due = known_list.is_none_or(|list| {
                let half = list.this_update.checked_add(life / 2).unwrap_or(now);
                list.entries != of_it.len() || now >= half || now < list.this_update
            });
            if authority.row.kind != AuthorityKind::X509
                || !authority.is_published()
                || authority.key.is_none()
                || !(is_due || is_last)
            {
                continue;
            }
            let number = known_list.map_or(1, |list| list.number.saturating_add(1));
            let end = match is_last {
                true => authority.row.not_after,
                false => now.checked_add(life).unwrap_or(now),
            };
            let list = sign(authority, number, (now, end), &of_it).await?;
            match known.and_then(|at| next.lists.get_mut(at)) {
                Some(place) => *place = list.clone(),
                None => next.lists.push(list.clone()),
            }
            signed.push(list);
        }
        if signed.is_empty()
            && next.revoked.len() == state.revoked.len()
            && next.lists.len() == state.lists.len()
        {
            return Ok(());
        }
        let mut writer = self.store.writer().await;
        let mut transaction = writer.begin().await.map_err(|error| failed(&error))?;
        let gone = state
            .revoked
            .iter()
            .filter(|row| !next.revoked.contains(row));
        for row in gone {
            RevocationRow::remove(&mut transaction, &row.serial)
                .await
                .map_err(|error| failed(&error))?;
        }
        for list in &state.lists {
            if !next
                .lists
                .iter()
                .any(|kept| kept.authority == list.authority)
            {
                RevocationListRow::remove(&mut transaction, &list.authority)
                    .await
                    .map_err(|error| failed(&error))?;
            }
        }
        for list in &signed {
            list.put(&mut transaction)
                .await
                .map_err(|error| failed(&error))?;
        }
        let records = signed.iter().map(|list| {
            Record::new("crl_issued")
                .with("authority", list.authority.as_str())
                .with("number", list.number)
                .with("entries", list.entries)
                .with("next_update", rfc3339(list.next_update))
        });
        self.journal
            .append(records.collect())
            .await
            .map_err(|error| failed(&error))?;
        transaction.commit().await.map_err(|error| failed(&error))?;
        drop(writer);
        self.revocations.swap(next);
        self.changes.send_modify(|version| *version += 1);
        Ok(())
    }
}

/// Signs a list, and verifies it before anybody gets it.
async fn sign(
    authority: &Authority,
    number: u64,
    (this_update, next_update): (SystemTime, SystemTime),
    revoked: &[&RevocationRow],
) -> Result<RevocationListRow, AuthorityError> {
    let gone = || AuthorityError::KeyGone(authority.row.id.clone());
    let (issuer, key) = authority
        .issuer()
        .zip(authority.key.as_ref())
        .ok_or_else(gone)?;
    let listed: Vec<Revoked> = revoked
        .iter()
        .map(|row| Revoked {
            serial: octets(&row.serial),
            at: row.revoked_at,
            reason: row.reason,
        })
        .collect();
    let to_be_signed = Template {
        issuer: issuer.subject,
        issuer_key_id: issuer.key_id,
        number,
        this_update,
        next_update,
        revoked: &listed,
    }
    .to_be_signed(issuer.algorithm);
    let signature = key.sign(&to_be_signed).await?;
    let public = ProvenKey::made_here(&authority.row.public_key);
    let public = public.map_err(|error| AuthorityError::Store(error.to_string()))?;
    if !key::verify(issuer.algorithm, public.bits(), &to_be_signed, &signature) {
        return Err(AuthorityError::Rehearsal {
            id: authority.row.id.clone(),
            cause: "the signature of its revocation list does not verify".to_owned(),
        });
    }
    Ok(RevocationListRow {
        authority: authority.row.id.clone(),
        number,
        this_update,
        next_update,
        entries: listed.len(),
        der: assemble(&to_be_signed, issuer.algorithm, &signature).into(),
    })
}

/// Serial numbers as we write them: 32 digits in lower case. OpenSSL's capitals and other tools' colons are taken, too.
fn digits(text: &str) -> Result<String, RevocationError> {
    let bare: String = text
        .trim()
        .trim_start_matches("serial=")
        .trim_start_matches("0x")
        .chars()
        .filter(|char| *char != ':')
        .collect();
    let is_number = !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
    let significant = bare.trim_start_matches('0');
    if !is_number || significant.is_empty() || significant.len() > 32 {
        return Err(RevocationError::Serial(crate::trust_domain::shorten(text)));
    }
    Ok(format!("{:0>32}", significant.to_ascii_lowercase()))
}

fn octets(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    let octets = pairs.filter_map(|pair| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    });
    octets.collect()
}

/// Who signed the SVID with this serial number and until when it is valid, as the journal has it.
fn issued(journal: &Path, serial: &str) -> io::Result<Option<(String, SystemTime)>> {
    let field = format!("\"serial\":\"{serial}\"");
    let mut lines = BufReader::new(File::open(journal)?);
    let mut line = Vec::new();
    let mut found = None;
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        let text = String::from_utf8_lossy(&line);
        if !text.contains(&field) || !text.contains("\"event\":\"x509_issued\"") {
            continue;
        }
        let Ok(record) = serde_json::from_str::<Value>(&text) else {
            continue;
        };
        let text = |name: &str| record.get(name).and_then(Value::as_str);
        if text("event") != Some("x509_issued") || text("serial") != Some(serial) {
            continue;
        }
        let end = text("not_after").and_then(|end| OffsetDateTime::parse(end, &Rfc3339).ok());
        found = text("authority")
            .zip(end)
            .map(|(authority, end)| (authority.to_owned(), end.into()))
            .or(found);
    }
}

/// How long a list is good for unless told otherwise.
pub const LIST_LIFE: Duration = Duration::from_secs(3600);
