//! Documents that come and go one by one, as an API server tells them.
//!
//! ```text
//! files, then changes of objects -> Store -> snapshots; proposals of changes -> what they would bring
//! ```
//!
//! From files a bad document refuses the whole new set. Here, where one tenant's mistake must not
//! freeze the others, a bad update keeps that object's last good version; a policy that was never seen
//! good is left out *closed* ([`Closing`](crate::closing::Closing)); the rest moves on.

mod judge;
mod key;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashSet;

pub use key::{ObjectKey, PolicyKind};

use crate::closing::Closing;
use crate::compile::{Compiler, Documents};
use crate::diagnostic::Diagnostic;
use crate::document::SourceText;
use crate::mesh::Mesh;
use crate::resource::FileResources;
use crate::settings::Settings;
use crate::snapshot::Snapshot;

/// One change of what an API server holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object is there, like this.
    Apply {
        /// Which object.
        key: ObjectKey,
        /// The object as JSON (or YAML); diagnostics show its `file`, [`ObjectKey::file`].
        text: SourceText,
    },
    /// The object is gone.
    Delete(ObjectKey),
}

impl Change {
    /// The object that changes.
    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Apply { key, .. } | Self::Delete(key) => key,
        }
    }
}

/// What became of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force as it was last applied.
    Accepted,
    /// Its last version is refused; the one before it stays in force.
    LastGood {
        /// Why it is refused.
        diagnostics: Vec<Diagnostic>,
    },
    /// It is refused and no good version of it was seen: what it selects is closed. One that is on
    /// trial, only records, or only tests closes nothing.
    Closed {
        /// Why it is refused.
        diagnostics: Vec<Diagnostic>,
    },
}

/// What a change would bring.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The set as it would be.
    pub snapshot: Arc<Snapshot>,
    /// Warnings and notes that concern the changed objects, or that the change brings anywhere.
    pub diagnostics: Vec<Diagnostic>,
}

/// The documents in force: files, and objects that come and go.
#[derive(Debug)]
pub struct Store {
    settings: Settings,
    files: Vec<Arc<FileResources>>,
    /// What the files hold, so that no object can be it once more.
    in_files: FxHashSet<judge::Identity>,
    objects: BTreeMap<ObjectKey, Object>,
    mesh: Mesh,
    compiler: Compiler,
    snapshot: Option<Arc<Snapshot>>,
}

/// One object of the API server.
#[derive(Clone, Debug)]
struct Object {
    /// As it was last applied.
    text: SourceText,
    /// The version in force, and its text.
    good: Option<(SourceText, Arc<FileResources>)>,
    /// What it closes.
    closing: Option<Arc<Closing>>,
    outcome: Outcome,
}

impl Store {
    /// An empty set.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let (mesh, _) = Mesh::resolve(&[], &settings);
        Self {
            settings,
            files: Vec::new(),
            in_files: FxHashSet::default(),
            objects: BTreeMap::new(),
            mesh,
            compiler: Compiler::default(),
            snapshot: None,
        }
    }

    /// A set of files, to which objects come.
    ///
    /// # Errors
    /// As [`compile`](crate::compile::compile): files are taken whole or not at all.
    pub fn with_files(
        settings: Settings,
        documents: Vec<SourceText>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut store = Self::new(settings);
        store.set_files(documents)?;
        Ok(store)
    }

    /// Puts other files in the place of those before; objects stay. An object that the files now hold
    /// as well is refused, and theirs is in force.
    ///
    /// # Errors
    /// As [`compile`](crate::compile::compile), and nothing changes: the files before stay.
    pub fn set_files(&mut self, documents: Vec<SourceText>) -> Result<(), Vec<Diagnostic>> {
        let documents = Documents {
            base: documents,
            candidate: None,
        };
        let mut compiler = Compiler::default();
        compiler.compile(&documents, &self.settings)?;
        self.files = compiler.read_again(&documents.base);
        self.in_files = judge::identities(&self.files);
        self.judge_again();
        Ok(())
    }

    /// Takes changes in, in their order; of one object the last counts.
    pub fn change(&mut self, changes: impl IntoIterator<Item = Change>) {
        let mut mesh_changed = false;
        for change in changes {
            self.snapshot = None;
            mesh_changed |= change.key().kind.as_ref() == "ConfigMap";
            self.put(change);
        }
        if mesh_changed {
            self.resolve_mesh();
        }
    }

    /// The set in force: what is good, and closed where nothing good was seen. The same snapshot until
    /// something changes.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        if let Some(snapshot) = &self.snapshot {
            return Arc::clone(snapshot);
        }
        let snapshot = loop {
            let read = self.effective();
            let closings = self.objects.values().filter_map(|o| o.closing.clone());
            let closings = closings.collect();
            let compiled = self.compiler.compile_read(&read, closings, &self.settings);
            match compiled {
                Ok(snapshot) => break Arc::new(snapshot),
                Err(diagnostics) => self.refuse(&diagnostics),
            }
        };
        self.snapshot = Some(Arc::clone(&snapshot));
        snapshot
    }

    /// Every policy and what became of it, in the order of their keys.
    pub fn outcomes(&self) -> impl Iterator<Item = (&ObjectKey, &Outcome)> {
        let policies = self
            .objects
            .iter()
            .filter(|(key, _)| key.policy_kind().is_some());
        policies.map(|(key, object)| (key, &object.outcome))
    }

    /// The set as if `changes` were made; the store is left as it is.
    ///
    /// # Errors
    /// Every diagnostic of the changed objects, when at least one is an error.
    pub fn propose(&mut self, changes: &[Change]) -> Result<Proposal, Vec<Diagnostic>> {
        let base = self.snapshot();
        let objects = self.objects.clone();
        let mesh = self.mesh.clone();
        self.change(changes.iter().cloned());
        let snapshot = self.snapshot();
        let keys: BTreeSet<&ObjectKey> = changes.iter().map(Change::key).collect();
        let refused = keys
            .iter()
            .filter_map(|key| match self.objects.get(*key)?.outcome.clone() {
                Outcome::Accepted => None,
                Outcome::LastGood { diagnostics } | Outcome::Closed { diagnostics } => {
                    Some(diagnostics)
                }
            });
        let refused: Vec<Diagnostic> = refused.flatten().collect();
        self.objects = objects;
        self.mesh = mesh;
        self.snapshot = Some(Arc::clone(&base));
        if !refused.is_empty() {
            return Err(refused);
        }
        let files: FxHashSet<Arc<str>> = keys.iter().map(|key| key.file()).collect();
        let mut seen: Vec<&Diagnostic> = base.diagnostics().iter().collect();
        let mut diagnostics: Vec<Diagnostic> = Vec::new();
        for diagnostic in snapshot.diagnostics() {
            let known = seen.iter().position(|d| *d == diagnostic);
            if let Some(known) = known {
                seen.swap_remove(known);
            }
            let concerns = files.contains(&diagnostic.location.file);
            if (known.is_none() || concerns) && !diagnostics.contains(diagnostic) {
                diagnostics.push(diagnostic.clone());
            }
        }
        Ok(Proposal {
            snapshot,
            diagnostics,
        })
    }

    fn put(&mut self, change: Change) {
        let (key, text) = match change {
            Change::Delete(key) => {
                self.objects.remove(&key);
                return;
            }
            Change::Apply { key, text } => (key, text),
        };
        let before = self.objects.remove(&key);
        let object = self.judge(&key, text, before.and_then(|object| object.good));
        self.objects.insert(key, object);
    }

    /// What becomes of an object whose last good version is `good`.
    fn judge(
        &self,
        key: &ObjectKey,
        text: SourceText,
        good: Option<(SourceText, Arc<FileResources>)>,
    ) -> Object {
        let read = judge::object(key, &text, &self.mesh, &self.in_files, &self.settings);
        let diagnostics = match read {
            Ok(read) => {
                return Object {
                    good: Some((text.clone(), read)),
                    text,
                    closing: None,
                    outcome: Outcome::Accepted,
                };
            }
            Err(diagnostics) => diagnostics,
        };
        // What a file holds is in force from there.
        let in_file = diagnostics.iter().any(judge::is_in_file);
        let good = good.filter(|_| !in_file);
        let closing = if good.is_some() || in_file {
            None
        } else {
            Closing::of(key, &text, &diagnostics).map(Arc::new)
        };
        let outcome = if good.is_some() || in_file {
            Outcome::LastGood { diagnostics }
        } else {
            Outcome::Closed { diagnostics }
        };
        Object {
            text,
            good,
            closing,
            outcome,
        }
    }

    /// Every object anew: what it is judged by has changed.
    fn judge_again(&mut self) {
        self.snapshot = None;
        let objects = std::mem::take(&mut self.objects);
        for (key, object) in objects {
            let Object { text, good, .. } = object;
            // The version in force must hold by the new measure as well.
            let good = good.filter(|(text, _)| {
                judge::object(&key, text, &self.mesh, &self.in_files, &self.settings).is_ok()
            });
            let judged = self.judge(&key, text, good);
            self.objects.insert(key, judged);
        }
        self.resolve_mesh();
    }

    fn resolve_mesh(&mut self) {
        let resources: Vec<_> = self
            .effective()
            .iter()
            .flat_map(|file| file.resources.iter().cloned())
            .collect();
        let (mesh, _) = Mesh::resolve(&resources, &self.settings);
        if mesh != self.mesh {
            self.mesh = mesh;
            self.judge_again();
        }
    }

    /// The files, then the version in force of every object, in the order of their keys.
    fn effective(&self) -> Vec<Arc<FileResources>> {
        let objects = self.objects.values();
        let good = objects.filter_map(|object| object.good.as_ref());
        let good = good.map(|(_, read)| Arc::clone(read));
        self.files.iter().cloned().chain(good).collect()
    }

    /// Leaves out what only the whole set shows to be wrong.
    fn refuse(&mut self, diagnostics: &[Diagnostic]) {
        let mut left_out = false;
        for (key, object) in &mut self.objects {
            let file = key.file();
            let own = diagnostics.iter().filter(|d| d.location.file == file);
            let own: Vec<Diagnostic> = own.cloned().collect();
            if object.good.is_some() && own.iter().any(Diagnostic::is_error) {
                object.good = None;
                object.closing = Closing::of(key, &object.text, &own).map(Arc::new);
                object.outcome = Outcome::Closed { diagnostics: own };
                left_out = true;
            }
        }
        if !left_out {
            // Nothing names the culprit: the files alone are known to be good.
            for object in self.objects.values_mut() {
                object.good = None;
            }
        }
    }
}
