//! Decisions for an OpenTelemetry collector, over gRPC: spans that join the proxy's, and log records.
//!
//! ```text
//! event -> queue -> task: batches -> collector
//!            \_ full: lost     \_ no collector, or it refuses: lost after a few tries
//! ```

mod message;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use portcullis_wire::collector::Way;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::Code;

use super::event::DecisionEvent;
use super::log::Fate;

pub use portcullis_wire::collector::{
    ClientFiles, Collector, CollectorError, Compression, Header, HeaderValue, NotAHeader,
};

/// Events of one message.
const BATCH: usize = 512;
/// Rest before an empty queue is looked at again: whoever waits for each event is woken by each, at the
/// cost of the request.
const LOOK: Duration = Duration::from_millis(50);
/// Pauses after failures; then the batch is lost.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// Spans that wait at most.
const SPANS: usize = 4096;

/// The collector, and what it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where it is.
    pub collector: Collector,
    /// Whether spans are sent, for checks whose proxy records its own.
    pub traces: bool,
    /// `service.name`.
    pub service: String,
}

impl Options {
    /// A collector at `endpoint` that gets spans.
    #[must_use]
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            collector: Collector::new(endpoint),
            traces: true,
            service: "portcullis-authz".to_owned(),
        }
    }
}

/// Why there can be no export.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// It cannot be reached as configured.
    #[error(transparent)]
    Collector(#[from] CollectorError),
    /// The decision log is to go where nothing is configured.
    #[error("the decision log goes to `otlp`, and no collector is configured: set `otlp.endpoint`")]
    NoCollector,
}

/// What a collector gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Spans,
    Records,
}

/// The way into a task that exports.
#[derive(Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<Arc<DecisionEvent>>,
    fate: Arc<Fate>,
}

impl Queue {
    /// Whether there is room for one more; if not, it is lost.
    pub(super) fn has_room(&self) -> bool {
        let room = self.sender.capacity() > 0;
        if !room {
            self.fate.crowded.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    pub(super) fn offer(&self, event: &Arc<DecisionEvent>) {
        if self.sender.try_send(Arc::clone(event)).is_err() {
            self.fate.crowded.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn fate(&self) -> &Fate {
        &self.fate
    }
}

/// The tasks that export.
#[derive(Debug, Default)]
pub(super) struct Exporters {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Exporters {
    /// Exports spans from now on.
    pub(super) fn spans(&mut self, options: &Options) -> Result<Queue, OtlpError> {
        self.start(Kind::Spans, options, SPANS)
    }

    /// Exports log records from now on; `most` wait.
    pub(super) fn records(&mut self, options: &Options, most: usize) -> Result<Queue, OtlpError> {
        self.start(Kind::Records, options, most)
    }

    fn start(&mut self, kind: Kind, options: &Options, most: usize) -> Result<Queue, OtlpError> {
        let way = Way::open(&options.collector)?;
        let (sender, receiver) = mpsc::channel(most);
        let fate = Arc::new(Fate::default());
        let exporter = Exporter {
            kind,
            way,
            service: options.service.clone(),
            fate: Arc::clone(&fate),
            told: false,
        };
        self.tasks
            .spawn(exporter.run(receiver, self.stop.subscribe()));
        Ok(Queue { sender, fate })
    }

    /// Exports what waits, for at most `limit`.
    pub(super) async fn close(mut self, limit: Duration) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!("the collector did not take everything before the end");
        }
        self.tasks.shutdown().await;
    }
}

struct Exporter {
    kind: Kind,
    way: Way,
    service: String,
    fate: Arc<Fate>,
    /// A failure was told, and no success since.
    told: bool,
}

impl Exporter {
    async fn run(
        mut self,
        mut receiver: mpsc::Receiver<Arc<DecisionEvent>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let stopping = *stop.borrow();
            let mut gone = false;
            while batch.len() < BATCH {
                match receiver.try_recv() {
                    Ok(event) => batch.push(event),
                    Err(error) => {
                        gone = error == TryRecvError::Disconnected;
                        break;
                    }
                }
            }
            if batch.is_empty() && (stopping || gone) {
                return;
            }
            let more = batch.len() == BATCH;
            let pauses: &[Duration] = if stopping { &[] } else { &PAUSES };
            self.export(&mut batch, pauses).await;
            if !more && !stopping {
                // What comes next is sent together, too.
                let stopped = stop.wait_for(|stop| *stop);
                let _ = tokio::time::timeout(LOOK, stopped).await;
            }
        }
    }

    /// Exports `batch`, which is empty afterwards; tries again after each of `pauses`.
    async fn export(&mut self, batch: &mut Vec<Arc<DecisionEvent>>, pauses: &[Duration]) {
        if batch.is_empty() {
            return;
        }
        let events = std::mem::take(batch);
        let all = u64::try_from(events.len()).unwrap_or(u64::MAX);
        let mut pauses = pauses.iter();
        let sent = loop {
            match self.send(&events).await {
                Err(status) if may_pass(status.code()) => match pauses.next() {
                    Some(pause) => {
                        tokio::time::sleep(*pause).await;
                        self.way.reopen();
                    }
                    None => break Err(status),
                },
                sent => break sent,
            }
        };
        let refused = match sent {
            Ok(refused) => {
                self.told = false;
                refused.min(all)
            }
            Err(status) => {
                if !self.told {
                    let (code, words) = (status.code(), status.message());
                    tracing::warn!(
                        ?code,
                        error = words,
                        "the collector cannot be reached, or refuses"
                    );
                }
                self.told = true;
                all
            }
        };
        self.fate.failed.fetch_add(refused, Ordering::Relaxed);
        self.fate
            .written
            .fetch_add(all - refused, Ordering::Relaxed);
    }

    /// Sends one message; how many of its events were refused.
    async fn send(&mut self, events: &[Arc<DecisionEvent>]) -> Result<u64, tonic::Status> {
        let (channel, compression) = (self.way.channel(), self.way.compression());
        let refused = match self.kind {
            Kind::Spans => {
                let message = message::spans(&self.service, events);
                let request = self.way.request(message).await;
                let mut client = TraceServiceClient::new(channel);
                if let Some(encoding) = compression {
                    client = client.send_compressed(encoding);
                }
                let answer = client.export(request).await?.into_inner();
                answer.partial_success.map(|partial| partial.rejected_spans)
            }
            Kind::Records => {
                let message = message::records(&self.service, events);
                let request = self.way.request(message).await;
                let mut client = LogsServiceClient::new(channel);
                if let Some(encoding) = compression {
                    client = client.send_compressed(encoding);
                }
                let answer = client.export(request).await?.into_inner();
                let partial = answer.partial_success;
                partial.map(|partial| partial.rejected_log_records)
            }
        };
        Ok(u64::try_from(refused.unwrap_or_default()).unwrap_or_default())
    }
}

/// Failures after which the same message may succeed (OTLP, "Failures").
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
            | Code::Unknown
    )
}
