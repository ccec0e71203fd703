//! Entries in memory: from a caller's selectors to the entries that match, without reading them all.
//!
//! Each entry stands under one of its selectors, the rarest at the time: a caller that matches has that
//! one, so looking under each of the caller's selectors finds every match. What a look-up costs does not
//! grow with the number of entries, but with how many share their rarest selector.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::entry::Entry;
use crate::selector::Selector;
use crate::spiffe_id::SpiffeId;

/// Longest chain of parents that is followed.
const MAX_PARENTS: usize = 16;

/// Every entry, and the ways to find one.
#[derive(Debug, Default)]
pub struct Index {
    revision: u64,
    /// In order of identifiers: pages need one.
    by_id: BTreeMap<String, Arc<Entry>>,
    by_spiffe_id: HashMap<SpiffeId, HashSet<String>>,
    /// Entries that stand under a selector.
    by_selector: HashMap<Selector, Vec<Arc<Entry>>>,
    /// How many entries have a selector at all, to know which is rare.
    uses: HashMap<Selector, usize>,
}

/// A change of entries.
#[derive(Clone, Debug)]
pub enum Change {
    /// New, or in place of the one with its identifier.
    Put(Arc<Entry>),
    /// Gone.
    Remove(String),
}

/// A change that would take the index back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {offered} comes after revision {current}: an index does not go back")]
pub struct Backwards {
    current: u64,
    offered: u64,
}

impl Index {
    /// The revision that the entries are at.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True without entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The entry with this identifier.
    #[must_use]
    pub fn entry(&self, id: &str) -> Option<&Arc<Entry>> {
        self.by_id.get(id)
    }

    /// Entries after `id` in order of identifiers; all of them from the start for an empty one.
    pub fn after(&self, id: &str) -> impl Iterator<Item = &Arc<Entry>> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_id
            .range::<str, _>((Excluded(id), Unbounded))
            .map(|(_, entry)| entry)
    }

    /// The entry that grants the same identity to the same callers, if there is one.
    #[must_use]
    pub fn similar(&self, to: &Entry) -> Option<&Arc<Entry>> {
        self.with_spiffe_id(&to.spiffe_id)
            .find(|entry| entry.parent_id == to.parent_id && entry.selectors == to.selectors)
    }

    /// The entry for the same callers, of another identity, that has this hint already.
    #[must_use]
    pub fn with_hint(&self, hint: &str, like: &Entry) -> Option<&Arc<Entry>> {
        let under = like
            .selectors
            .iter()
            .filter_map(|selector| self.by_selector.get(selector));
        under.flatten().find(|entry| {
            entry.hint == hint
                && entry.id != like.id
                && entry.parent_id == like.parent_id
                && entry.selectors == like.selectors
        })
    }

    /// Entries of an identity.
    pub fn with_spiffe_id(&self, id: &SpiffeId) -> impl Iterator<Item = &Arc<Entry>> {
        let ids = self.by_spiffe_id.get(id).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id))
    }

    /// Entries that a caller with `selectors` (sorted) is entitled to through `agent`, oldest first.
    #[must_use]
    pub fn matching(
        &self,
        selectors: &[Selector],
        agent: &SpiffeId,
        now: SystemTime,
    ) -> Vec<Arc<Entry>> {
        let mut found: Vec<Arc<Entry>> = Vec::new();
        for selector in selectors {
            for entry in self.by_selector.get(selector).into_iter().flatten() {
                let has_all = entry
                    .selectors
                    .iter()
                    .all(|wanted| selectors.binary_search(wanted).is_ok());
                if has_all && !entry.is_expired(now) && self.descends_from(entry, agent) {
                    found.push(Arc::clone(entry));
                }
            }
        }
        // The oldest is the default identity, and keeps its hint.
        found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        found
    }

    /// True when the entry's parent is the agent, or an identity that the agent hands out.
    fn descends_from(&self, entry: &Entry, agent: &SpiffeId) -> bool {
        if &entry.parent_id == agent {
            return true;
        }
        let mut seen: HashSet<&SpiffeId> = HashSet::new();
        let mut parents = vec![&entry.parent_id];
        while let Some(parent) = parents.pop() {
            if parent == agent {
                return true;
            }
            // A circle of parents leads nowhere, and so does a chain without end.
            if seen.len() < MAX_PARENTS && seen.insert(parent) {
                parents.extend(self.with_spiffe_id(parent).map(|entry| &entry.parent_id));
            }
        }
        false
    }

    /// Applies changes that were stored as `revision`.
    ///
    /// # Errors
    /// When the index is at that revision or a later one; nothing is changed then.
    pub fn apply(&mut self, changes: Vec<Change>, revision: u64) -> Result<(), Backwards> {
        if revision <= self.revision {
            return Err(Backwards {
                current: self.revision,
                offered: revision,
            });
        }
        self.revision = revision;
        for change in changes {
            match change {
                Change::Put(entry) => self.put(entry),
                Change::Remove(id) => {
                    self.remove(&id);
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, entry: Arc<Entry>) {
        self.remove(&entry.id);
        for selector in &entry.selectors {
            *self.uses.entry(selector.clone()).or_default() += 1;
        }
        let standing = |selector: &&Selector| {
            let under = self.by_selector.get(*selector).map_or(0, Vec::len);
            (under, self.uses.get(*selector).copied().unwrap_or(0))
        };
        if let Some(rarest) = entry.selectors.iter().min_by_key(standing) {
            let rarest = rarest.clone();
            self.by_selector
                .entry(rarest)
                .or_default()
                .push(Arc::clone(&entry));
        }
        let same_id = self
            .by_spiffe_id
            .entry(entry.spiffe_id.clone())
            .or_default();
        same_id.insert(entry.id.clone());
        self.by_id.insert(entry.id.clone(), entry);
    }

    fn remove(&mut self, id: &str) -> Option<Arc<Entry>> {
        let entry = self.by_id.remove(id)?;
        for selector in &entry.selectors {
            if let Some(under) = self.by_selector.get_mut(selector) {
                under.retain(|other| other.id != id);
                if under.is_empty() {
                    self.by_selector.remove(selector);
                }
            }
            if let Some(uses) = self.uses.get_mut(selector) {
                *uses = uses.saturating_sub(1);
                if *uses == 0 {
                    self.uses.remove(selector);
                }
            }
        }
        if let Some(same_id) = self.by_spiffe_id.get_mut(&entry.spiffe_id) {
            same_id.remove(id);
            if same_id.is_empty() {
                self.by_spiffe_id.remove(&entry.spiffe_id);
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
