//! Spans for an OpenTelemetry collector, over gRPC.
//!
//! ```text
//! span -> queue -> task: batches -> collector
//!           \_ full: lost     \_ no collector, or it refuses: lost after a few tries
//! ```

mod message;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::trace::Span;

/// Spans of one message.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_millis(200);
/// Longest time of one message.
const LIMIT: Duration = Duration::from_secs(10);
/// Pauses after failures; then the batch is lost.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// Spans that wait at most.
const SPANS: usize = 4096;

/// Where the collector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoint: String,
    /// Certificate authorities of the collector, PEM; `None`: the platform's.
    pub ca_file: Option<PathBuf>,
    /// `service.name`.
    pub service: String,
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
    /// [`OtlpError`].
    pub(crate) fn start(options: &Options, trust_domain: &str) -> Result<(Queue, Self), OtlpError> {
        let client = TraceServiceClient::new(channel(options)?);
        let (sender, receiver) = mpsc::channel(SPANS);
        let fate = Arc::new(Fate::default());
        let exporter = Exporter {
            client,
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

/// The way to the collector, connected when it is first needed.
fn channel(options: &Options) -> Result<Channel, OtlpError> {
    let wrong = || OtlpError::Endpoint(options.endpoint.clone());
    let endpoint = Endpoint::from_shared(options.endpoint.clone()).map_err(|_| wrong())?;
    let is_secure = match endpoint.uri().scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong()),
    };
    if endpoint.uri().host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    let mut endpoint = endpoint.connect_timeout(LIMIT).timeout(LIMIT);
    if is_secure {
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

struct Exporter {
    client: TraceServiceClient<Channel>,
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
            match self.client.export(request.clone()).await {
                Err(status) if may_pass(status.code()) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => break Err(status),
                },
                sent => break sent,
            }
        };
        let refused = match sent {
            Ok(answer) => {
                self.told = false;
                let partial = answer.into_inner().partial_success;
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
        let start = |endpoint: &str| {
            let options = Options {
                endpoint: endpoint.to_owned(),
                ca_file: None,
                service: "portcullis-ca".to_owned(),
            };
            Export::start(&options, "example.org")
        };
        for endpoint in ["", "collector:4317", "ftp://a:1", "http:///x"] {
            let words = start(endpoint).unwrap_err().to_string();
            assert!(
                words.starts_with(&format!("`{endpoint}` is no address")),
                "{words}"
            );
        }
        assert!(start("http://127.0.0.1:4317").is_ok());
        assert!(start("https://collector:4317").is_ok());
    }
}
