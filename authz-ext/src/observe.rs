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
pub mod fields;
pub mod follow;
pub mod log;
pub mod metrics;
pub mod sample;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use portcullis_policy::decision::{Decision, Verdict};
use portcullis_policy::request::Request;
use portcullis_policy::snapshot::Snapshot;
use tonic::codegen::http::HeaderMap;

use self::event::DecisionEvent;
use self::follow::{Filter, Follow, Followers, Subject, TooManyFollowers};
use self::log::Log;
use self::metrics::{Metrics, Sources};
use crate::endpoint::Endpoint;

/// Time between two warnings of losses.
const LOSSES: Duration = Duration::from_secs(10);

/// What is told of decisions, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where operators and their tools ask; `None`: nowhere.
    pub management: Option<Endpoint>,
    /// What of a request is told, to whomever.
    pub fields: fields::Options,
    /// The decision log; `None` for none.
    pub log: Option<log::Options>,
}

/// Hears of every decision. Clones are the same observer.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    fields: fields::Options,
    log: Option<(log::Options, Log)>,
    metrics: Metrics,
    followers: Followers,
    sources: OnceLock<Sources>,
}

/// What is still to be told when a server stops.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    log: Option<log::Closing>,
}

impl Untold {
    /// Writes it, for at most `limit`.
    pub(crate) async fn close(self, limit: Duration) {
        if let Some(log) = self.log {
            log.close(limit).await;
        }
    }
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
    /// An observer that tells as `options` say.
    ///
    /// # Errors
    /// When the decision log cannot be opened.
    pub(crate) fn start(options: &Options) -> io::Result<(Self, Untold)> {
        let mut untold = Untold::default();
        let mut inner = Inner {
            fields: options.fields.clone(),
            ..Inner::default()
        };
        if let Some(wanted) = &options.log {
            let (log, closing) = Log::start(&wanted.output, wanted.queue)?;
            inner.log = Some((wanted.clone(), log));
            untold.log = Some(closing);
        }
        let inner = Arc::new(inner);
        Ok((Self { inner }, untold))
    }

    /// Counts a decision and tells those who want to know.
    pub fn decided(&self, decided: Decided<'_>) {
        let elapsed = decided.started.elapsed();
        let inner = &*self.inner;
        inner.metrics.decided(decided.decision, elapsed);
        let denied = decided.decision.decision == Verdict::Deny;
        let followed = inner.followers.wants(denied);
        let log = inner.log.as_ref();
        let log = log.filter(|(options, log)| options.wants(denied) && log.has_room());
        if !followed && log.is_none() {
            return;
        }
        // Telling must never cost the verdict.
        let told = catch_unwind(AssertUnwindSafe(|| {
            let event = Arc::new(DecisionEvent::of(&decided, elapsed, &inner.fields));
            if let Some((_, log)) = log {
                log.offer(&event);
            }
            if followed {
                let subject = match (decided.request, decided.snapshot) {
                    (Some(request), Some(snapshot)) => Some(Subject {
                        snapshot: Arc::clone(snapshot),
                        request,
                    }),
                    _ => None,
                };
                inner.followers.offer(&event, subject);
            }
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

    /// Warns of losses, every now and then, for as long as it runs.
    pub(crate) async fn tell_losses(self) {
        let mut told = 0;
        let mut look = tokio::time::interval(LOSSES);
        loop {
            look.tick().await;
            let lost = self
                .inner
                .log
                .as_ref()
                .map_or(0, |(_, log)| log.fate().lost());
            if lost > told {
                tracing::warn!(
                    lost = lost - told,
                    "decisions are missing in the decision log"
                );
                told = lost;
            }
        }
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
