//! Bringing the registry to what another source says, in one step.

use std::sync::Arc;

use super::{Actor, Registry, RegistryError, Results};
use crate::entry::Entry;
use crate::x509::certificate::whole_seconds;

/// What became of an entry that was to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconciled {
    /// It was not there.
    Created,
    /// It was another.
    Updated,
}

impl Registry {
    /// Removes entries and puts others, all in one commit: nobody sees a state between the two. Each that is put stands
    /// or falls alone; its identifier says which one it is. What is to be removed and is not there is passed over.
    ///
    /// # Errors
    /// When nothing could be stored.
    pub async fn reconcile(
        &self,
        remove: Vec<String>,
        put: Vec<Entry>,
        actor: &Actor,
    ) -> Result<Results<Reconciled>, RegistryError> {
        let mut change = self.begin().await?;
        let now = whole_seconds(self.clock.now());
        for id in remove {
            let there = self.index().entry(&id).cloned();
            if let Some(entry) = there {
                change.remove(&entry, "entry_deleted", actor);
            }
        }
        let mut results = Vec::with_capacity(put.len());
        for mut entry in put {
            let is_there = self.index().entry(&entry.id).is_some();
            results.push(match is_there {
                true => {
                    let id = entry.id.clone();
                    let replace = |there: &mut Entry| {
                        *there = entry;
                        Ok(())
                    };
                    self.updated(&id, replace, &change).map(|entry| {
                        change.put(entry, "entry_updated", actor);
                        Reconciled::Updated
                    })
                }
                false => {
                    entry.created_at = now;
                    entry.revision_number = 0;
                    self.admit(&mut entry, &change).map(|()| {
                        change.put(Arc::new(entry), "entry_created", actor);
                        Reconciled::Created
                    })
                }
            });
        }
        self.commit(change).await?;
        Ok(results)
    }
}
