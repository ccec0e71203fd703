//! What is counted: atomics on the request's way, text when Prometheus asks.
//!
//! Label values are words of ours or names from the configuration and the manifests, never values of
//! a request; the names are bounded, too.

mod scrape;
mod table;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use portcullis_policy::decision::{Decision, DryRun, Reason, Verdict};
use portcullis_wire::metrics::Latency;

pub use self::scrape::Sources;
pub(super) use self::scrape::text;
pub use self::table::{PREFIX, TABLE};

/// Most names of one metric; whatever comes after them is counted as [`OTHER`].
const NAMES: usize = 1000;
/// Stands for the names that are too many.
const OTHER: &str = "(other)";

/// What a CUSTOM provider had to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custom {
    /// The request may pass.
    Allowed,
    /// It may not.
    Denied,
    /// Nothing, and it fails open.
    FailedOpen,
    /// Nothing: denied.
    Unavailable,
}

impl Custom {
    const ALL: [Self; 4] = [
        Self::Allowed,
        Self::Denied,
        Self::FailedOpen,
        Self::Unavailable,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::FailedOpen => "failed_open",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The counters of one server.
#[derive(Debug, Default)]
pub struct Metrics {
    decisions: [AtomicU64; Reason::ALL.len()],
    latency: Latency,
    /// By verdict in force, then verdict on trial.
    dry_run: Pairs,
    /// By policy that told the verdict on trial.
    trials: Named<Pairs>,
    custom: Named<[AtomicU64; Custom::ALL.len()]>,
}

impl Metrics {
    /// Counts a decision that took `elapsed`.
    pub fn decided(&self, decision: &Decision, elapsed: Duration) {
        count(self.decisions.get(decision.reason as usize));
        self.latency.observe(elapsed);
        if let Some(trial) = &decision.dry_run {
            self.tried(decision.decision, trial);
        }
    }

    fn tried(&self, enforced: Verdict, trial: &DryRun) {
        self.dry_run.count(enforced, trial.decision);
        let shadow = [&trial.shadow.allow, &trial.shadow.deny];
        let rules = trial.policies.iter().chain(shadow.into_iter().flatten());
        let mut counted: [&str; 2] = ["", ""];
        for rule in rules {
            // `namespace/name#rule[i]`: the policy is what somebody decides to enforce.
            let policy = rule.split('#').next().unwrap_or(rule);
            if counted.contains(&policy) {
                continue;
            }
            counted.rotate_left(1);
            if let Some(last) = counted.last_mut() {
                *last = policy;
            }
            self.trials
                .with(policy, |pairs| pairs.count(enforced, trial.decision));
        }
    }

    /// Counts the answer of a CUSTOM provider.
    pub fn custom(&self, provider: &str, answer: Custom) {
        self.custom
            .with(provider, |answers| count(answers.get(answer as usize)));
    }
}

fn count(counter: Option<&AtomicU64>) {
    if let Some(counter) = counter {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A counter for each pair of verdicts.
#[derive(Debug, Default)]
struct Pairs([AtomicU64; 4]);

impl Pairs {
    fn at(&self, enforced: Verdict, tried: Verdict) -> Option<&AtomicU64> {
        self.0.get(enforced as usize * 2 + tried as usize)
    }

    fn count(&self, enforced: Verdict, tried: Verdict) {
        count(self.at(enforced, tried));
    }
}

/// Counters by a name from the configuration; the number of names is bounded.
#[derive(Debug, Default)]
struct Named<T>(RwLock<BTreeMap<String, T>>);

impl<T: Default> Named<T> {
    fn with(&self, name: &str, change: impl FnOnce(&T)) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let name = match known.contains_key(name) || known.len() < NAMES {
            true => name,
            false => OTHER,
        };
        if let Some(counters) = known.get(name) {
            return change(counters);
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        change(known.entry(name.to_owned()).or_default());
    }
}

#[cfg(test)]
mod tests;
