//! What is told of each `ClusterSPIFFEID`: in its status, and to operators.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Applied, Entries, Outcome, text};

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

/// What is told of a `ClusterSPIFFEID` in its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Its name.
    pub(crate) name: String,
    /// The generation that was read.
    pub(crate) generation: Option<i64>,
    pub(crate) stats: Stats,
    /// None where the definition has no place for them: SPIRE's own.
    pub(crate) conditions: Vec<Condition>,
}

/// A condition, without the time since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// `Accepted`: it can be followed. `Enforced`: every pod that it means has its entry.
    pub(crate) kind: &'static str,
    pub(crate) holds: bool,
    /// Why, in one word.
    pub(crate) reason: &'static str,
    /// Why, for people.
    pub(crate) message: String,
}

/// The status as the API server has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    stats: Option<Stats>,
    conditions: Vec<Value>,
}

/// Longest message: a spec may be as long as an object.
const MESSAGE: usize = 2048;

impl Condition {
    fn new(kind: &'static str, failed: Option<(&'static str, String)>, well: &str) -> Self {
        let holds = failed.is_none();
        let (reason, mut message) = failed.unwrap_or_else(|| (kind, well.to_owned()));
        if let Some(end) = (0..=MESSAGE)
            .rev()
            .find(|end| message.is_char_boundary(*end))
        {
            message.truncate(end);
        }
        Self {
            kind,
            holds,
            reason,
            message,
        }
    }

    /// `True` or `False`.
    pub(crate) fn status(&self) -> &'static str {
        if self.holds { "True" } else { "False" }
    }

    fn is_there(&self, written: &Written, generation: Option<i64>) -> bool {
        written.conditions.iter().any(|one| {
            text(one, &["type"]) == Some(self.kind)
                && text(one, &["status"]) == Some(self.status())
                && text(one, &["reason"]) == Some(self.reason)
                && text(one, &["message"]) == Some(&self.message)
                && one.get("observedGeneration").and_then(Value::as_i64) == generation
        })
    }
}

impl Report {
    /// `status`, with the times of `before` where a condition is what it was.
    pub(crate) fn status(&self, before: &Written, now: &Value) -> Value {
        let mut status = json!({ "stats": self.stats });
        let conditions = self.conditions.iter().map(|one| {
            let mut was = before.conditions.iter();
            let was = was.find(|was| text(was, &["type"]) == Some(one.kind));
            let same = was.filter(|was| text(was, &["status"]) == Some(one.status()));
            let since = same.and_then(|was| was.get("lastTransitionTime"));
            json!({
                "type": one.kind, "status": one.status(), "reason": one.reason, "message": one.message,
                "observedGeneration": self.generation, "lastTransitionTime": since.unwrap_or(now),
            })
        });
        let conditions: Vec<Value> = conditions.collect();
        if let (false, Some(status)) = (conditions.is_empty(), status.as_object_mut()) {
            status.insert("observedGeneration".to_owned(), json!(self.generation));
            status.insert("conditions".to_owned(), json!(conditions));
        }
        status
    }

    fn is_there(&self, written: &Written) -> bool {
        let is_there = |one: &Condition| one.is_there(written, self.generation);
        written.stats == Some(self.stats) && self.conditions.iter().all(is_there)
    }
}

impl Written {
    pub(super) fn of(object: &Value) -> Self {
        let status = object.get("status");
        let stats = status.and_then(|status| status.get("stats"));
        let conditions = status.and_then(|status| status.get("conditions"));
        Self {
            stats: stats.and_then(|stats| serde_json::from_value(stats.clone()).ok()),
            conditions: conditions
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
        }
    }
}

impl Entries {
    /// Statistics of each `ClusterSPIFFEID`, by UID.
    pub(crate) fn stats(&self) -> HashMap<&str, Stats> {
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
        all
    }

    /// What the status of each should say, with what the API server has, where that is something else.
    pub(crate) fn untold(&self) -> Vec<(Report, Written)> {
        let all = self.stats();
        let failures = self.first_failures();
        let each = self.applied.iter().filter_map(|(uid, one)| {
            let stats = all.get(uid.as_str()).copied().unwrap_or_default();
            let failure = failures.get(uid.as_str());
            let conditions = match self.has_conditions {
                true => conditions(one, stats, failure),
                false => Vec::new(),
            };
            let report = Report {
                name: one.name.clone(),
                generation: one.generation,
                stats,
                conditions,
            };
            let is_told = report.is_there(&one.written) || one.told.as_ref() == Some(&report);
            (!is_told).then(|| (report, one.written.clone()))
        });
        each.collect()
    }

    /// Of each `ClusterSPIFFEID` the failure of the first pod by name, so that it stays the same while nothing changes.
    fn first_failures(&self) -> HashMap<&str, (&str, &str, &str)> {
        let mut first: HashMap<&str, (&str, &str, &str)> = HashMap::new();
        for pod in self.pods.values() {
            let name = text(&pod.object, &["metadata", "name"]).unwrap_or_default();
            for (by, outcome) in &pod.outcomes {
                let why = match outcome {
                    Outcome::Failed(why) => Some(why),
                    Outcome::Set(id) => self.refused.get(id),
                    Outcome::Masked | Outcome::Early => None,
                };
                let Some(why) = why else { continue };
                let this = (pod.namespace.as_str(), name, why.as_str());
                let known = first.entry(by).or_insert(this);
                *known = this.min(*known);
            }
        }
        first
    }

    /// The API server was told. Others who write the status, or a definition that has none, are not fought.
    pub(crate) fn told(&mut self, report: Report) {
        let mut all = self.applied.values_mut();
        if let Some(one) = all.find(|one| one.name == report.name) {
            one.told = Some(report);
        }
    }

    /// The definition has no place for conditions, as SPIRE's own.
    pub(crate) fn has_no_conditions(&mut self) {
        self.has_conditions = false;
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

fn conditions(one: &Applied, stats: Stats, failure: Option<&(&str, &str, &str)>) -> Vec<Condition> {
    let invalid = one.read.as_ref().err();
    let invalid = invalid.map(|why| ("Invalid", format!("it makes no entries: {why}")));
    let is_invalid = invalid.is_some();
    let mut all = vec![Condition::new(
        "Accepted",
        invalid,
        "it says which pods get which identity",
    )];
    if !is_invalid {
        let failed = failure.map(|(namespace, pod, why)| {
            let failed = stats.pod_entry_render_failures + stats.entry_failures;
            let of = stats.pods_selected;
            let message =
                format!("{failed} of {of} pods have no entry: `{namespace}/{pod}`: {why}");
            ("EntriesFailed", message)
        });
        all.push(Condition::new(
            "Enforced",
            failed,
            "every pod that it selects and that has a node has its entry",
        ));
    }
    all
}
