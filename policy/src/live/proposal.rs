//! What changes would bring, worked out on a copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::content::Content;
use super::effect::{self, Changed};
use super::{Change, ObjectKey, Proposal, Store, holds_mesh};
use crate::diagnostic::Diagnostic;
use crate::snapshot::Snapshot;

/// The set as if `changes` were made to `store`.
pub(super) fn of(store: &mut Store, changes: &[Change]) -> Result<Proposal, Vec<Diagnostic>> {
    let base = store.snapshot();
    // Of one object the last change counts.
    let last: BTreeMap<&ObjectKey, &Change> = changes.iter().map(|c| (c.key(), c)).collect();
    let mut refused = Vec::new();
    let mut contents = Vec::new();
    for (key, change) in &last {
        match change {
            Change::Delete(_) => contents.push((*key, Content::default())),
            Change::Apply { text, .. } => match store.read(key, text) {
                Ok(content) => contents.push((*key, content)),
                Err(diagnostics) => refused.extend(diagnostics),
            },
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let before = engine_before(store, last.keys().copied());
    let snapshot = if last.keys().any(|key| holds_mesh(key)) {
        with_mesh(store, changes)
    } else {
        let mut engine = store.engine.clone();
        for (key, content) in &contents {
            engine.put(&key.file(), content.clone());
        }
        Arc::new(engine.snapshot())
    };
    let files = last.keys().map(|key| key.file()).collect::<Vec<_>>();
    let concerns = |d: &Diagnostic| files.contains(&d.location.file);
    let mut diagnostics = brought(&base, &snapshot, concerns);
    for ((key, after), before) in contents.iter().zip(&before) {
        let changed = Changed {
            key,
            before: before
                .as_ref()
                .map_or_else(Vec::new, |content| content.all_pieces()),
            after: after.all_pieces(),
        };
        diagnostics.extend(effect::of(&changed, &base, &snapshot));
    }
    Ok(Proposal {
        snapshot,
        diagnostics,
    })
}

/// What the objects bring now.
fn engine_before<'k>(
    store: &Store,
    keys: impl Iterator<Item = &'k ObjectKey>,
) -> Vec<Option<Content>> {
    keys.map(|key| store.engine.content(&key.file()).cloned())
        .collect()
}

/// A mesh that changes changes how everything is read: the store itself shows it, and is put back.
fn with_mesh(store: &mut Store, changes: &[Change]) -> Arc<Snapshot> {
    let before = (
        store.objects.clone(),
        store.mesh.clone(),
        store.engine.clone(),
        store.snapshot.clone(),
    );
    store.change(changes.iter().cloned());
    let snapshot = store.snapshot();
    (store.objects, store.mesh, store.engine, store.snapshot) = before;
    snapshot
}

/// What `proposed` says that `base` does not, and what `concerns` the changed objects; each once.
fn brought(
    base: &Snapshot,
    proposed: &Snapshot,
    concerns: impl Fn(&Diagnostic) -> bool,
) -> Vec<Diagnostic> {
    let mut said: FxHashMap<&Diagnostic, usize> = FxHashMap::default();
    for diagnostic in base.diagnostics() {
        *said.entry(diagnostic).or_default() += 1;
    }
    let mut brought: Vec<Diagnostic> = Vec::new();
    for diagnostic in proposed.diagnostics() {
        let known = said.get_mut(diagnostic).filter(|times| **times > 0);
        let known = known.map(|times| *times = times.saturating_sub(1));
        if (known.is_none() || concerns(diagnostic)) && !brought.contains(diagnostic) {
            brought.push(diagnostic.clone());
        }
    }
    brought
}
