//! What is counted. Label values are words of ours, kinds and codes: never values of a request.

mod table;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_source::{Counters, Source, Status};
use portcullis_wire::metrics::{Definition, Latency, Samples, Values};
use tokio::sync::watch;

pub use self::table::{PREFIX, TABLE};

use crate::enforcement::Level;
use crate::review::Request;
use crate::verdict::{Cause, Verdict};

/// Why a request got no verdict; the API server does then what its failure policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Undecided {
    /// Not the method, the path or the media type.
    NotAReview,
    /// Longer than is read.
    TooLarge,
    /// The set in force is not known yet.
    NotReady,
    /// Too many at once.
    Overloaded,
    /// Not in time.
    Deadline,
    /// A defect of ours.
    Crashed,
}

impl Undecided {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::NotAReview,
        Self::TooLarge,
        Self::NotReady,
        Self::Overloaded,
        Self::Deadline,
        Self::Crashed,
    ];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAReview => "not_a_review",
            Self::TooLarge => "too_large",
            Self::NotReady => "not_ready",
            Self::Overloaded => "overloaded",
            Self::Deadline => "deadline",
            Self::Crashed => "crashed",
        }
    }
}

/// What one decision is counted under.
type Decision = (&'static str, &'static str, bool, Cause);

/// The counters of one server.
#[derive(Debug, Default)]
pub struct Metrics {
    decisions: Mutex<BTreeMap<Decision, u64>>,
    codes: Mutex<BTreeMap<(&'static str, Level), u64>>,
    undecided: [AtomicU64; Undecided::ALL.len()],
    latency: Latency,
    granted: AtomicU64,
    refused: AtomicU64,
    /// Connections that are open now.
    pub connections: AtomicU64,
    /// Connections that were closed because there were too many.
    pub connections_refused: AtomicU64,
    /// TLS handshakes that failed.
    pub handshakes_failed: AtomicU64,
    /// When the certificate in force ends, in seconds since 1970; 0 while there is none.
    pub certificate_ends: AtomicU64,
    /// Certificates that were put in force.
    pub certificates: AtomicU64,
    /// Certificates that were refused, or could not be had.
    pub certificates_failed: AtomicU64,
    /// Changes of the `caBundle` of ours.
    pub bundle_updates: AtomicU64,
    /// Attempts to read or change it that failed.
    pub bundle_failures: AtomicU64,
    /// 1 while a certificate waits until its authority has been in the `caBundle` long enough.
    pub certificate_waits: AtomicU64,
    source: OnceLock<(watch::Receiver<Status>, Arc<Counters>)>,
}

impl Metrics {
    /// Counts a verdict that took `elapsed`.
    pub fn decided(&self, request: &Request, verdict: &Verdict, elapsed: Duration) {
        self.latency.observe(elapsed);
        let kind = match verdict.cause {
            Cause::OtherKind => "other",
            _ => kind(&request.kind),
        };
        let under = (
            kind,
            request.operation.as_str(),
            request.dry_run,
            verdict.cause,
        );
        let mut decisions = self
            .decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *decisions.entry(under).or_default() += 1;
        drop(decisions);
        if !verdict.codes.is_empty() {
            let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
            for (code, level) in &verdict.codes {
                *codes.entry((code, *level)).or_default() += 1;
            }
        }
        match verdict.cause {
            Cause::BreakGlass => count(&self.granted),
            Cause::BreakGlassRefused => count(&self.refused),
            _ => {}
        }
    }

    /// Counts a request that got no verdict.
    pub fn undecided(&self, why: Undecided) {
        if let Some(counter) = self.undecided.get(why as usize) {
            count(counter);
        }
    }

    /// Shows, too, how it goes with `source`.
    pub fn follows(&self, source: &Source) {
        // A second one would be a second set in force.
        let _ = self.source.set((source.status(), source.counters()));
    }

    /// The text for one scrape.
    #[must_use]
    pub fn text(&self) -> String {
        let own = TABLE.iter().map(|one| (one, self.samples(one)));
        let source = self.source.get();
        let of_source = source.map(|(status, counters)| {
            portcullis_source::metrics::samples(&status.borrow(), counters)
        });
        let gathered = own.chain(of_source.into_iter().flatten());
        portcullis_wire::metrics::text(gathered.collect())
    }

    fn samples(&self, one: &Definition) -> Samples {
        let word = |text: &str| text.to_owned();
        let counter = |counter: &AtomicU64| (Values::new(), counter.load(Ordering::Relaxed));
        let gauge = |gauge: &AtomicU64| (Values::new(), gauge.load(Ordering::Relaxed) as f64);
        match one.name {
            "decisions" => {
                let all = self
                    .decisions
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let each = all.iter().map(|((kind, operation, dry_run, cause), n)| {
                    let decision = if cause.allows() { "allow" } else { "deny" };
                    let dry_run = if *dry_run { "true" } else { "false" };
                    let values = [kind, operation, decision, cause.as_str(), dry_run];
                    (values.map(word).into(), *n)
                });
                Samples::Counters(each.collect())
            }
            "findings" => {
                let all = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
                let each = all.iter();
                let each =
                    each.map(|((code, level), n)| (vec![word(code), word(level.as_str())], *n));
                Samples::Counters(each.collect())
            }
            "decision_duration_seconds" => {
                Samples::Latencies(vec![(Values::new(), self.latency.observed())])
            }
            "undecided" => {
                let each = Undecided::ALL.iter().zip(&self.undecided);
                let each =
                    each.map(|(why, n)| (vec![word(why.as_str())], n.load(Ordering::Relaxed)));
                Samples::Counters(each.collect())
            }
            "break_glass" => Samples::Counters(
                [("granted", &self.granted), ("refused", &self.refused)]
                    .map(|(result, n)| (vec![word(result)], n.load(Ordering::Relaxed)))
                    .into(),
            ),
            "connections" => Samples::Gauges(vec![gauge(&self.connections)]),
            "connections_refused" => Samples::Counters(
                [
                    ("limit", &self.connections_refused),
                    ("handshake", &self.handshakes_failed),
                ]
                .map(|(cause, n)| (vec![word(cause)], n.load(Ordering::Relaxed)))
                .into(),
            ),
            "certificate_not_after_timestamp_seconds" => {
                let ends = gauge(&self.certificate_ends);
                Samples::Gauges(if ends.1 > 0.0 { vec![ends] } else { Vec::new() })
            }
            "certificates" => Samples::Counters(
                [
                    ("success", &self.certificates),
                    ("failure", &self.certificates_failed),
                ]
                .map(|(result, n)| (vec![word(result)], n.load(Ordering::Relaxed)))
                .into(),
            ),
            "certificate_waiting" => Samples::Gauges(vec![gauge(&self.certificate_waits)]),
            "ca_bundle_updates" => Samples::Counters(
                [
                    ("success", &self.bundle_updates),
                    ("failure", &self.bundle_failures),
                ]
                .map(|(result, n)| (vec![word(result)], n.load(Ordering::Relaxed)))
                .into(),
            ),
            "build_info" => Samples::Gauges(vec![(vec![word(env!("CARGO_PKG_VERSION"))], 1.0)]),
            _ => Samples::Counters(vec![counter(&AtomicU64::new(0))]),
        }
    }

    /// Notes when the certificate in force ends.
    pub fn certificate_ends(&self, ends: SystemTime) {
        let seconds = ends
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        self.certificate_ends.store(seconds, Ordering::Relaxed);
    }
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A kind that is judged, as a word that lives for ever.
fn kind(name: &str) -> &'static str {
    crate::webhook::KINDS
        .iter()
        .find(|kind| kind.kind == name)
        .map_or("other", |kind| kind.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_table_is_told_and_no_other() {
        let metrics = Metrics::default();
        metrics.certificate_ends(SystemTime::now());
        let text = metrics.text();
        for one in TABLE {
            let name = format!("{}{}", one.prefix, one.name);
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}\n{text}");
        }
        assert_eq!(text.matches("# TYPE ").count(), TABLE.len());
    }
}
