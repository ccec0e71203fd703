//! Entries from `ClusterSPIFFEID`s: what the API server has is followed, and the registry is brought to it.
//!
//! ```text
//! ClusterSPIFFEIDs, pods, namespaces, nodes, slices -> Entries (in memory) -> Registry, in one commit -> status
//! ```
//!
//! Nothing is done before all five are known: a list that is not whole would delete what it lacks. Entries that others
//! made are not looked at; where one of them grants the same already, the registry refuses ours, and the status says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::entries::{Entries, PREFIX, Settings, Stats};
use super::follow::{Event, Following, follow};
use super::object::Sent;
use crate::ca::Ca;
use crate::entry::Entry;
use crate::observe::cluster::EntriesStatus;
use crate::registry::RegistryError;
use crate::registry::reconcile::Reconciled;
use crate::template::{Cluster, Text};

/// Who changes the registry, for the journal.
const ACTOR: &str = "clusterspiffeid";
/// Who writes the status, for the API server.
const MANAGER: &str = "portcullis";
/// Changes within this time are one commit.
const SETTLE: Duration = Duration::from_millis(50);
/// Shortest time between two rounds of statuses.
const STATUS: Duration = Duration::from_secs(1);
/// How often everything is compared: somebody may have changed or deleted an entry of ours.
const AGAIN: Duration = Duration::from_secs(60);
/// Rest after a failure of the registry or of a status.
const REST: Duration = Duration::from_secs(2);
/// Time for one status.
const ANSWER: Duration = Duration::from_secs(10);
/// An annotation that repeats the whole object.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is decided about entries from `ClusterSPIFFEID`s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntriesOptions {
    /// `.ClusterName` of templates.
    pub cluster_name: Option<String>,
    /// `.ClusterDomain` of templates, and of the DNS names of services.
    pub cluster_domain: Option<String>,
    /// The `className` that is ours.
    pub class: String,
    /// Whether those without `className` are ours although we have one.
    pub takes_classless: bool,
    /// Namespaces whose pods get nothing; `*` at the end stands for any text.
    pub ignored_namespaces: Vec<String>,
    /// Who attests the pods, a template; `None`: this process.
    pub parent: Option<Text>,
}

/// Brings the registry to what the API server has.
pub(crate) struct Controller {
    client: Client,
    options: EntriesOptions,
    pub(crate) followed: [Following; 5],
    entries: Mutex<Option<Entries>>,
    changed: Notify,
    changes: Mutex<[u64; 3]>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Controller {
    pub(crate) fn new(client: Client, options: EntriesOptions) -> Self {
        let resources = [
            "clusterspiffeids.spire.spiffe.io",
            "pods",
            "namespaces",
            "nodes",
            "endpointslices.discovery.k8s.io",
        ];
        Self {
            client,
            options,
            followed: resources.map(Following::new),
            entries: Mutex::default(),
            changed: Notify::new(),
            changes: Mutex::default(),
        }
    }

    fn entries(&self) -> MutexGuard<'_, Option<Entries>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Entries) -> T) -> Option<T> {
        self.entries().as_mut().map(act)
    }

    fn change(&self, act: impl FnOnce(&mut Entries)) {
        self.with(act);
        self.changed.notify_one();
    }

    /// How it goes.
    pub(crate) fn status(&self) -> EntriesStatus {
        let of = |entries: &mut Entries| {
            let stats = entries.stats();
            let sum = |one: fn(&Stats) -> usize| stats.values().map(one).sum();
            EntriesStatus {
                cluster_spiffe_ids: entries.len(),
                entries: entries.wanted().count(),
                render_failures: sum(|stats| stats.pod_entry_render_failures),
                entry_failures: sum(|stats| stats.entry_failures),
                changes: *self.changes.lock().unwrap_or_else(PoisonError::into_inner),
                troubles: entries.troubles(),
            }
        };
        self.with(of).unwrap_or_default()
    }

    /// Follows and reconciles; never ends.
    pub(crate) async fn run(&self, ca: &Arc<Ca>) {
        *self.entries() = Some(Entries::new(Settings {
            trust_domain: ca.trust_domain().clone(),
            cluster: Cluster {
                trust_domain: ca.trust_domain().to_string(),
                name: self.options.cluster_name.clone(),
                domain: self.options.cluster_domain.clone(),
            },
            parent: self.options.parent.clone(),
            local_agent: ca.registry().local_agent(),
            class: self.options.class.clone(),
            takes_classless: self.options.takes_classless,
            ignored: self.options.ignored_namespaces.clone(),
        }));
        let [ids, pods, namespaces, nodes, slices] = &self.followed;
        let (_, _, _, _, _, ()) = tokio::join!(
            follow(self.api(&resource()), None, ids, |event| {
                self.cluster_spiffe_id(event);
            }),
            follow(self.api(&core("Pod", "pods")), None, pods, |event| {
                self.change(|entries| match event {
                    Event::All(all) => entries.all_pods(all.into_iter().map(pod).collect()),
                    Event::Put(one) => entries.put_pod(pod(one)),
                    Event::Gone(one) => entries.remove_pod(&one.metadata.uid.unwrap_or_default()),
                });
            }),
            follow(
                self.api(&core("Namespace", "namespaces")),
                None,
                namespaces,
                |event| {
                    self.change(|entries| match event {
                        Event::All(all) => {
                            entries.all_namespaces(all.into_iter().map(named).collect());
                        }
                        Event::Put(one) => entries.put_namespace(named(one)),
                        Event::Gone(one) => {
                            entries.remove_namespace(&one.metadata.name.unwrap_or_default());
                        }
                    });
                }
            ),
            follow(self.api(&core("Node", "nodes")), None, nodes, |event| {
                self.change(|entries| match event {
                    Event::All(all) => entries.all_nodes(all.into_iter().map(node).collect()),
                    Event::Put(one) => entries.put_node(node(one)),
                    Event::Gone(one) => {
                        entries.remove_node(&one.metadata.name.unwrap_or_default());
                    }
                });
            }),
            follow(self.api(&slice_resource()), None, slices, |event| {
                self.change(|entries| match event {
                    Event::All(all) => {
                        let all: Vec<Value> = all.into_iter().map(slice).collect();
                        entries.all_slices(&all);
                    }
                    Event::Put(one) => entries.put_slice(&slice(one)),
                    Event::Gone(one) => {
                        entries.remove_slice(&one.metadata.uid.unwrap_or_default());
                    }
                });
            }),
            self.reconcile(ca),
        );
    }

    fn api(&self, resource: &ApiResource) -> Api<Sent<DynamicObject>> {
        Api::all_with(self.client.clone(), resource)
    }

    fn cluster_spiffe_id(&self, event: Event<DynamicObject>) {
        let json = |one: DynamicObject| serde_json::to_value(one).unwrap_or_default();
        self.change(|entries| match event {
            Event::All(all) => {
                let all: Vec<Value> = all.into_iter().map(json).collect();
                entries.all_cluster_spiffe_ids(&all);
            }
            Event::Put(one) => entries.put_cluster_spiffe_id(&json(one)),
            Event::Gone(one) => {
                entries.remove_cluster_spiffe_id(&one.metadata.uid.unwrap_or_default());
            }
        });
    }

    async fn reconcile(&self, ca: &Arc<Ca>) {
        let mut whole = Instant::now();
        let mut told = Instant::now();
        loop {
            // Each wakes when something came, so nobody has to look.
            if self.followed.iter().all(Following::is_synced) {
                let now = Instant::now();
                let all = whole <= now;
                match self.bring(ca, all).await {
                    Ok(()) if all => {
                        whole = Instant::now() + AGAIN;
                        self.with(Entries::tell_again);
                    }
                    Ok(()) => {}
                    Err(error) => {
                        tracing::error!(%error, "entries of ClusterSPIFFEIDs cannot be stored");
                        // What was rendered is not stored: all of it is compared next time.
                        whole = Instant::now();
                        sleep(REST).await;
                        continue;
                    }
                }
                if told <= Instant::now() {
                    let rest = if self.tell().await { STATUS } else { REST };
                    told = Instant::now() + rest;
                }
            }
            let due = match self.has_to_tell() {
                true => whole.min(told),
                false => whole,
            };
            // A list may be whole without a change.
            let due = due
                .max(Instant::now() + SETTLE)
                .min(Instant::now() + STATUS);
            tokio::select! {
                () = self.changed.notified() => sleep(SETTLE).await,
                () = sleep_until(due) => {}
            }
        }
    }

    /// Brings the registry to what there should be: of everything, or of what changed.
    async fn bring(&self, ca: &Arc<Ca>, all: bool) -> Result<(), RegistryError> {
        let planned = self.with(|entries| {
            let mut changes = entries.changes();
            if all {
                changes.wanted = entries.wanted().cloned().collect();
                let wanted: std::collections::HashSet<&str> = changes
                    .wanted
                    .iter()
                    .map(|entry| entry.id.as_str())
                    .collect();
                let index = ca.registry().index();
                let ours = index.after(PREFIX);
                let ours = ours.take_while(|entry| entry.id.starts_with(PREFIX));
                let unwanted = ours.filter(|entry| !wanted.contains(entry.id.as_str()));
                changes.unwanted = unwanted.map(|entry| entry.id.clone()).collect();
            }
            changes
        });
        let Some(changes) = planned else {
            return Ok(());
        };
        let (remove, put) = {
            let index = ca.registry().index();
            let is_there = |id: &String| index.entry(id).is_some();
            let differs = |entry: &Entry| {
                let there = index.entry(&entry.id);
                there.is_none_or(|there| !is_same(entry, there))
            };
            let remove: Vec<String> = changes.unwanted.into_iter().filter(is_there).collect();
            let put: Vec<Entry> = changes.wanted.into_iter().filter(differs).collect();
            (remove, put)
        };
        if remove.is_empty() && put.is_empty() {
            return Ok(());
        }
        let (removed, ids): (_, Vec<String>) = (
            remove.len(),
            put.iter().map(|entry| entry.id.clone()).collect(),
        );
        // On its own: what was begun is finished, although we may be told to stop meanwhile.
        let authority = Arc::clone(ca);
        let stored =
            tokio::spawn(async move { authority.registry().reconcile(remove, put, ACTOR).await });
        let Ok(results) = stored.await else {
            return Ok(());
        };
        let results = results?;
        let (mut created, mut updated, mut refused) = (0_u64, 0_u64, 0_u64);
        self.with(|entries| {
            for (id, result) in ids.iter().zip(results) {
                match result {
                    Ok(Reconciled::Created) => created += 1,
                    Ok(Reconciled::Updated) => updated += 1,
                    Err(_) => refused += 1,
                }
                entries.answered(id, result.err().map(|error| error.to_string()));
            }
        });
        let deleted = u64::try_from(removed).unwrap_or(u64::MAX);
        tracing::info!(
            created,
            updated,
            deleted,
            refused,
            "entries of ClusterSPIFFEIDs"
        );
        let mut total = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        for (sum, count) in total.iter_mut().zip([created, updated, deleted]) {
            *sum += count;
        }
        Ok(())
    }

    fn has_to_tell(&self) -> bool {
        self.followed.iter().all(Following::is_synced)
            && self
                .with(|entries| !entries.untold().is_empty())
                .unwrap_or(false)
    }

    /// Writes the statuses that changed; false when one could not be.
    async fn tell(&self) -> bool {
        let untold = self.with(|entries| entries.untold()).unwrap_or_default();
        let api = self.api(&resource());
        let mut is_told = true;
        for (report, before) in untold {
            let name = &report.name;
            let object = json!({
                "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID",
                "metadata": {"name": name}, "status": report.status(&before, &now()),
            });
            let params = PatchParams::apply(MANAGER).force();
            let patch = Patch::Apply(object);
            let written = timeout(ANSWER, api.patch_status(name, &params, &patch)).await;
            match written {
                Ok(Ok(_)) => {
                    self.with(|entries| entries.told(report));
                }
                // Deleted in between.
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
                // SPIRE's definition: a status of counts alone.
                Ok(Err(kube::Error::Api(status)))
                    if !report.conditions.is_empty()
                        && status.message.contains("field not declared in schema") =>
                {
                    tracing::info!(
                        "the definition of ClusterSPIFFEIDs has no conditions: their statuses have counts alone"
                    );
                    self.with(Entries::has_no_conditions);
                    return false;
                }
                Ok(Err(error)) => {
                    is_told = false;
                    tracing::warn!(cluster_spiffe_id = name, %error, "its status cannot be written");
                }
                Err(_) => is_told = false,
            }
        }
        is_told
    }
}

/// In whole seconds, as the API server keeps them.
fn now() -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = now.map_or(0, |since| since.as_secs());
    let now = Timestamp::from_second(i64::try_from(seconds).unwrap_or(0));
    json!(now.unwrap_or_default().to_string())
}

/// True when the entry that is there says what it should.
fn is_same(wanted: &Entry, there: &Entry) -> bool {
    let normal = Entry {
        revision_number: there.revision_number,
        created_at: there.created_at,
        ..wanted.clone()
    };
    &normal == there
}

fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("spire.spiffe.io", "v1alpha1", "ClusterSPIFFEID");
    ApiResource::from_gvk_with_plural(&kind, "clusterspiffeids")
}

fn slice_resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("discovery.k8s.io", "v1", "EndpointSlice");
    ApiResource::from_gvk_with_plural(&kind, "endpointslices")
}

fn core(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", kind), plural)
}

/// Metadata that templates and selectors can ask for.
fn metadata(object: &DynamicObject) -> Value {
    let meta = &object.metadata;
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.remove(APPLIED);
    json!({
        "name": meta.name, "namespace": meta.namespace, "uid": meta.uid,
        "generateName": meta.generate_name, "labels": meta.labels, "annotations": annotations,
    })
}

fn pick(object: &DynamicObject, section: &str, names: &[&str]) -> Value {
    let from = object.data.get(section);
    let fields = names.iter().filter_map(|name| {
        let value = from?.get(*name)?.clone();
        Some(((*name).to_owned(), value))
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

/// As much of a pod as there is to ask for: thousands are kept.
fn pod(object: DynamicObject) -> Value {
    let spec = [
        "serviceAccountName",
        "nodeName",
        "hostname",
        "subdomain",
        "schedulerName",
        "priorityClassName",
    ];
    json!({
        "metadata": metadata(&object),
        "spec": pick(&object, "spec", &spec),
        "status": pick(&object, "status", &["phase"]),
    })
}

fn node(object: DynamicObject) -> Value {
    let spec = pick(&object, "spec", &["providerID", "podCIDR"]);
    json!({ "metadata": metadata(&object), "spec": spec })
}

fn named(object: DynamicObject) -> Value {
    json!({ "metadata": metadata(&object) })
}

fn slice(object: DynamicObject) -> Value {
    json!({ "metadata": metadata(&object), "endpoints": object.data.get("endpoints") })
}
