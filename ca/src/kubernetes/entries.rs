//! From pods and `ClusterSPIFFEID`s to the entries that there should be: in memory, without a clock or a socket.
//!
//! Everything that an entry depends on is known of its pod alone, so a change of a pod renders that pod, and one of a
//! namespace its pods.

mod stats;

use std::collections::{BTreeMap, HashMap, HashSet};

use ring::digest::{SHA256, digest};
use serde_json::Value;

pub(crate) use self::stats::{Report, Stats};

use self::stats::Written;
use super::cluster_spiffe_id::ClusterSpiffeId;
use crate::entry::Entry;
use crate::registry::validate;
use crate::spiffe_id::SpiffeId;
use crate::template::{Cluster, Facts, Services, Text};
use crate::trust_domain::TrustDomain;
use crate::x509::certificate::hex;

/// Identifiers of the entries that are made here begin so; others are never touched.
pub(crate) const PREFIX: &str = "clusterspiffeid.";

/// What is the same for every pod.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) cluster: Cluster,
    /// Who attests the pods; `None`: this process.
    pub(crate) parent: Option<Text>,
    pub(crate) local_agent: SpiffeId,
    /// The `className` that is ours.
    pub(crate) class: String,
    /// Whether those without `className` are ours, too.
    pub(crate) takes_classless: bool,
    /// Names of namespaces whose pods get nothing; `*` at the end stands for any text.
    pub(crate) ignored: Vec<String>,
}

/// A `ClusterSPIFFEID` with what orders it among others.
#[derive(Debug)]
struct Applied {
    name: String,
    /// Creation and UID: the older one comes first.
    age: (String, String),
    read: Result<ClusterSpiffeId, String>,
    generation: Option<i64>,
    /// The status as the API server has it.
    written: Written,
    /// What it was told last, whatever it made of that.
    told: Option<Report>,
}

#[derive(Debug)]
struct PodState {
    /// As much of the pod as templates can ask for.
    object: Value,
    namespace: String,
    outcomes: Vec<(String, Outcome)>,
    entries: BTreeMap<String, Entry>,
}

/// What a `ClusterSPIFFEID` makes of a pod that it means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Set(String),
    Masked,
    Failed(String),
    /// On no node yet.
    Early,
}

/// What has to be done.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Entries that there should be, whether they are or not.
    pub(crate) wanted: Vec<Entry>,
    /// Identifiers of those that should not be any more.
    pub(crate) unwanted: Vec<String>,
}

/// Everything that entries are made of.
#[derive(Debug)]
pub(crate) struct Entries {
    settings: Settings,
    applied: BTreeMap<String, Applied>,
    namespaces: HashMap<String, Value>,
    nodes: HashMap<String, Value>,
    pods: HashMap<String, PodState>,
    services: Services,
    changed: HashSet<String>,
    /// Entries of pods that are gone.
    orphans: Vec<String>,
    all_changed: bool,
    /// Entries that the registry refused, with why.
    refused: HashMap<String, String>,
    /// Whether the definition has a place for conditions.
    has_conditions: bool,
}

impl Entries {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            applied: BTreeMap::new(),
            namespaces: HashMap::new(),
            nodes: HashMap::new(),
            pods: HashMap::new(),
            services: Services::default(),
            changed: HashSet::new(),
            orphans: Vec::new(),
            all_changed: true,
            refused: HashMap::new(),
            has_conditions: true,
        }
    }

    /// A new or changed `ClusterSPIFFEID`.
    pub(crate) fn put_cluster_spiffe_id(&mut self, object: &Value) {
        let Some(uid) = text(object, &["metadata", "uid"]) else {
            return;
        };
        let class = text(object, &["spec", "className"]).unwrap_or_default();
        let is_ours =
            class == self.settings.class || (class.is_empty() && self.settings.takes_classless);
        if !is_ours {
            self.remove_cluster_spiffe_id(uid);
            return;
        }
        let meta = |key: &str| text(object, &["metadata", key]).unwrap_or_default();
        let read = ClusterSpiffeId::read(object.get("spec").unwrap_or(&Value::Null));
        let written = Written::of(object);
        let generation = object
            .get("metadata")
            .and_then(|meta| meta.get("generation"));
        let generation = generation.and_then(Value::as_i64);
        // Our own words about it change nothing.
        if let Some(known) = self.applied.get_mut(uid)
            && known.read == read
        {
            known.written = written;
            known.generation = generation;
            return;
        }
        if let Err(why) = &read {
            tracing::warn!(cluster_spiffe_id = meta("name"), %why, "not understood: it makes no entries");
        }
        let applied = Applied {
            name: meta("name").to_owned(),
            age: (meta("creationTimestamp").to_owned(), uid.to_owned()),
            read,
            generation,
            written,
            told: None,
        };
        self.applied.insert(uid.to_owned(), applied);
        self.all_changed = true;
    }

    pub(crate) fn remove_cluster_spiffe_id(&mut self, uid: &str) {
        self.all_changed |= self.applied.remove(uid).is_some();
    }

    /// These and no others.
    pub(crate) fn all_cluster_spiffe_ids(&mut self, objects: &[Value]) {
        let there = uids(objects);
        let gone = self
            .applied
            .keys()
            .filter(|uid| !there.contains(uid.as_str()));
        for uid in gone.cloned().collect::<Vec<_>>() {
            self.remove_cluster_spiffe_id(&uid);
        }
        // The definition may be another one by now.
        self.has_conditions = true;
        for object in objects {
            self.put_cluster_spiffe_id(object);
        }
    }

    /// A new or changed namespace.
    pub(crate) fn put_namespace(&mut self, object: Value) {
        let Some(name) = text(&object, &["metadata", "name"]).map(str::to_owned) else {
            return;
        };
        if self.namespaces.get(&name) != Some(&object) {
            self.namespaces.insert(name.clone(), object);
            self.changed_in(&name);
        }
    }

    pub(crate) fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.changed_in(name);
        }
    }

    pub(crate) fn all_namespaces(&mut self, objects: Vec<Value>) {
        self.namespaces = by_name(objects);
        self.all_changed = true;
    }

    fn changed_in(&mut self, namespace: &str) {
        let pods = self.pods.iter();
        let there = pods.filter(|(_, pod)| pod.namespace == namespace);
        let uids: Vec<String> = there.map(|(uid, _)| uid.clone()).collect();
        self.changed.extend(uids);
    }

    /// A new or changed node.
    pub(crate) fn put_node(&mut self, object: Value) {
        let Some(name) = text(&object, &["metadata", "name"]).map(str::to_owned) else {
            return;
        };
        if self.nodes.get(&name) != Some(&object) {
            let on_it = |pod: &PodState| text(&pod.object, &["spec", "nodeName"]) == Some(&name);
            let pods = self.pods.iter().filter(|(_, pod)| on_it(pod));
            let uids: Vec<String> = pods.map(|(uid, _)| uid.clone()).collect();
            self.changed.extend(uids);
            self.nodes.insert(name, object);
        }
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    pub(crate) fn all_nodes(&mut self, objects: Vec<Value>) {
        self.nodes = by_name(objects);
        self.all_changed = true;
    }

    /// A new or changed pod.
    pub(crate) fn put_pod(&mut self, object: Value) {
        let Some(uid) = text(&object, &["metadata", "uid"]).map(str::to_owned) else {
            return;
        };
        match self.pods.get_mut(&uid) {
            Some(known) if known.object == object => return,
            Some(known) => known.object = object,
            None => {
                let namespace = text(&object, &["metadata", "namespace"]).unwrap_or_default();
                let pod = PodState {
                    namespace: namespace.to_owned(),
                    object,
                    outcomes: Vec::new(),
                    entries: BTreeMap::new(),
                };
                self.pods.insert(uid.clone(), pod);
            }
        }
        self.changed.insert(uid);
    }

    pub(crate) fn remove_pod(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.orphans.extend(pod.entries.into_keys());
            self.changed.remove(uid);
        }
    }

    pub(crate) fn all_pods(&mut self, objects: Vec<Value>) {
        let there = uids(&objects);
        let gone = self.pods.keys().filter(|uid| !there.contains(uid.as_str()));
        let gone: Vec<String> = gone.cloned().collect();
        for uid in gone {
            self.remove_pod(&uid);
        }
        for object in objects {
            self.put_pod(object);
        }
    }

    /// A new or changed EndpointSlice: its service leads to these pods.
    pub(crate) fn put_slice(&mut self, object: &Value) {
        self.changed.extend(self.services.put(object));
    }

    pub(crate) fn remove_slice(&mut self, uid: &str) {
        self.changed.extend(self.services.remove(uid));
    }

    pub(crate) fn all_slices(&mut self, objects: &[Value]) {
        let there = uids(objects);
        for uid in self.services.others(&there) {
            self.remove_slice(&uid);
        }
        for object in objects {
            self.put_slice(object);
        }
    }

    /// Renders what changed since the last time.
    pub(crate) fn changes(&mut self) -> Changes {
        let mut changed = std::mem::take(&mut self.changed);
        if std::mem::take(&mut self.all_changed) {
            changed.extend(self.pods.keys().cloned());
        }
        let mut changes = Changes {
            wanted: Vec::new(),
            unwanted: std::mem::take(&mut self.orphans),
        };
        let ordered = self.in_order();
        let mut rendered = Vec::with_capacity(changed.len());
        for uid in changed {
            // A slice may be there before its pod.
            if let Some(pod) = self.pods.get(&uid) {
                let (outcomes, entries) = self.render(&uid, pod, &ordered);
                rendered.push((uid, outcomes, entries));
            }
        }
        for (uid, outcomes, entries) in rendered {
            let Some(pod) = self.pods.get_mut(&uid) else {
                continue;
            };
            let before = pod.entries.keys().filter(|id| !entries.contains_key(*id));
            changes.unwanted.extend(before.cloned());
            changes.wanted.extend(entries.values().cloned());
            pod.outcomes = outcomes;
            pod.entries = entries;
        }
        for id in &changes.unwanted {
            self.refused.remove(id);
        }
        changes
    }

    /// Every entry that there should be.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &Entry> {
        self.pods.values().flat_map(|pod| pod.entries.values())
    }

    /// The registry's answer about entries that were wanted.
    pub(crate) fn answered(&mut self, id: &str, refused: Option<String>) {
        match refused {
            None => {
                self.refused.remove(id);
            }
            Some(why) => {
                if self.refused.get(id) != Some(&why) {
                    tracing::warn!(entry = id, %why, "an entry of a ClusterSPIFFEID is refused");
                }
                self.refused.insert(id.to_owned(), why);
            }
        }
    }

    /// Those that are not only for pods without another one come first; then the older.
    fn in_order(&self) -> Vec<(String, ClusterSpiffeId)> {
        let mut all: Vec<_> = self
            .applied
            .iter()
            .filter_map(|(uid, one)| Some((uid, one, one.read.as_ref().ok()?)))
            .collect();
        all.sort_by_key(|(_, one, read)| (read.is_fallback, &one.age));
        all.into_iter()
            .map(|(uid, _, read)| (uid.clone(), read.clone()))
            .collect()
    }

    fn render(
        &self,
        uid: &str,
        pod: &PodState,
        ordered: &[(String, ClusterSpiffeId)],
    ) -> (Vec<(String, Outcome)>, BTreeMap<String, Entry>) {
        let mut outcomes = Vec::new();
        let mut entries = BTreeMap::new();
        if self.is_ignored(&pod.namespace) {
            return (outcomes, entries);
        }
        let namespace = self.namespaces.get(&pod.namespace);
        let node = text(&pod.object, &["spec", "nodeName"]).filter(|name| !name.is_empty());
        let facts = Facts {
            cluster: &self.settings.cluster,
            pod: &pod.object,
            node: node.and_then(|name| self.nodes.get(name)),
        };
        let mut has_other = false;
        for (by, one) in ordered {
            if !one.template.selects(&pod.object, namespace) || (one.is_fallback && has_other) {
                continue;
            }
            let outcome = match (node, self.entry(uid, one, &facts)) {
                (None, _) => Outcome::Early,
                (_, Err(why)) => Outcome::Failed(why),
                (_, Ok(entry)) => {
                    has_other |= !one.is_fallback;
                    let id = entry.id.clone();
                    match entries.contains_key(&id) {
                        true => Outcome::Masked,
                        false => {
                            entries.insert(id.clone(), entry);
                            Outcome::Set(id)
                        }
                    }
                }
            };
            outcomes.push((by.clone(), outcome));
        }
        (outcomes, entries)
    }

    fn entry(&self, uid: &str, one: &ClusterSpiffeId, facts: &Facts<'_>) -> Result<Entry, String> {
        let parent = match &self.settings.parent {
            Some(parent) => parent.render(facts).map_err(|error| error.to_string())?,
            None => self.settings.local_agent.to_string(),
        };
        let services = match one.auto_populates_dns_names {
            true => self
                .services
                .names_of(uid, self.settings.cluster.domain.as_deref()),
            false => Vec::new(),
        };
        let mut entry = one.render(facts, &services, &parent)?;
        validate::entry(&mut entry, &self.settings.trust_domain).map_err(|e| e.to_string())?;
        entry.id = format!("{PREFIX}{uid}.{}", key(&entry));
        validate::id(&entry.id).map_err(|error| error.to_string())?;
        Ok(entry)
    }

    fn is_ignored(&self, namespace: &str) -> bool {
        let mut ignored = self.settings.ignored.iter();
        ignored.any(|name| match name.strip_suffix('*') {
            Some(start) => namespace.starts_with(start),
            None => namespace == name,
        })
    }

    /// How many `ClusterSPIFFEID`s are ours.
    pub(crate) fn len(&self) -> usize {
        self.applied.len()
    }
}

/// What makes two entries the same (SPIRE: identity, parent and selectors), as a short name.
fn key(entry: &Entry) -> String {
    let selectors: Vec<String> = entry.selectors.iter().map(ToString::to_string).collect();
    let text = format!(
        "{} {} {}",
        entry.spiffe_id,
        entry.parent_id,
        Value::from(selectors)
    );
    let digest = digest(&SHA256, text.as_bytes());
    hex(digest.as_ref().get(..16).unwrap_or_default())
}

pub(crate) fn text<'a>(object: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter()
        .try_fold(object, |value, key| value.get(key))?
        .as_str()
}

fn uids(objects: &[Value]) -> HashSet<String> {
    let uids = objects.iter();
    let uids = uids.filter_map(|object| text(object, &["metadata", "uid"]));
    uids.map(str::to_owned).collect()
}

fn by_name(objects: Vec<Value>) -> HashMap<String, Value> {
    let named = objects.into_iter().filter_map(|object| {
        let name = text(&object, &["metadata", "name"])?.to_owned();
        Some((name, object))
    });
    named.collect()
}

#[cfg(test)]
mod tests;
