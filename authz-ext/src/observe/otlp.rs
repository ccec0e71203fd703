//! Decisions for an OpenTelemetry collector, over gRPC: spans that join the proxy's, and log records.
//!
//! ```text
//! event -> queue -> task: batches -> collector
//!            \_ full: lost     \_ no collector, or it refuses: lost after a few tries
//! ```

mod collector;
mod message;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::event::DecisionEvent;
use super::log::Fate;

pub use self::collector::{ClientFiles, Compression, Header, HeaderValue, NotAHeader, Options};

/// Events of one message.
const BATCH: usize = 512;
/// Rest before an empty queue is looked at again: whoever waits for each event is woken by each, at the
/// cost of the request.
const LOOK: Duration = Duration::from_millis(50);
/// Shortest time between two looks at files of headers.
const ANEW: Duration = Duration::from_secs(1);
/// Pauses after failures; then the batch is lost.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// Spans that wait at most.
const SPANS: usize = 4096;

/// Why there can be no export.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// No address.
    #[error("`{0}` is no address of a collector: write `http://HOST:PORT` or `https://HOST:PORT`")]
    Endpoint(String),
    /// A file of TLS cannot be read.
    #[error("cannot read `{file}` for TLS to the collector: {source}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The value of a header cannot be read.
    #[error("cannot read the header `{name}` for the collector from `{file}`: {source}")]
    Header {
        /// The header.
        name: String,
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A header cannot be sent.
    #[error("{0}; it is for the collector")]
    NotAHeader(#[from] NotAHeader),
    /// TLS cannot be set up.
    #[error("cannot set up TLS to the collector: {0}")]
    Tls(#[from] tonic::transport::Error),
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

/// The same, on its way.
#[derive(Clone, Debug)]
enum Signal {
    Spans(TraceServiceClient<Channel>),
    Records(LogsServiceClient<Channel>),
}

impl Signal {
    /// A new way, with the files of TLS as they are now.
    fn connect(kind: Kind, options: &Options) -> Result<Self, OtlpError> {
        let channel = collector::channel(options)?;
        let gzip = CompressionEncoding::Gzip;
        let compressed = options.compression == Compression::Gzip;
        Ok(match kind {
            Kind::Spans => {
                let client = TraceServiceClient::new(channel).accept_compressed(gzip);
                Self::Spans(if compressed {
                    client.send_compressed(gzip)
                } else {
                    client
                })
            }
            Kind::Records => {
                let client = LogsServiceClient::new(channel).accept_compressed(gzip);
                Self::Records(if compressed {
                    client.send_compressed(gzip)
                } else {
                    client
                })
            }
        })
    }
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
        let signal = Signal::connect(kind, options)?;
        let headers = collector::headers(options)?;
        let (sender, receiver) = mpsc::channel(most);
        let fate = Arc::new(Fate::default());
        let exporter = Exporter {
            kind,
            signal,
            headers,
            looked: Instant::now(),
            options: options.clone(),
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
    signal: Signal,
    headers: MetadataMap,
    /// When the headers were read.
    looked: Instant,
    options: Options,
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
                        self.reconnect();
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

    /// A way with other files of TLS, where those of the last one may be why it failed. While they cannot be
    /// read, the last way is tried again.
    fn reconnect(&mut self) {
        if self.options.ca_file.is_none() && self.options.client.is_none() {
            return;
        }
        match Signal::connect(self.kind, &self.options) {
            Ok(signal) => self.signal = signal,
            Err(error) => tracing::warn!(%error, "TLS to the collector stays as it was"),
        }
    }

    /// The message with its headers. What cannot be read leaves those of the last time.
    async fn with_headers<T>(&mut self, message: T) -> Request<T> {
        let files = |header: &Header| header.is_file();
        if self.looked.elapsed() >= ANEW && self.options.headers.iter().any(files) {
            let options = self.options.clone();
            match tokio::task::spawn_blocking(move || collector::headers(&options)).await {
                Ok(Ok(headers)) => self.headers = headers,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "headers for the collector stay as they were");
                }
                Err(_) => {}
            }
            self.looked = Instant::now();
        }
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        request
    }

    /// Sends one message; how many of its events were refused.
    async fn send(&mut self, events: &[Arc<DecisionEvent>]) -> Result<u64, tonic::Status> {
        let refused = match self.signal.clone() {
            Signal::Spans(mut client) => {
                let message = message::spans(&self.options.service, events);
                let request = self.with_headers(message).await;
                let answer = client.export(request).await?.into_inner();
                answer.partial_success.map(|partial| partial.rejected_spans)
            }
            Signal::Records(mut client) => {
                let message = message::records(&self.options.service, events);
                let request = self.with_headers(message).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_by_name() {
        for endpoint in [
            "",
            "collector",
            "collector:4317",
            "ftp://a:1",
            "http://",
            "http:///x",
        ] {
            let mut exporters = Exporters::default();
            let refused = exporters.spans(&Options::new(endpoint)).unwrap_err();
            let words = refused.to_string();
            assert!(
                words.starts_with(&format!("`{endpoint}` is no address")),
                "{words}"
            );
        }
        for endpoint in [
            "http://127.0.0.1:4317",
            "http://[::1]:1",
            "https://collector:4317",
        ] {
            let mut exporters = Exporters::default();
            assert!(
                exporters.spans(&Options::new(endpoint)).is_ok(),
                "{endpoint}"
            );
        }
    }
}
