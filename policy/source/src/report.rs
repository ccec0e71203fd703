//! What the author of a policy is told in its status: whether it is accepted, and whether it is enforced.

mod selected;

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_policy::diagnostic::{Diagnostic, Severity, code};
use portcullis_policy::live::{ObjectKey, Outcome, Store};
use portcullis_policy::snapshot::Snapshot;

use self::selected::Selected;
use crate::trim::Written;

/// Longest message: the API server takes 32768 characters.
const MESSAGE: usize = 1024;
/// Diagnostics that one message tells.
pub(crate) const TOLD: usize = 3;

/// The reports on every policy.
pub(crate) type Reports = BTreeMap<ObjectKey, Report>;

/// Reports, and the snapshot in force that they are about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub reports: Arc<Reports>,
    /// `None` before the first.
    pub snapshot: Option<Arc<Snapshot>>,
}

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
    /// `None`: nobody knows.
    pub holds: Option<bool>,
    /// `Accepted`, `Invalid`, `Conflicted`, `TargetNotFound`; `Enforced`, `LastGood`, `Closed`, `DryRun`, `NoWorkloads`,
    /// `Overridden`; `CasesHold`, `CasesFail`, `NotRun`.
    pub reason: &'static str,
    pub message: String,
}

impl Verdict {
    pub(crate) fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: Some(true),
            reason,
            message: message.into(),
        }
    }

    pub(crate) fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: Some(false),
            ..Self::yes(reason, message)
        }
    }

    pub(crate) fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: None,
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
        let effect = match (selected.is_trial(&file), selected.overridden(&file)) {
            (true, _) => Effect::Trial,
            (false, Some(overridden)) if workloads == Some(0) => Effect::Overridden(overridden),
            (false, _) => Effect::Full,
        };
        let enforced = enforced(key, outcome, workloads, effect, &accepted);
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
        Outcome::LastGood { diagnostics }
        | Outcome::Closed { diagnostics }
        | Outcome::LeftOut { diagnostics } => Some(diagnostics),
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

/// What becomes of a policy that is accepted.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Full,
    /// Its verdict is told and not enforced.
    Trial,
    /// On this many workloads, all that it selects, a narrower one is in force.
    Overridden(usize),
}

fn enforced(
    key: &ObjectKey,
    outcome: &Outcome,
    workloads: Option<usize>,
    effect: Effect,
    accepted: &Verdict,
) -> Option<Verdict> {
    // It tests; it decides nothing.
    if key.kind.as_ref() == "PolicyTest" {
        return None;
    }
    let of = |count: usize| match count {
        1 => "1 workload".to_owned(),
        count => format!("{count} workloads"),
    };
    let on = workloads.map_or_else(String::new, |count| format!(" on {}", of(count)));
    Some(match outcome {
        Outcome::LastGood { .. } => Verdict::no(
            "LastGood",
            format!("the last good version stays in force{on} until this one is corrected"),
        ),
        Outcome::Closed { .. } => Verdict::no(
            "Closed",
            "no good version of it was seen: what it selects is denied until it is corrected",
        ),
        Outcome::LeftOut { .. } => Verdict::no(
            "LeftOut",
            "it is on trial or only records: it is left out until it is corrected, and nothing is denied for it",
        ),
        Outcome::Accepted if matches!(effect, Effect::Trial) => Verdict::no(
            "DryRun",
            format!("on trial{on}: its verdict is told and not enforced"),
        ),
        Outcome::Accepted if accepted.reason == "Conflicted" => {
            Verdict::no("Conflicted", "another one is in force in its place")
        }
        Outcome::Accepted => match effect {
            Effect::Overridden(count) => Verdict::no(
                "Overridden",
                format!(
                    "a narrower one is in force on every workload that it selects, {}",
                    of(count)
                ),
            ),
            _ if workloads == Some(0) => Verdict::no("NoWorkloads", "it selects no workload"),
            _ => Verdict::yes("Enforced", format!("in force{on}")),
        },
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
    let mut words = shortened(words);
    if more > 0 {
        words.push_str(&format!("; and {more} more"));
    }
    words
}

/// A message that has room in a status.
pub(crate) fn shortened(words: String) -> String {
    if words.chars().count() <= MESSAGE {
        return words;
    }
    words.chars().take(MESSAGE).chain(['…']).collect()
}
