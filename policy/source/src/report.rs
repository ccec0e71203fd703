//! What the author of a policy is told in its status: whether it is accepted, and whether it is enforced.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use portcullis_policy::attachment::EnforcementPoint;
use portcullis_policy::diagnostic::{Diagnostic, Severity, code};
use portcullis_policy::live::{ObjectKey, Outcome, Store};
use portcullis_policy::resource::Resource;
use portcullis_policy::snapshot::Snapshot;

use crate::trim::Written;

/// Longest message: the API server takes 32768 characters.
const MESSAGE: usize = 1024;
/// Diagnostics that one message tells.
const TOLD: usize = 3;

/// The reports on every policy.
pub(crate) type Reports = BTreeMap<ObjectKey, Report>;

/// What is to be told of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The writing that it is about.
    pub written: Written,
    pub accepted: Verdict,
    /// `None` of what cannot be enforced.
    pub enforced: Option<Verdict>,
    /// Workloads that it selects; `None` where that is not counted.
    pub workloads: Option<usize>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub holds: bool,
    /// `Accepted`, `Invalid`, `Conflicted`, `TargetNotFound`; `Enforced`, `LastGood`, `Closed`, `DryRun`, `NoWorkloads`.
    pub reason: &'static str,
    pub message: String,
}

impl Verdict {
    fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: true,
            reason,
            message: message.into(),
        }
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: false,
            ..Self::yes(reason, message)
        }
    }
}

/// A report on each policy of `store`, whose `snapshot` is in force.
pub(crate) fn reports(
    store: &Store,
    snapshot: &Snapshot,
    written: impl Fn(&ObjectKey) -> Option<Written>,
) -> Reports {
    let selected = Selected::of(snapshot);
    let mut concerns: BTreeMap<&str, Vec<&Diagnostic>> = BTreeMap::new();
    for diagnostic in snapshot.diagnostics() {
        let of_file = concerns.entry(&diagnostic.location.file).or_default();
        of_file.push(diagnostic);
    }
    let mut made = Reports::new();
    for (key, outcome) in store.outcomes() {
        let Some(written) = written(key) else {
            continue;
        };
        let file = key.file();
        let concerns = concerns.get(file.as_ref()).map_or(&[][..], Vec::as_slice);
        let workloads = selected.count(key, &file);
        let accepted = accepted(outcome, concerns);
        let trial = selected.trials.contains(&file);
        let enforced = enforced(key, outcome, workloads, trial, &accepted);
        made.insert(
            key.clone(),
            Report {
                written,
                accepted,
                enforced,
                workloads,
            },
        );
    }
    made
}

fn accepted(outcome: &Outcome, concerns: &[&Diagnostic]) -> Verdict {
    let refused = match outcome {
        Outcome::Accepted => None,
        Outcome::LastGood { diagnostics } | Outcome::Closed { diagnostics } => Some(diagnostics),
    };
    if let Some(diagnostics) = refused {
        let is_twice = |d: &Diagnostic| {
            [code::DUPLICATE_RESOURCE.id, code::CEDAR_DUPLICATE.id].contains(&d.code)
        };
        let mut errors = diagnostics.iter().filter(|d| d.is_error()).peekable();
        let twice = errors.peek().is_some() && errors.clone().all(is_twice);
        let reason = if twice { "Conflicted" } else { "Invalid" };
        return Verdict::no(reason, told(errors));
    }
    let warnings = concerns
        .iter()
        .copied()
        .filter(|d| d.severity == Severity::Warning);
    for (code, reason) in [
        (code::OLDER_POLICY.id, "Conflicted"),
        (code::TARGET_NOT_FOUND.id, "TargetNotFound"),
    ] {
        let mut found = concerns
            .iter()
            .copied()
            .filter(|d| d.code == code)
            .peekable();
        if found.peek().is_some() {
            return Verdict::no(reason, told(found));
        }
    }
    match warnings.clone().count() {
        0 => Verdict::yes("Accepted", "it is read and valid"),
        _ => Verdict::yes("Accepted", told(warnings)),
    }
}

fn enforced(
    key: &ObjectKey,
    outcome: &Outcome,
    workloads: Option<usize>,
    trial: bool,
    accepted: &Verdict,
) -> Option<Verdict> {
    // It tests; it decides nothing.
    if key.kind.as_ref() == "PolicyTest" {
        return None;
    }
    let on = match workloads {
        Some(1) => " on 1 workload".to_owned(),
        Some(count) => format!(" on {count} workloads"),
        None => String::new(),
    };
    Some(match outcome {
        Outcome::LastGood { .. } => Verdict::no(
            "LastGood",
            format!("the last good version stays in force{on} until this one is corrected"),
        ),
        Outcome::Closed { .. } => Verdict::no(
            "Closed",
            "no good version of it was seen: what it selects is denied until it is corrected",
        ),
        Outcome::Accepted if trial => Verdict::no(
            "DryRun",
            format!("on trial{on}: its verdict is told and not enforced"),
        ),
        Outcome::Accepted if accepted.reason == "Conflicted" => {
            Verdict::no("Conflicted", "another one is in force in its place")
        }
        Outcome::Accepted if workloads == Some(0) => {
            Verdict::no("NoWorkloads", "it selects no workload")
        }
        Outcome::Accepted => Verdict::yes("Enforced", format!("in force{on}")),
    })
}

/// The first few, shortened, with what to do.
fn told<'d>(diagnostics: impl Iterator<Item = &'d Diagnostic>) -> String {
    let mut words = String::new();
    let mut more = 0usize;
    for (number, diagnostic) in diagnostics.enumerate() {
        if number >= TOLD {
            more += 1;
            continue;
        }
        if number > 0 {
            words.push_str("; ");
        }
        words.push_str(diagnostic.code);
        if let Some(field) = &diagnostic.field {
            words.push_str(&format!(" {field}"));
        }
        words.push_str(&format!(": {}", diagnostic.message));
        if let Some(hint) = &diagnostic.hint {
            words.push_str(&format!(" ({hint})"));
        }
    }
    if words.chars().count() > MESSAGE {
        words = words.chars().take(MESSAGE).chain(['…']).collect();
    }
    if more > 0 {
        words.push_str(&format!("; and {more} more"));
    }
    words
}

/// How many workloads each policy selects, by the file that it is known by.
#[derive(Debug, Default)]
struct Selected {
    counts: BTreeMap<Arc<str>, usize>,
    trials: std::collections::BTreeSet<Arc<str>>,
}

impl Selected {
    fn of(snapshot: &Snapshot) -> Self {
        let (set, inventory) = (snapshot.policies(), snapshot.inventory());
        let mut selected = Self::default();
        for policy in set.policies() {
            if let Some(manifest) = policy.manifest() {
                let file = Arc::clone(&manifest.meta.at.file);
                if policy.dry_run() {
                    selected.trials.insert(Arc::clone(&file));
                }
                selected.counts.insert(file, 0);
            }
        }
        for resource in set.request_authentications() {
            selected
                .counts
                .insert(Arc::clone(&resource.meta.at.file), 0);
        }
        for user in set.all_user_policies() {
            let file = Arc::clone(&user.rule.at.file);
            if user.rule.dry_run {
                selected.trials.insert(Arc::clone(&file));
            }
            selected.counts.insert(file, 0);
        }
        for (id, workload) in inventory.workloads() {
            let (target, _) = inventory.auto_target(id);
            let point = EnforcementPoint {
                workload,
                target,
                service: None,
                root_namespace: &snapshot.mesh().root_namespace,
            };
            let policies = set.policies_at(&point);
            let policies = policies.iter().filter_map(|policy| policy.manifest());
            let policies = policies.map(|manifest| &manifest.meta.at.file);
            let tokens = set.tokens_at(&point);
            let tokens = tokens.iter().filter_map(|token| match token.as_ref() {
                Resource::RequestAuthentication(policy) => Some(&policy.meta.at.file),
                _ => None,
            });
            // One document may hold several Cedar policies: the workload counts once.
            let users = set.user_policies_at(&point);
            let mut users: Vec<&Arc<str>> = users.iter().map(|user| &user.rule.at.file).collect();
            users.dedup();
            for file in policies.chain(tokens).chain(users) {
                match selected.counts.entry(Arc::clone(file)) {
                    Entry::Occupied(mut count) => *count.get_mut() += 1,
                    Entry::Vacant(empty) => {
                        empty.insert(1);
                    }
                }
            }
        }
        selected
    }

    fn count(&self, key: &ObjectKey, file: &Arc<str>) -> Option<usize> {
        match key.kind.as_ref() {
            "PolicyTest" | "PeerAuthentication" => None,
            _ => self.counts.get(file).copied().or(Some(0)),
        }
    }
}
