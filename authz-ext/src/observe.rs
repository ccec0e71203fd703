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
pub mod otlp;
pub mod sample;
pub mod trace_context;

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
use self::log::{Fate, Log, Output};
use self::metrics::{Metrics, Sources};
use self::otlp::{Exporters, OtlpError, Queue};
use self::trace_context::TraceContext;
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
    /// The OpenTelemetry collector; `None` for none.
    pub otlp: Option<otlp::Options>,
}

/// Why decisions cannot be told as configured.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The decision log.
    #[error("cannot open the decision log: {0}")]
    Log(io::Error),
    /// The collector.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
}

/// The decision log, whatever it is made of.
#[derive(Debug)]
enum Logged {
    Lines(Log),
    Records(Queue),
}

impl Logged {
    fn has_room(&self) -> bool {
        match self {
            Self::Lines(log) => log.has_room(),
            Self::Records(queue) => queue.has_room(),
        }
    }

    fn offer(&self, event: &Arc<DecisionEvent>) {
        match self {
            Self::Lines(log) => log.offer(event),
            Self::Records(queue) => queue.offer(event),
        }
    }

    fn fate(&self) -> &Fate {
        match self {
            Self::Lines(log) => log.fate(),
            Self::Records(queue) => queue.fate(),
        }
    }
}

/// Hears of every decision. Clones are the same observer.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    fields: fields::Options,
    log: Option<(log::Options, Logged)>,
    spans: Option<Queue>,
    metrics: Metrics,
    followers: Followers,
    sources: OnceLock<Sources>,
}

/// What is still to be told when a server stops.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    log: Option<log::Closing>,
    exporters: Exporters,
}

impl Untold {
    /// Writes it, for at most `limit`.
    pub(crate) async fn close(self, limit: Duration) {
        let log = async {
            if let Some(log) = self.log {
                log.close(limit).await;
            }
        };
        tokio::join!(log, self.exporters.close(limit));
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
    /// An observer that tells as `options` say, on the runtime that it is called on.
    ///
    /// # Errors
    /// [`ObserveError`].
    pub(crate) fn start(options: &Options) -> Result<(Self, Untold), ObserveError> {
        let mut untold = Untold::default();
        let mut inner = Inner {
            fields: options.fields.clone(),
            ..Inner::default()
        };
        if let Some(wanted) = &options.log {
            let logged = if wanted.output == Output::Otlp {
                let collector = options.otlp.as_ref().ok_or(OtlpError::NoCollector)?;
                Logged::Records(untold.exporters.records(collector, wanted.queue)?)
            } else {
                let started = Log::start(&wanted.output, wanted.queue);
                let (log, closing) = started.map_err(ObserveError::Log)?;
                untold.log = Some(closing);
                Logged::Lines(log)
            };
            inner.log = Some((wanted.clone(), logged));
        }
        if let Some(collector) = options.otlp.as_ref().filter(|otlp| otlp.traces) {
            inner.spans = Some(untold.exporters.spans(collector)?);
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
        // Looked for only where it may be needed: most requests belong to no recorded trace.
        let spans = inner.spans.as_ref();
        let mut trace = spans.and_then(|_| TraceContext::of(&decided));
        let recorded = trace.as_ref().is_some_and(|trace| trace.sampled);
        let spans = spans.filter(|spans| recorded && spans.has_room());
        if !followed && log.is_none() && spans.is_none() {
            return;
        }
        // Telling must never cost the verdict.
        let told = catch_unwind(AssertUnwindSafe(|| {
            if inner.spans.is_none() {
                trace = TraceContext::of(&decided);
            }
            let event = DecisionEvent::of(&decided, trace, elapsed, &inner.fields);
            let event = Arc::new(event);
            if let Some(spans) = spans {
                spans.offer(&event);
            }
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
        let mut told = (0, 0);
        let mut look = tokio::time::interval(LOSSES);
        loop {
            look.tick().await;
            let log = self.inner.log.as_ref();
            let log = log.map_or(0, |(_, log)| log.fate().lost());
            let spans = self.inner.spans.as_ref();
            let spans = spans.map_or(0, |spans| spans.fate().lost());
            if log > told.0 {
                let lost = log - told.0;
                tracing::warn!(lost, "decisions are missing in the decision log");
            }
            if spans > told.1 {
                tracing::warn!(lost = spans - told.1, "spans were not sent");
            }
            told = (log, spans);
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
