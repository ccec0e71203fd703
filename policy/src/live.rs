//! Documents that come and go one by one, as an API server tells them.
//!
//! ```text
//! files, then changes of objects -> Store -> snapshots; proposals of changes -> what they would bring
//! ```
//!
//! From files a bad document refuses the whole new set. Here, where one tenant's mistake must not
//! freeze the others, a bad update keeps that object's last good version; a policy that was never seen
//! good is left out *closed* ([`Closing`]); the rest moves on.

mod content;
mod denial;
mod effect;
mod engine;
mod judge;
mod key;
mod openness;
mod proposal;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashSet;

pub use effect::is_effect;
pub use key::{ObjectKey, PolicyKind};

use content::Content;
use engine::Engine;

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
    /// It is refused and no good version of it was seen: what it selects is closed.
    Closed {
        /// Why it is refused.
        diagnostics: Vec<Diagnostic>,
    },
    /// As [`Self::Closed`], of what would decide nothing: it is on trial, only records, or only tests.
    LeftOut {
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
    settings: Arc<Settings>,
    files: Vec<Arc<FileResources>>,
    /// What the files hold, so that no object can be it once more.
    in_files: FxHashSet<judge::Identity>,
    objects: BTreeMap<ObjectKey, Object>,
    mesh: Mesh,
    engine: Engine,
    snapshot: Option<Arc<Snapshot>>,
}

/// One object of the API server.
#[derive(Clone, Debug)]
struct Object {
    /// As it was last applied.
    text: SourceText,
    /// The text of the version in force.
    good: Option<SourceText>,
    outcome: Outcome,
}

impl Store {
    /// An empty set.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let (mesh, _) = Mesh::resolve(&[], &settings);
        let settings = Arc::new(settings);
        Self {
            files: Vec::new(),
            in_files: FxHashSet::default(),
            objects: BTreeMap::new(),
            engine: Engine::new(&settings, &mesh, &[]),
            mesh,
            settings,
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
        let mut mesh_may_change = false;
        for change in changes {
            mesh_may_change |= holds_mesh(change.key());
            self.put(change);
        }
        if mesh_may_change {
            self.resolve_mesh();
        }
    }

    /// The set in force: what is good, and closed where nothing good was seen. The same snapshot until
    /// something changes.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        if let Some(snapshot) = &self.snapshot {
            return Arc::clone(snapshot);
        }
        let snapshot = Arc::new(self.engine.snapshot());
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

    /// What holds a mesh and is refused: the mesh is as the last good version says, or what it was without
    /// one, which is seldom what was meant.
    pub fn refused_mesh(&self) -> Option<(&ObjectKey, &Outcome)> {
        let mut objects = self.objects.iter();
        objects.find_map(|(key, object)| {
            let refused = holds_mesh(key) && object.outcome != Outcome::Accepted;
            refused.then_some((key, &object.outcome))
        })
    }

    /// The set as if `changes` were made; the store is left as it is.
    ///
    /// # Errors
    /// Every diagnostic of the changed objects, when at least one is an error.
    pub fn propose(&mut self, changes: &[Change]) -> Result<Proposal, Vec<Diagnostic>> {
        proposal::of(self, changes)
    }

    fn put(&mut self, change: Change) {
        let (key, text) = match change {
            Change::Delete(key) => {
                self.objects.remove(&key);
                self.bring(&key, Content::default());
                return;
            }
            Change::Apply { key, text } => (key, text),
        };
        let before = self.objects.get(&key);
        if before.is_some_and(|object| object.text.bytes == text.bytes) {
            return;
        }
        let good = before.and_then(|object| object.good.clone());
        self.judge(key, text, good);
    }

    /// Decides what becomes of an object whose last good version is `good`.
    fn judge(&mut self, key: ObjectKey, text: SourceText, good: Option<SourceText>) {
        let object = match self.read(&key, &text) {
            Ok(content) => {
                self.bring(&key, content);
                Object {
                    good: Some(text.clone()),
                    text,
                    outcome: Outcome::Accepted,
                }
            }
            // What a file holds is in force from there.
            Err(diagnostics) if diagnostics.iter().any(judge::is_in_file) => {
                self.bring(&key, Content::default());
                Object {
                    text,
                    good: None,
                    outcome: Outcome::LastGood { diagnostics },
                }
            }
            Err(diagnostics) if good.is_some() => Object {
                text,
                good,
                outcome: Outcome::LastGood { diagnostics },
            },
            Err(diagnostics) => {
                let closing = Closing::of(&key, &text, &diagnostics).map(Arc::new);
                let outcome = match closing {
                    Some(_) => Outcome::Closed { diagnostics },
                    None => Outcome::LeftOut { diagnostics },
                };
                self.bring(&key, Content::closed(closing));
                Object {
                    text,
                    good: None,
                    outcome,
                }
            }
        };
        self.objects.insert(key, object);
    }

    fn read(&self, key: &ObjectKey, text: &SourceText) -> Result<Content, Vec<Diagnostic>> {
        judge::object(key, text, &self.mesh, &self.in_files, &self.settings)
    }

    fn bring(&mut self, key: &ObjectKey, content: Content) {
        if self.engine.put(&key.file(), content) {
            self.snapshot = None;
        }
    }

    /// Everything anew: what it is judged and lowered by has changed.
    fn judge_again(&mut self) {
        self.snapshot = None;
        self.engine = Engine::new(&self.settings, &self.mesh, &self.files);
        let objects = std::mem::take(&mut self.objects);
        for (key, object) in objects {
            let Object { text, good, .. } = object;
            // The version in force must hold by the new measure as well.
            let good = good.filter(|good| *good.bytes != *text.bytes);
            let held = good.filter(|good| match self.read(&key, good) {
                Ok(content) => {
                    self.bring(&key, content);
                    true
                }
                Err(_) => false,
            });
            self.judge(key, text, held);
        }
        self.resolve_mesh();
    }

    fn resolve_mesh(&mut self) {
        let (mesh, _) = Mesh::resolve(&self.engine.mesh_configs(), &self.settings);
        if mesh != self.mesh {
            self.mesh = mesh;
            self.judge_again();
        }
    }
}

/// True for what may hold a MeshConfig.
fn holds_mesh(key: &ObjectKey) -> bool {
    matches!(
        key.kind.as_ref(),
        "ConfigMap" | "MeshConfig" | "IstioOperator"
    )
}
