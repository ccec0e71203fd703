//! What is told of each `ClusterSPIFFEID`: in its status, and to operators.

use std::collections::HashMap;

use super::{Entries, Outcome, text};

/// What SPIRE's controller tells of a `ClusterSPIFFEID`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Stats {
    pub(crate) namespaces_selected: usize,
    pub(crate) namespaces_ignored: usize,
    pub(crate) pods_selected: usize,
    pub(crate) pod_entry_render_failures: usize,
    pub(crate) entries_masked: usize,
    pub(crate) entries_to_set: usize,
    pub(crate) entry_failures: usize,
}

impl Entries {
    /// Name and statistics of each `ClusterSPIFFEID`, and whether the API server has others.
    pub(crate) fn stats(&self) -> Vec<(String, Stats, bool)> {
        let mut all: HashMap<&str, Stats> = HashMap::new();
        for (uid, one) in &self.applied {
            let stats = all.entry(uid).or_default();
            let Ok(read) = &one.read else { continue };
            for (name, namespace) in &self.namespaces {
                if read.template.namespaces.matches(namespace) {
                    stats.namespaces_selected += 1;
                    stats.namespaces_ignored += usize::from(self.is_ignored(name));
                }
            }
        }
        for (by, outcome) in self.pods.values().flat_map(|pod| &pod.outcomes) {
            let Some(stats) = all.get_mut(by.as_str()) else {
                continue;
            };
            stats.pods_selected += 1;
            match outcome {
                Outcome::Set(id) => {
                    stats.entries_to_set += 1;
                    stats.entry_failures += usize::from(self.refused.contains_key(id));
                }
                Outcome::Masked => stats.entries_masked += 1,
                Outcome::Failed(_) => stats.pod_entry_render_failures += 1,
                Outcome::Early => {}
            }
        }
        let each = self.applied.iter().map(|(uid, one)| {
            let stats = all.get(uid.as_str()).copied().unwrap_or_default();
            let differs = one.stats != Some(stats) && one.told != Some(stats);
            (one.name.clone(), stats, differs)
        });
        each.collect()
    }

    /// The API server was told. Others who write the status, or a definition that has none, are not fought.
    pub(crate) fn told(&mut self, name: &str, stats: Stats) {
        let mut all = self.applied.values_mut();
        if let Some(one) = all.find(|one| one.name == name) {
            one.told = Some(stats);
        }
    }

    /// Has everything told once more that the API server does not have.
    pub(crate) fn tell_again(&mut self) {
        for one in self.applied.values_mut() {
            one.told = None;
        }
    }

    /// What an operator has to know, at most a few of each kind.
    pub(crate) fn troubles(&self) -> Vec<String> {
        const FEW: usize = 3;
        let unread = self.applied.values().filter_map(|one| {
            let why = one.read.as_ref().err()?;
            Some(format!(
                "the ClusterSPIFFEID `{}` makes no entries: {why}",
                one.name
            ))
        });
        let failed = self.pods.values().flat_map(|pod| {
            let name = text(&pod.object, &["metadata", "name"]).unwrap_or_default();
            pod.outcomes.iter().filter_map(move |(by, outcome)| {
                let Outcome::Failed(why) = outcome else {
                    return None;
                };
                let by = self.applied.get(by).map_or("", |one| one.name.as_str());
                let namespace = &pod.namespace;
                Some(format!(
                    "the ClusterSPIFFEID `{by}` makes no entry of the pod `{namespace}/{name}`: {why}"
                ))
            })
        });
        let refused = self
            .refused
            .iter()
            .map(|(id, why)| format!("the entry `{id}` of a ClusterSPIFFEID is refused: {why}"));
        let mut troubles: Vec<String> = unread.take(FEW).collect();
        troubles.extend(failed.take(FEW));
        troubles.extend(refused.take(FEW));
        troubles
    }
}
