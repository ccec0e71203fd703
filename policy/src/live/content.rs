//! One object or file, as the engine holds it: what it was read to, and what was made of that.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::closing::Closing;
use crate::compile;
use crate::diagnostic::Diagnostic;
use crate::mesh::Mesh;
use crate::policy_set::Piece;
use crate::resource::{FileResources, Resource};
use crate::user;

/// What one object brings to the set.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// What it was read to; nothing for what is left out.
    pub(super) read: Arc<FileResources>,
    /// What is made of its resources.
    pub(super) pieces: Vec<(Arc<Resource>, Piece)>,
    /// What is to say of its Cedar.
    pub(super) of_cedar: Vec<Diagnostic>,
    /// What it closes.
    pub(super) closing: Piece,
}

impl Content {
    /// Lowers what was read.
    pub(super) fn of(read: Arc<FileResources>, mesh: &Mesh) -> Self {
        let mut content = Self::default();
        for resource in &read.resources {
            let mut piece = Piece::of(resource);
            if let Some((policy, refused)) = compile::lowered(resource, mesh) {
                piece.policy = Some(policy);
                content.of_cedar.extend(refused);
            }
            let (policies, found) = match resource.as_ref() {
                Resource::Cedar(file) => user::read(file, &mesh.root_namespace),
                Resource::CedarPolicy(policy) => user::read_manifest(policy, &mesh.root_namespace),
                _ => (Vec::new(), Vec::new()),
            };
            content.of_cedar.extend(found);
            let (policies, twice) = user::overlay(policies, Vec::new());
            content.of_cedar.extend(twice);
            piece.user = policies;
            content.pieces.push((Arc::clone(resource), piece));
        }
        Self { read, ..content }
    }

    /// Nothing but what it closes.
    pub(super) fn closed(closing: Option<Arc<Closing>>) -> Self {
        Self {
            closing: Piece {
                closing,
                ..Piece::default()
            },
            ..Self::default()
        }
    }

    /// Every piece, that of what it closes among them.
    pub(super) fn all_pieces(&self) -> Vec<&Piece> {
        let pieces = self.pieces.iter().map(|(_, piece)| piece);
        pieces.chain([&self.closing]).collect()
    }

    /// True for what brings nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.closing.is_empty() && self.read.diagnostics.is_empty()
    }

    /// True where both bring the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.read == other.read && self.closing.closing == other.closing.closing
    }

    /// Equal contents at the same place, equal number.
    pub(super) fn hash(&self, place: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        place.hash(&mut hasher);
        format!("{:?} {:?}", self.read.resources, self.closing.closing).hash(&mut hasher);
        hasher.finish()
    }
}
