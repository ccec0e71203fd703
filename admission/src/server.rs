//! The listener of reviews: TLS, HTTP/1.1 and HTTP/2, bounded, and drained at the end.
//!
//! ```text
//! accept -> TLS -> HTTP -> media type, size -> review -> verdict -> AdmissionReview
//!                            \_ no verdict: an HTTP status, and the failure policy decides
//! ```

mod answer;
mod body;
mod fair;
mod idle;
mod management;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use self::answer::Shared;

use self::idle::Activity;
use crate::decide::Admission;
use crate::in_force::InForce;
use crate::metrics::{Metrics, count};

/// Rest after a failed accept: too many open files goes away by itself.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest head of a request.
const HEAD: usize = 64 << 10;
/// Longest time that requests to the management listener get once everything else has ended.
const MANAGEMENT_DRAIN: Duration = Duration::from_secs(1);

/// What is taken on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest body, in bytes: an object before and after, of 3 MiB each, is the most that an API server sends.
    pub body_bytes: usize,
    /// Most reviews that are read or judged at once.
    pub reviews: usize,
    /// Most open connections.
    pub connections: usize,
    /// Longest time for one review; shorter where the API server says that it waits less.
    pub deadline: Duration,
    /// Longest time for a TLS handshake, for the first request after it, and for the head of a request.
    pub header_timeout: Duration,
    /// Longest time that a connection may stay open without another request.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            reviews: 256,
            connections: 1024,
            deadline: Duration::from_secs(4),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
        }
    }
}

/// How a server listens and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where reviews are taken.
    pub listen: SocketAddr,
    /// Where operators and their tools look: plain HTTP.
    pub management: Option<SocketAddr>,
    /// What is taken on at once.
    pub limits: Limits,
    /// How long the server goes on as before once it has said that it is not ready.
    pub drain_delay: Duration,
    /// Longest time that open requests get after that.
    pub drain: Duration,
}

/// Why the server cannot take requests, for `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing(pub Vec<String>);

/// What readiness depends on, each said by whoever knows; empty texts are fine.
pub trait Readiness: Send + Sync {
    /// What is missing, in words.
    fn missing(&self) -> Missing;

    /// True when the set in force is known: before, nothing is judged.
    fn is_synced(&self) -> bool;
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It cannot be bound.
    #[error("cannot listen on `{address}`: {cause}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the operating system said.
        cause: io::Error,
    },
}

/// The TLS configuration in force; `None` while there is no certificate.
pub type Tls = watch::Receiver<Option<Arc<ServerConfig>>>;

/// A server that is bound and accepts nothing yet.
pub struct Server {
    listener: TcpListener,
    management: Option<TcpListener>,
    options: Options,
    tls: Tls,
    shared: Arc<Shared>,
}

impl Server {
    /// Binds the listeners.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub async fn bind(
        options: Options,
        tls: Tls,
        admission: Admission,
        in_force: Arc<dyn InForce>,
        readiness: Arc<dyn Readiness>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ServeError> {
        let listener = bind(options.listen).await?;
        let management = match options.management {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let shared = Shared::new(admission, in_force, readiness, metrics, options.limits);
        Ok(Self {
            listener,
            management,
            options,
            tls,
            shared: Arc::new(shared),
        })
    }

    /// Where reviews are taken, with the port that it got.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where the management listener is, with the port that it got.
    #[must_use]
    pub fn management(&self) -> Option<SocketAddr> {
        self.management.as_ref()?.local_addr().ok()
    }

    /// Serves until `shutdown`; then says that it is not ready, goes on for a while, accepts nothing more, and lets
    /// open requests end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            listener,
            management,
            options,
            tls,
            shared,
        } = self;
        let stop = watch::Sender::new(false);
        let last = watch::Sender::new(false);
        let managing = management.map(|listener| {
            let serving = management::serve(listener, Arc::clone(&shared), last.subscribe());
            tokio::spawn(serving)
        });
        let accepting = accept(
            listener,
            tls,
            options.clone(),
            Arc::clone(&shared),
            stop.subscribe(),
        );
        let mut accepting = tokio::spawn(accepting);
        tokio::select! {
            () = shutdown => {}
            _ = &mut accepting => {}
        }
        shared.stopping.store(true, Ordering::Relaxed);
        // Endpoints go one by one: whoever still sends requests here gets them answered.
        tokio::time::sleep(options.drain_delay).await;
        stop.send_replace(true);
        let ended = tokio::time::timeout(options.drain, &mut accepting).await;
        if ended.is_err() {
            tracing::warn!(drain = ?options.drain, "open requests are cut off");
            accepting.abort();
        }
        last.send_replace(true);
        if let Some(managing) = managing {
            let _ = tokio::time::timeout(MANAGEMENT_DRAIN, managing).await;
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|cause| ServeError::Bind { address, cause })
}

async fn accept(
    listener: TcpListener,
    tls: Tls,
    options: Options,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(options.limits.connections));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // One too many is closed at once: waiting, it would look like a server that hangs.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            count(&shared.metrics.connections_refused);
            continue;
        };
        let config = tls.borrow().clone();
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        open.spawn(async move {
            let _place = place;
            shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
            connection(stream, config, options.limits, Arc::clone(&shared), stop).await;
            shared.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(
    stream: TcpStream,
    config: Option<Arc<ServerConfig>>,
    limits: Limits,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let Some(config) = config else {
        count(&shared.metrics.handshakes_failed);
        return;
    };
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = match tokio::time::timeout(limits.header_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            count(&shared.metrics.handshakes_failed);
            // An API server that does not know our authority says so here.
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
        Err(_) => {
            count(&shared.metrics.handshakes_failed);
            return;
        }
    };
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(64)
        .max_buf_size(HEAD);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::try_from(limits.reviews).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(20));
    let activity = Activity::new(limits.header_timeout, limits.idle_timeout);
    let service = TowerToHyperService::new(answer::routes(shared, activity.clone()));
    let serving = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        () = activity.ended() => {
            serving.as_mut().graceful_shutdown();
            // Who says nothing does not say goodbye either.
            match tokio::time::timeout(limits.header_timeout, serving).await {
                Ok(ended) => ended,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
