//! The set in force, kept so that a copy costs next to nothing and a change no more than what changed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use super::content::Content;
use crate::cedar::context::Uids;
use crate::compile;
use crate::diagnostic::Diagnostic;
use crate::inventory::{Inventory, Part, declared};
use crate::lint;
use crate::mesh::Mesh;
use crate::order::Order;
use crate::parted::Parted;
use crate::policy_set::{Piece, PolicySet};
use crate::resource::{FileResources, Resource};
use crate::settings::Settings;
use crate::snapshot::{Diagnostics, Lint, Parts, Snapshot};

/// Files, and the objects in force, compiled.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    settings: Arc<Settings>,
    mesh: Arc<Mesh>,
    uids: Arc<Uids>,
    documents: Documents,
    inventory: Inventory,
    set: Arc<PolicySet>,
    /// Of the settings and files; the sum of what the objects hash to is added.
    fixed: u64,
    sum: u64,
}

/// What the set was made of.
#[derive(Clone, Debug)]
struct Documents {
    files: Arc<Vec<Content>>,
    /// By [`file`](super::ObjectKey::file).
    objects: Parted<Arc<str>, Arc<Entry>>,
}

/// One object of the set.
#[derive(Debug)]
struct Entry {
    content: Content,
    parts: Vec<Option<Part>>,
    hash: u64,
}

impl Engine {
    /// The files alone.
    pub(super) fn new(settings: &Arc<Settings>, mesh: &Mesh, files: &[Arc<FileResources>]) -> Self {
        let mut hasher = DefaultHasher::new();
        format!("{settings:?}").hash(&mut hasher);
        let mut inventory = Inventory::new(mesh, settings);
        let mut set = PolicySet::empty(mesh);
        let mut order = (0u32..).map(Order::Document);
        let mut contents = Vec::new();
        for (place, file) in files.iter().enumerate() {
            let content = Content::of(Arc::clone(file), mesh);
            content.hash(&place.to_string()).hash(&mut hasher);
            for ((resource, piece), order) in content.pieces.iter().zip(&mut order) {
                inventory.insert(order.clone(), resource);
                set.insert(&order, piece);
            }
            contents.push(content);
        }
        for (workload, place) in settings.workloads.iter().zip(0u32..) {
            inventory.insert(Order::Declared(place), &declared(workload));
        }
        Self {
            settings: Arc::clone(settings),
            mesh: Arc::new(mesh.clone()),
            uids: Arc::new(Uids::default()),
            documents: Documents {
                files: Arc::new(contents),
                objects: Parted::default(),
            },
            inventory,
            set: Arc::new(set),
            fixed: hasher.finish(),
            sum: 0,
        }
    }

    /// Puts what an object brings in the place of what it brought before; false when that is the same.
    pub(super) fn put(&mut self, file: &Arc<str>, content: Content) -> bool {
        let before = self.documents.objects.get(file);
        let unchanged = match before {
            Some(before) => before.content.is_same(&content),
            None => content.is_empty(),
        };
        if unchanged {
            return false;
        }
        let order = Order::Object(Arc::clone(file));
        if let Some(before) = self.documents.objects.remove(file) {
            self.sum = self.sum.wrapping_sub(before.hash);
            let resources = before.content.pieces.iter();
            for ((_, piece), part) in resources.zip(&before.parts) {
                self.take_out(&order, piece);
                if let Some(part) = part {
                    self.inventory.remove(&order, *part);
                }
            }
            self.take_out(&order, &before.content.closing);
        }
        if content.is_empty() {
            return true;
        }
        let mut parts = Vec::new();
        for (resource, piece) in &content.pieces {
            parts.push(self.inventory.insert(order.clone(), resource));
            self.take_in(&order, piece);
        }
        self.take_in(&order, &content.closing);
        let hash = content.hash(file);
        self.sum = self.sum.wrapping_add(hash);
        let entry = Entry {
            content,
            parts,
            hash,
        };
        self.documents
            .objects
            .insert(Arc::clone(file), Arc::new(entry));
        true
    }

    // Most objects are pods: they leave the policies as they are, and the slices with them.

    fn take_out(&mut self, order: &Order, piece: &Piece) {
        if !piece.is_empty() {
            Arc::make_mut(&mut self.set).remove(order, piece);
        }
    }

    fn take_in(&mut self, order: &Order, piece: &Piece) {
        if !piece.is_empty() {
            Arc::make_mut(&mut self.set).insert(order, piece);
        }
    }

    /// The set as it is.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        self.inventory.settle();
        if self.set.is_unsettled() {
            Arc::make_mut(&mut self.set).settle();
        }
        let settings = &self.settings;
        let lint = Whole {
            settings: Arc::clone(settings),
            documents: self.documents.clone(),
        };
        Snapshot::new(Parts {
            revision: format!("{:016x}", self.fixed ^ self.sum),
            diagnostics: Diagnostics::Later(OnceLock::new(), Box::new(lint)),
            mesh: Arc::clone(&self.mesh),
            inventory: self.inventory.clone(),
            set: Arc::clone(&self.set),
            uids: Arc::clone(&self.uids),
            custom_providers: settings.custom_providers.clone(),
            serving: settings.serving,
            require_svid: settings.require_svid,
            memo: settings.memo,
            candidate: None,
        })
    }

    /// What there is to say of some policies, given the rest of the set. No AuthorizationPolicy,
    /// CedarPolicy or PolicyTest changes what there is to say of another, but for a DENY that covers an ALLOW
    /// rule, so this is all that changing them brings.
    pub(super) fn lint_policies(&self, files: &[Arc<str>]) -> Vec<Diagnostic> {
        let changed = || {
            let entries = files.iter().filter_map(|f| self.documents.objects.get(f));
            entries.map(|entry| &entry.content)
        };
        let of_files = self.documents.files.iter();
        let objects = self.documents.objects.iter().map(|(_, e)| &e.content);
        let rest = of_files.chain(objects).flat_map(|c| &c.read.resources);
        let all: Vec<Arc<Resource>> = rest.cloned().collect();
        let others = all.iter().filter(|r| !is_apart(r));
        let mut resources: Vec<Arc<Resource>> = others.cloned().collect();
        let own = changed().flat_map(|c| &c.read.resources);
        resources.extend(own.filter(|r| is_apart(r)).cloned());
        let mut found: Vec<Diagnostic> = Vec::new();
        found.extend(changed().flat_map(|c| c.read.diagnostics.iter().cloned()));
        let in_set = compile::lint_distinct(&resources, &self.mesh, &self.settings);
        found.extend(in_set);
        found.extend(changed().flat_map(|c| c.of_cedar.iter().cloned()));
        let user = changed().flat_map(Content::all_pieces);
        let user: Vec<_> = user.flat_map(|piece| piece.user.iter().cloned()).collect();
        found.extend(compile::diagnose_user(&user, &self.inventory));
        compile::check_user(user.iter(), &self.mesh, &all, &mut found);
        found.extend(self.inventory.diagnose(&resources));
        let policies = changed().flat_map(Content::all_pieces);
        let policies = policies.filter_map(|piece| piece.policy.as_ref());
        found.extend(lint::place::check(
            policies,
            &self.set,
            &self.inventory,
            &all,
        ));
        found.retain(|d| files.contains(&d.location.file));
        lint::shadow::check(&all, &self.mesh.root_namespace, Some(files), &mut found);
        found
    }

    /// What an object brings.
    pub(super) fn content(&self, file: &str) -> Option<&Content> {
        Some(&self.documents.objects.get(file)?.content)
    }

    /// Every Namespace.
    pub(super) fn namespaces(&self) -> Vec<Arc<Resource>> {
        let of_files = self.documents.files.iter();
        let objects = self.documents.objects.iter().map(|(_, e)| &e.content);
        let resources = of_files.chain(objects).flat_map(|c| &c.read.resources);
        let namespaces = resources.filter(|r| matches!(r.as_ref(), Resource::Namespace(_)));
        namespaces.cloned().collect()
    }

    /// Every MeshConfig, in the order of the documents.
    pub(super) fn mesh_configs(&self) -> Vec<Arc<Resource>> {
        let resources = self.documents.resources().into_iter();
        resources
            .filter(|r| matches!(r.as_ref(), Resource::MeshConfig(_)))
            .collect()
    }
}

/// True for a policy that nothing said of another hangs on.
fn is_apart(resource: &Resource) -> bool {
    matches!(
        resource,
        Resource::AuthorizationPolicy(_)
            | Resource::RequestAuthentication(_)
            | Resource::CedarPolicy(_)
            | Resource::PolicyTest(_)
    )
}

impl Documents {
    /// Files, then objects by name.
    fn contents(&self) -> Vec<&Content> {
        let mut objects: Vec<_> = self.objects.iter().collect();
        objects.sort_by_key(|(file, _)| *file);
        let objects = objects.into_iter().map(|(_, entry)| &entry.content);
        self.files.iter().chain(objects).collect()
    }

    fn resources(&self) -> Vec<Arc<Resource>> {
        let contents = self.contents().into_iter();
        contents
            .flat_map(|content| content.read.resources.iter().cloned())
            .collect()
    }
}

/// Lints the whole set.
#[derive(Debug)]
struct Whole {
    settings: Arc<Settings>,
    documents: Documents,
}

impl Lint for Whole {
    fn lint(&self, parts: &Parts) -> Vec<Diagnostic> {
        let resources = self.documents.resources();
        let contents = self.documents.contents();
        let read = contents.iter().flat_map(|c| &c.read.diagnostics);
        let mut found: Vec<Diagnostic> = read.cloned().collect();
        found.extend(Mesh::resolve(&resources, &self.settings).1);
        found.extend(compile::lint_all(&resources, &parts.mesh, &self.settings));
        let of_cedar = contents.iter().flat_map(|c| &c.of_cedar);
        found.extend(of_cedar.cloned());
        found.extend(compile::diagnose(
            &parts.set,
            &parts.inventory,
            &resources,
            &parts.mesh,
        ));
        found
    }
}
