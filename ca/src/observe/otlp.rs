//! Spans for an OpenTelemetry collector, over gRPC.
//!
//! ```text
//! span -> queue -> task: batches -> collector
//!           \_ full: lost     \_ no collector, or it refuses: lost after a few tries
//! ```

mod message;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use portcullis_wire::collector::Way;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::Code;

use super::trace::Span;

pub use portcullis_wire::collector::{Collector, CollectorError};

/// Spans of one message.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_millis(200);
/// Pauses after failures; then the batch is lost.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// Spans that wait at most.
const SPANS: usize = 4096;

/// The collector, and who tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where it is.
    pub collector: Collector,
    /// `service.name`.
    pub service: String,
}

/// What became of spans.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// The collector took them.
    pub(crate) sent: AtomicU64,
    /// There was no room for them.
    pub(crate) crowded: AtomicU64,
    /// The collector did not take them.
    pub(crate) failed: AtomicU64,
}

/// The way to the task that exports.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Span>,
    fate: Arc<Fate>,
}

impl Queue {
    /// Exports `span`, if there is room for it.
    pub(crate) fn offer(&self, span: Span) {
        if self.sender.try_send(span).is_err() {
            self.fate.crowded.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn fate(&self) -> &Fate {
        &self.fate
    }
}

/// The task that exports.
#[derive(Debug)]
pub(crate) struct Export {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Export {
    /// Exports from now on, on the runtime that it is called on.
    ///
    /// # Errors
    /// [`CollectorError`].
    pub(crate) fn start(
        options: &Options,
        trust_domain: &str,
    ) -> Result<(Queue, Self), CollectorError> {
        let way = Way::open(&options.collector)?;
        let (sender, receiver) = mpsc::channel(SPANS);
        let fate = Arc::new(Fate::default());
        let exporter = Exporter {
            way,
            resource: message::resource(&options.service, trust_domain),
            fate: Arc::clone(&fate),
            told: false,
        };
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(exporter.run(receiver, stopped));
        Ok((Queue { sender, fate }, Self { stop, task }))
    }

    /// Exports what waits, for at most `limit`.
    pub(crate) async fn close(mut self, limit: Duration) {
        self.stop.send_replace(true);
        if tokio::time::timeout(limit, &mut self.task).await.is_err() {
            tracing::warn!("the collector did not take every span before the end");
            self.task.abort();
        }
    }
}

struct Exporter {
    way: Way,
    resource: opentelemetry_proto::tonic::resource::v1::Resource,
    fate: Arc<Fate>,
    /// A failure was told, and no success since.
    told: bool,
}

impl Exporter {
    async fn run(mut self, mut spans: mpsc::Receiver<Span>, mut stop: watch::Receiver<bool>) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                received = spans.recv_many(&mut batch, BATCH) => if received == 0 {
                    return;
                },
                // An error means that the sender is gone, which is a stop, too.
                _ = stop.wait_for(|stop| *stop) => spans.close(),
            }
            if batch.is_empty() {
                continue;
            }
            let is_last = *stop.borrow();
            if !is_last && batch.len() < BATCH {
                let stopped = stop.wait_for(|stop| *stop);
                let _ = tokio::time::timeout(GATHER, stopped).await;
                while batch.len() < BATCH
                    && let Ok(span) = spans.try_recv()
                {
                    batch.push(span);
                }
            }
            self.export(batch, if is_last { &[] } else { &PAUSES })
                .await;
        }
    }

    /// Sends a batch, and tries again after each of `pauses`.
    async fn export(&mut self, batch: Vec<Span>, pauses: &[Duration]) {
        let all = batch.len() as u64;
        let request = message::request(&self.resource, batch);
        let mut pauses = pauses.iter();
        let sent = loop {
            match self.send(request.clone()).await {
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
            Ok(answer) => {
                self.told = false;
                let partial = answer.partial_success;
                let refused = partial.map_or(0, |partial| partial.rejected_spans);
                u64::try_from(refused).unwrap_or_default().min(all)
            }
            Err(status) => {
                if !self.told {
                    let (code, error) = (status.code(), status.message());
                    tracing::warn!(?code, error, "the collector cannot be reached, or refuses");
                }
                self.told = true;
                all
            }
        };
        self.fate.failed.fetch_add(refused, Ordering::Relaxed);
        self.fate.sent.fetch_add(all - refused, Ordering::Relaxed);
    }

    async fn send(
        &mut self,
        message: ExportTraceServiceRequest,
    ) -> Result<ExportTraceServiceResponse, tonic::Status> {
        let request = self.way.request(message).await;
        let mut client = TraceServiceClient::new(self.way.channel());
        if let Some(encoding) = self.way.compression() {
            client = client.send_compressed(encoding);
        }
        Ok(client.export(request).await?.into_inner())
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
