//! The one doorway: documents and settings in, a snapshot or every diagnostic out.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use cedar_policy_core::{ast, pst};
use rustc_hash::FxHashMap;

use crate::cedar::context::Uids;
use crate::cedar::{emit, schema};
use crate::diagnostic::{Diagnostic, Location, code};
use crate::document::SourceText;
use crate::inventory::{self, Inventory};
use crate::lint::{self, lint};
use crate::mesh::Mesh;
use crate::model::{Dialect, Rule};
use crate::policy_set::{Policy, PolicySet};
use crate::resource::{self, CedarFile, FileResources, Metadata, Resource};
use crate::settings::Settings;
use crate::snapshot::{Diagnostics, Parts, Snapshot};
use crate::user::{self, UserPolicy};

/// The input of a compilation.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// What is, or will be, in force. Files ending in `.cedar` are user policies; the rest YAML or JSON.
    pub base: Vec<SourceText>,
    /// What is proposed: replaces its namesakes (same kind, namespace and name) or joins, on trial.
    pub candidate: Option<Vec<SourceText>>,
}

/// Compiles a set again and again, keeping what did not change.
#[derive(Debug, Default)]
pub struct Compiler {
    files: FxHashMap<Arc<str>, (SourceText, Arc<FileResources>)>,
    policies: FxHashMap<usize, (Arc<Policy>, Vec<Diagnostic>)>,
    mesh: Option<Mesh>,
}

impl Compiler {
    /// Compiles `documents`; files with the same bytes as last time are not read again.
    ///
    /// # Errors
    /// Every diagnostic of the set, warnings and notes included, when at least one is an error.
    pub fn compile(
        &mut self,
        documents: &Documents,
        settings: &Settings,
    ) -> Result<Snapshot, Vec<Diagnostic>> {
        let base = self.read(&documents.base);
        let candidate = match &documents.candidate {
            None => None,
            Some(proposed) => {
                let proposed = self.read(proposed);
                let kept = overlay(&base, &proposed);
                let revision =
                    revision(&documents.base, Some(proposed_sources(documents)), settings);
                Some(Arc::new(
                    self.snapshot(&kept, &proposed, settings, revision, None)?,
                ))
            }
        };
        let named: std::collections::HashSet<&str> = documents
            .base
            .iter()
            .chain(proposed_sources(documents))
            .map(|source| source.file.as_ref())
            .collect();
        self.files.retain(|file, _| named.contains(file.as_ref()));
        let revision = revision(&documents.base, None, settings);
        self.snapshot(&base, &[], settings, revision, candidate)
    }

    /// What `sources` were read to; those that were compiled are not read again.
    pub(crate) fn read_again(&mut self, sources: &[SourceText]) -> Vec<Arc<FileResources>> {
        self.read(sources)
    }

    /// Reads every file, or takes what it was read to last time.
    fn read(&mut self, sources: &[SourceText]) -> Vec<Arc<FileResources>> {
        sources
            .iter()
            .map(|source| {
                if let Some((before, read)) = self.files.get(&source.file)
                    && (Arc::ptr_eq(&before.bytes, &source.bytes) || before.bytes == source.bytes)
                {
                    return Arc::clone(read);
                }
                let read = Arc::new(read(source));
                self.files.insert(
                    Arc::clone(&source.file),
                    (source.clone(), Arc::clone(&read)),
                );
                read
            })
            .collect()
    }

    fn snapshot(
        &mut self,
        base: &[Arc<FileResources>],
        proposed: &[Arc<FileResources>],
        settings: &Settings,
        revision: String,
        candidate: Option<Arc<Snapshot>>,
    ) -> Result<Snapshot, Vec<Diagnostic>> {
        let files = || base.iter().chain(proposed);
        let resources: Vec<Arc<Resource>> =
            files().flat_map(|f| f.resources.iter().cloned()).collect();
        let mut diagnostics: Vec<Diagnostic> = files()
            .flat_map(|f| f.diagnostics.iter().cloned())
            .collect();
        let (mesh, notes) = Mesh::resolve(&resources, settings);
        diagnostics.extend(notes);
        diagnostics.extend(lint_all(&resources, &mesh, settings));
        let policies = self.lower(&resources, &mesh, &mut diagnostics);
        let mut cedar = |files: &[Arc<FileResources>]| {
            let mut all = Vec::new();
            for resource in files.iter().flat_map(|f| &f.resources) {
                let (policies, found) = match resource.as_ref() {
                    Resource::Cedar(file) => user::read(file, &mesh.root_namespace),
                    Resource::CedarPolicy(policy) => {
                        user::read_manifest(policy, &mesh.root_namespace)
                    }
                    _ => continue,
                };
                all.extend(policies);
                diagnostics.extend(found);
            }
            all
        };
        let (user_policies, twice) = user::overlay(cedar(base), cedar(proposed));
        diagnostics.extend(twice);
        if diagnostics.iter().any(|d| refuses(d, settings)) {
            return Err(diagnostics);
        }
        let inventory = Inventory::build(&resources, &mesh, settings);
        let set = PolicySet::new(policies, user_policies, &resources, &mesh);
        diagnostics.extend(diagnose(&set, &inventory, &resources, &mesh));
        set.make_ahead(&inventory);
        Ok(Snapshot::new(Parts {
            revision,
            diagnostics: Diagnostics::Found(diagnostics),
            mesh: Arc::new(mesh),
            inventory,
            set: Arc::new(set),
            uids: Arc::new(Uids::default()),
            custom_providers: settings.custom_providers.clone(),
            serving: settings.serving,
            require_svid: settings.require_svid,
            memo: settings.memo,
            candidate,
        }))
    }

    /// Lowers every AuthorizationPolicy and validates its Cedar, or takes what that came to last time.
    fn lower(
        &mut self,
        resources: &[Arc<Resource>],
        mesh: &Mesh,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Vec<Arc<Policy>> {
        if self.mesh.as_ref() != Some(mesh) {
            self.policies.clear();
            self.mesh = Some(mesh.clone());
        }
        let key = |resource: &Arc<Resource>| Arc::as_ptr(resource) as usize;
        let new: Vec<&Arc<Resource>> = resources
            .iter()
            .filter(|r| !self.policies.contains_key(&key(r)))
            .collect();
        for (resource, entry) in lower_all(&new, mesh) {
            self.policies.insert(key(resource), entry);
        }
        let mut known = FxHashMap::default();
        let mut lowered = Vec::new();
        for resource in resources {
            let Some(entry) = self.policies.remove(&key(resource)) else {
                continue;
            };
            diagnostics.extend(entry.1.iter().cloned());
            lowered.push(Arc::clone(&entry.0));
            known.insert(key(resource), entry);
        }
        self.policies = known;
        lowered
    }
}

type Lowered<'r> = (&'r Arc<Resource>, (Arc<Policy>, Vec<Diagnostic>));

/// Below this many policies a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 100;

/// Lowers and validates, on every processor where it is worth it: validation is most of the time that
/// compiling takes.
fn lower_all<'r>(resources: &[&'r Arc<Resource>], mesh: &Mesh) -> Vec<Lowered<'r>> {
    let one = |resource: &'r Arc<Resource>| {
        let lowered = lowered(resource, mesh)?;
        Some((resource, lowered))
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if threads == 1 || resources.len() < WORTH_A_THREAD {
        return resources.iter().filter_map(|r| one(r)).collect();
    }
    let share = resources.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = resources
            .chunks(share)
            .map(|part| {
                let work = move || part.iter().filter_map(|r| one(r)).collect::<Vec<_>>();
                (part, scope.spawn(work))
            })
            .collect();
        workers
            .into_iter()
            // A thread that could not finish leaves its part to this one.
            .flat_map(|(part, worker)| {
                worker
                    .join()
                    .unwrap_or_else(|_| part.iter().filter_map(|r| one(r)).collect())
            })
            .collect()
    })
}

/// What only shows when the documents are looked at together.
pub(crate) fn lint_all(
    resources: &[Arc<Resource>],
    mesh: &Mesh,
    settings: &Settings,
) -> Vec<Diagnostic> {
    lint_by(lint, resources, mesh, settings)
}

/// As [`lint_all`], of resources that are known to stand there once each.
pub(crate) fn lint_distinct(
    resources: &[Arc<Resource>],
    mesh: &Mesh,
    settings: &Settings,
) -> Vec<Diagnostic> {
    lint_by(lint::lint_distinct, resources, mesh, settings)
}

type Linter = fn(&[Arc<Resource>], &str, &[String]) -> Vec<Diagnostic>;

fn lint_by(
    lint: Linter,
    resources: &[Arc<Resource>],
    mesh: &Mesh,
    settings: &Settings,
) -> Vec<Diagnostic> {
    let mut trust_domains = mesh.trust_domain_aliases.clone();
    trust_domains.push(mesh.trust_domain.clone());
    // What the configuration declares is there as well as what the documents do.
    let declared = settings.workloads.iter().map(inventory::declared);
    let own = settings.mesh.extension_providers.is_some();
    let own = own.then(|| Arc::new(Resource::MeshConfig(settings.mesh.clone())));
    let resources = resources.iter().cloned();
    let all: Vec<_> = resources.chain(declared).chain(own).collect();
    lint(&all, &mesh.root_namespace, &trust_domains)
}

/// What shows when policies and workloads are looked at together.
pub(crate) fn diagnose(
    set: &PolicySet,
    inventory: &Inventory,
    resources: &[Arc<Resource>],
    mesh: &Mesh,
) -> Vec<Diagnostic> {
    let user: Vec<_> = set.all_user_policies().cloned().collect();
    let mut found = diagnose_user(&user, inventory);
    found.extend(inventory.diagnose(resources));
    found.extend(set.peer_authentications().diagnose(inventory, resources));
    check_user(set.all_user_policies(), mesh, resources, &mut found);
    found.extend(lint::place::check(
        set.policies(),
        set,
        inventory,
        resources,
    ));
    found
}

/// Reports namespaces and service accounts that user policies name and `resources` do not have.
pub(crate) fn check_user<'u>(
    user: impl Iterator<Item = &'u Arc<UserPolicy>>,
    mesh: &Mesh,
    resources: &[Arc<Resource>],
    found: &mut Vec<Diagnostic>,
) {
    let aliases = mesh.trust_domain_aliases.iter().map(String::as_str);
    let own: Vec<&str> = aliases.chain([mesh.trust_domain.as_str()]).collect();
    lint::check_user(user, resources, &mesh.root_namespace, &own, found);
}

/// What shows when user policies and workloads are looked at together.
pub(crate) fn diagnose_user(user: &[Arc<UserPolicy>], inventory: &Inventory) -> Vec<Diagnostic> {
    if user.is_empty() {
        return Vec::new();
    }
    let workloads: Vec<_> = inventory.workloads().map(|(_, w)| w).collect();
    user::diagnose(user, &workloads)
}

/// True for what keeps a set, or an object of it, from being used.
pub(crate) fn refuses(diagnostic: &Diagnostic, settings: &Settings) -> bool {
    diagnostic.is_error() && !(settings.accept_invalid && bypasses_webhook(diagnostic.code))
}

/// Lowers one AuthorizationPolicy and validates its Cedar, which is refused only by a defect of ours.
pub(crate) fn lowered(
    resource: &Arc<Resource>,
    mesh: &Mesh,
) -> Option<(Arc<Policy>, Vec<Diagnostic>)> {
    let policy = Policy::of(resource, mesh)?;
    let refused = validate(&policy);
    Some((Arc::new(policy), refused))
}

/// True for what Istio's schema or webhook refuses in a policy that can be read all the same; what
/// cannot be read cannot bypass anything.
fn bypasses_webhook(code: &str) -> bool {
    matches!(code.get(..4), Some("PC01" | "PC02" | "PC03")) || ("PC0024".."PC0040").contains(&code)
}

fn proposed_sources(documents: &Documents) -> &[SourceText] {
    documents.candidate.as_deref().unwrap_or_default()
}

/// Reads one file: Cedar by its ending, everything else as manifests.
fn read(source: &SourceText) -> FileResources {
    if !source.file.ends_with(".cedar") {
        return resource::read(source);
    }
    match std::str::from_utf8(&source.bytes) {
        Ok(text) => FileResources {
            resources: vec![Arc::new(Resource::Cedar(CedarFile {
                file: Arc::clone(&source.file),
                text: Arc::from(text),
                namespace: None,
            }))],
            diagnostics: Vec::new(),
        },
        Err(why) => {
            let at = Location {
                file: Arc::clone(&source.file),
                line: 1,
                column: 1,
            };
            let message = format!("the file is not UTF-8 from octet {}", why.valid_up_to());
            FileResources {
                resources: Vec::new(),
                diagnostics: vec![code::NOT_UTF8.at(at, message)],
            }
        }
    }
}

/// Compiles `documents` once.
///
/// # Errors
/// Every diagnostic of the set, warnings and notes included, when at least one is an error.
pub fn compile(documents: &Documents, settings: &Settings) -> Result<Snapshot, Vec<Diagnostic>> {
    Compiler::default().compile(documents, settings)
}

/// Emits every rule and validates it strictly. A refusal is a defect of ours, and still refuses the
/// set: a policy that errors would be skipped by Cedar.
fn validate(policy: &Policy) -> Vec<Diagnostic> {
    let mut set = ast::PolicySet::new();
    let mut at = Location::default();
    let mut refused = Vec::new();
    let dialects = [Dialect::Http, Dialect::Tcp, Dialect::Ztunnel];
    for rule in dialects.iter().flat_map(|d| &policy.lowered(*d).rules) {
        at.clone_from(&rule.at);
        if let Err(why) = add(&mut set, rule) {
            refused.push(defect(&why, rule.at.clone()));
        }
    }
    if let Err(errors) = schema::validate(&set) {
        refused.extend(
            errors
                .into_iter()
                .map(|e| defect(&e.to_string(), at.clone())),
        );
    }
    refused
}

fn add(set: &mut ast::PolicySet, rule: &Rule) -> Result<(), String> {
    let policy = emit::policy(rule).map_err(|e| e.to_string())?;
    let policy = ast::Policy::try_from(pst::Policy::Static(policy)).map_err(|e| e.to_string())?;
    set.add(policy).map_err(|e| e.to_string())
}

fn defect(why: &str, at: Location) -> Diagnostic {
    code::INTERNAL
        .at(at, format!("the generated Cedar policy is refused: {why}"))
        .with_hint("this is a defect of Portcullis: please report it with the manifest")
}

/// The resources of `base` without those that have a namesake in `proposed`. User policies have names of
/// their own, [`user::overlay`].
fn overlay(
    base: &[Arc<FileResources>],
    proposed: &[Arc<FileResources>],
) -> Vec<Arc<FileResources>> {
    let replaced: std::collections::HashSet<_> = proposed
        .iter()
        .flat_map(|f| &f.resources)
        .filter_map(|r| identity(r))
        .collect();
    let kept = base.iter().map(|file| {
        let keep = |r: &&Arc<Resource>| !identity(r).is_some_and(|id| replaced.contains(&id));
        if file.resources.iter().all(|r| keep(&r)) {
            return Arc::clone(file);
        }
        Arc::new(FileResources {
            resources: file.resources.iter().filter(keep).cloned().collect(),
            diagnostics: file.diagnostics.clone(),
        })
    });
    kept.collect()
}

/// Kind, namespace and name of what a proposal can replace.
fn identity(resource: &Resource) -> Option<(&'static str, &str, &str)> {
    fn of<'m>(kind: &'static str, meta: &'m Metadata) -> (&'static str, &'m str, &'m str) {
        (kind, &meta.namespace, &meta.name)
    }
    Some(match resource {
        Resource::AuthorizationPolicy(r) => of("AuthorizationPolicy", &r.meta),
        Resource::PeerAuthentication(r) => of("PeerAuthentication", &r.meta),
        Resource::RequestAuthentication(r) => of("RequestAuthentication", &r.meta),
        Resource::MeshConfig(_) => ("MeshConfig", "", ""),
        Resource::Namespace(meta) => of("Namespace", meta),
        Resource::ServiceAccount(meta) => of("ServiceAccount", meta),
        Resource::Workload(w) => (w.kind.as_str(), &w.namespace, &w.name),
        Resource::Service(r) => of("Service", &r.meta),
        Resource::EndpointSlice(r) => of("EndpointSlice", &r.meta),
        Resource::ServiceEntry(r) => of("ServiceEntry", &r.meta),
        Resource::Gateway(r) => of("Gateway", &r.meta),
        Resource::GatewayClass(r) => of("GatewayClass", &r.meta),
        Resource::IstioGateway(r) => of("networking.istio.io/Gateway", &r.meta),
        Resource::Cedar(file) => ("Cedar", "", &file.file),
        Resource::CedarPolicy(r) => of("CedarPolicy", &r.meta),
        Resource::PolicyTest(r) => of("PolicyTest", &r.meta),
    })
}

/// Equal documents and settings, equal revision; 16 hexadecimal digits.
fn revision(base: &[SourceText], proposed: Option<&[SourceText]>, settings: &Settings) -> String {
    let mut hasher = DefaultHasher::new();
    for sources in [Some(base), proposed] {
        for source in sources.unwrap_or_default() {
            source.file.hash(&mut hasher);
            source.bytes.hash(&mut hasher);
        }
        0xffu8.hash(&mut hasher);
    }
    format!("{settings:?}").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
