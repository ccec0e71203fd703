//! Decisions for an OpenTelemetry collector, over gRPC: spans that join the proxy's, and log records.
//!
//! ```text
//! event -> queue -> task: batches -> collector
//!            \_ full: lost     \_ no collector, or it refuses: lost after a few tries
//! ```

mod message;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::event::DecisionEvent;
use super::log::Fate;

/// Events of one message.
const BATCH: usize = 512;
/// Rest before an empty queue is looked at again: whoever waits for each event is woken by each, at the
/// cost of the request.
const LOOK: Duration = Duration::from_millis(50);
/// Longest time of one message.
const LIMIT: Duration = Duration::from_secs(10);
/// Pauses after failures; then the batch is lost.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// Spans that wait at most.
const SPANS: usize = 4096;

/// Where the collector is, and what it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoint: String,
    /// Certificate authorities of the collector, PEM; `None`: the platform's.
    pub ca_file: Option<PathBuf>,
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
            endpoint: endpoint.into(),
            ca_file: None,
            traces: true,
            service: "portcullis-authz".to_owned(),
        }
    }
}

/// Why there can be no export.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// No address.
    #[error("`{0}` is no address of a collector: write `http://HOST:PORT` or `https://HOST:PORT`")]
    Endpoint(String),
    /// The certificate authorities cannot be read.
    #[error("cannot read the collector's certificate authorities `{file}`: {source}")]
    Authorities {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS to the collector: {0}")]
    Tls(#[from] tonic::transport::Error),
    /// The decision log is to go where nothing is configured.
    #[error("the decision log goes to `otlp`, and no collector is configured: set `otlp.endpoint`")]
    NoCollector,
}

/// The way to the collector, connected when it is first needed.
///
/// # Errors
/// [`OtlpError`].
fn channel(options: &Options) -> Result<Channel, OtlpError> {
    let wrong = || OtlpError::Endpoint(options.endpoint.clone());
    let endpoint = Endpoint::from_shared(options.endpoint.clone()).map_err(|_| wrong())?;
    let uri = endpoint.uri();
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong()),
    };
    if uri.host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    let mut endpoint = endpoint.connect_timeout(LIMIT).timeout(LIMIT);
    if secure {
        let pem = match &options.ca_file {
            Some(file) => std::fs::read(file).map_err(|source| OtlpError::Authorities {
                file: file.clone(),
                source,
            })?,
            None => platform_authorities(),
        };
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        endpoint = endpoint.tls_config(tls)?;
    }
    Ok(endpoint.connect_lazy())
}

/// The platform's certificate authorities, in PEM.
fn platform_authorities() -> Vec<u8> {
    let mut pem = String::new();
    for certificate in rustls_native_certs::load_native_certs().certs {
        let text = base64::engine::general_purpose::STANDARD.encode(certificate);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem.into_bytes()
}

/// What a collector gets.
#[derive(Clone, Debug)]
enum Signal {
    Spans(TraceServiceClient<Channel>),
    Records(LogsServiceClient<Channel>),
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
        let signal = Signal::Spans(TraceServiceClient::new(channel(options)?));
        Ok(self.start(signal, options, SPANS))
    }

    /// Exports log records from now on; `most` wait.
    pub(super) fn records(&mut self, options: &Options, most: usize) -> Result<Queue, OtlpError> {
        let signal = Signal::Records(LogsServiceClient::new(channel(options)?));
        Ok(self.start(signal, options, most))
    }

    fn start(&mut self, signal: Signal, options: &Options, most: usize) -> Queue {
        let (sender, receiver) = mpsc::channel(most);
        let fate = Arc::new(Fate::default());
        let exporter = Exporter {
            signal,
            service: options.service.clone(),
            fate: Arc::clone(&fate),
            told: false,
        };
        self.tasks
            .spawn(exporter.run(receiver, self.stop.subscribe()));
        Queue { sender, fate }
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
    signal: Signal,
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
                    Some(pause) => tokio::time::sleep(*pause).await,
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
        let refused = match &mut self.signal {
            Signal::Spans(client) => {
                let request = message::spans(&self.service, events);
                let answer = client.export(request).await?.into_inner();
                answer.partial_success.map(|partial| partial.rejected_spans)
            }
            Signal::Records(client) => {
                let request = message::records(&self.service, events);
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
