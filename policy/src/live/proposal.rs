//! What changes would bring, worked out on a copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::content::Content;
use super::effect::{self, Changed};
use super::{Change, ObjectKey, PolicyKind, Proposal, Store, holds_mesh};
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
    let before: Vec<Option<Content>> = last
        .keys()
        .map(|key| store.engine.content(&key.file()).cloned())
        .collect();
    let files: Vec<Arc<str>> = last.keys().map(|key| key.file()).collect();
    let (snapshot, mut diagnostics) = if last.keys().any(|key| holds_mesh(key)) {
        let snapshot = with_mesh(store, changes);
        let diagnostics = brought(&base, &snapshot, &files);
        (snapshot, diagnostics)
    } else {
        let mut engine = store.engine.clone();
        for (key, content) in &contents {
            engine.put(&key.file(), content.clone());
        }
        let snapshot = Arc::new(engine.snapshot());
        let diagnostics = if last.keys().all(|key| is_apart(key)) {
            once(engine.lint_policies(&files))
        } else {
            brought(&base, &snapshot, &files)
        };
        (snapshot, diagnostics)
    };
    let namespaces = store.engine.namespaces();
    for ((key, after), before) in contents.iter().zip(&before) {
        let changed = Changed {
            key,
            before: before
                .as_ref()
                .map_or_else(Vec::new, |content| content.all_pieces()),
            after: after.all_pieces(),
        };
        diagnostics.extend(effect::of(&changed, &base, &snapshot, &namespaces));
    }
    Ok(Proposal {
        snapshot,
        diagnostics,
    })
}

/// True for a policy that changes nothing of what there is to say of others.
fn is_apart(key: &ObjectKey) -> bool {
    let kind = key.policy_kind();
    // Claims are looked at in vain where no RequestAuthentication is.
    let others = [
        PolicyKind::PeerAuthentication,
        PolicyKind::RequestAuthentication,
    ];
    kind.is_some_and(|kind| !others.contains(&kind))
}

fn once(diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut seen = FxHashSet::default();
    let new = |d: &Diagnostic| seen.insert(d.clone());
    diagnostics.into_iter().filter(new).collect()
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

/// What `proposed` says that `base` does not, and what it says of `files`; each once.
fn brought(base: &Snapshot, proposed: &Snapshot, files: &[Arc<str>]) -> Vec<Diagnostic> {
    let mut said: FxHashMap<&Diagnostic, usize> = FxHashMap::default();
    for diagnostic in base.diagnostics() {
        *said.entry(diagnostic).or_default() += 1;
    }
    let mut brought: Vec<Diagnostic> = Vec::new();
    for diagnostic in proposed.diagnostics() {
        let known = said.get_mut(diagnostic).filter(|times| **times > 0);
        let known = known.map(|times| *times = times.saturating_sub(1));
        if known.is_none() || files.contains(&diagnostic.location.file) {
            brought.push(diagnostic.clone());
        }
    }
    once(brought)
}
