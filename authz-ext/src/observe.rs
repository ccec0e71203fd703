//! What decisions tell others: metrics, and one [`DecisionEvent`] for those who want it.
//!
//! ```text
//! verdict -> metrics (always: a few atomic additions)
//!         -> wanted? -> DecisionEvent -> bounded queues -> followers, decision log, OTLP
//! ```
//!
//! Nothing here delays a verdict: an event is made only if somebody wants this one, every queue is
//! bounded, and what does not fit is counted and left out.

pub mod event;
pub mod follow;
pub mod metrics;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use portcullis_policy::decision::{Decision, Verdict};
use portcullis_policy::request::Request;
use portcullis_policy::snapshot::Snapshot;
use tonic::codegen::http::HeaderMap;

use self::event::DecisionEvent;
use self::follow::{Filter, Follow, Followers, Subject, TooManyFollowers};
use self::metrics::{Metrics, Sources};
use crate::endpoint::Endpoint;

/// What is told of decisions, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where operators and their tools ask; `None`: nowhere.
    pub management: Option<Endpoint>,
}

/// Hears of every decision. Clones are the same observer.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    metrics: Metrics,
    followers: Followers,
    sources: OnceLock<Sources>,
}

/// One decision and what it was about.
#[derive(Debug)]
pub struct Decided<'a> {
    /// The listener's name.
    pub listener: &'a Arc<str>,
    /// Headers of the check itself, not of the request it asks about.
    pub headers: &'a HeaderMap,
    /// The request; `None` where its facts could not be read.
    pub request: Option<Request>,
    /// What decided; `None` before the first.
    pub snapshot: Option<&'a Arc<Snapshot>>,
    /// The answer.
    pub decision: &'a Decision,
    /// Why the facts could not be read.
    pub error: Option<String>,
    /// When the check began.
    pub started: Instant,
}

impl Observer {
    /// Counts a decision and tells those who want to know.
    pub fn decided(&self, decided: Decided<'_>) {
        let elapsed = decided.started.elapsed();
        self.inner.metrics.decided(decided.decision, elapsed);
        let denied = decided.decision.decision == Verdict::Deny;
        let followed = self.inner.followers.wants(denied);
        if !followed {
            return;
        }
        // Telling must never cost the verdict.
        let told = catch_unwind(AssertUnwindSafe(|| {
            let event = Arc::new(DecisionEvent::of(&decided, elapsed));
            let subject = match (decided.request, decided.snapshot) {
                (Some(request), Some(snapshot)) => Some(Subject {
                    snapshot: Arc::clone(snapshot),
                    request,
                }),
                _ => None,
            };
            self.inner.followers.offer(&event, subject);
        }));
        if told.is_err() {
            tracing::error!("a decision was not told: its event could not be made");
        }
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// What `/metrics` shows, in the OpenMetrics text format.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        metrics::text(&self.inner)
    }

    /// Tells where state comes from that is not counted here. Only the first call counts.
    pub fn watch(&self, sources: Sources) {
        let _ = self.inner.sources.set(sources);
    }

    /// Follows decisions from now on.
    ///
    /// # Errors
    /// [`TooManyFollowers`].
    pub fn subscribe(&self, filter: Filter) -> Result<Follow, TooManyFollowers> {
        self.inner.followers.subscribe(filter)
    }
}
