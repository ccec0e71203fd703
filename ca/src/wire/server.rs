//! The workload socket with all its services.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tonic::transport::Server as GrpcServer;

use super::layer::FrontLayer;
use super::session::Limits;
use super::socket::Socket;
use crate::attest::Attestation;
use crate::clock::{Clock, SystemClock};
use crate::identities::Identities;
use crate::observe::Observer;
use crate::observe::trace::TraceLayer;
use crate::proto::FILE_DESCRIPTOR_SET;
use crate::sds::{SecretDiscovery, SecretNames};
use crate::workload_api::{Patience, WorkloadApi, Workloads};

/// Largest header block, bytes: some clients send long metadata with every call.
const MAX_HEADERS: u32 = 64 << 10;
/// Streams of one connection.
const MAX_STREAMS: u32 = 4096;

/// Everything that is decided about the workload socket.
#[derive(Clone, Debug)]
pub struct WorkloadServerOptions {
    /// Where it listens.
    pub socket: PathBuf,
    /// Permissions of the socket. Everybody may connect: who gets what is decided by attestation.
    pub mode: u32,
    /// What callers may hold open.
    pub limits: Limits,
    /// How long which things may take.
    pub patience: Patience,
    /// How callers are attested.
    pub attestation: Attestation,
    /// Names of secrets that are no SPIFFE IDs.
    pub secret_names: SecretNames,
    /// Longest time that open calls get at shutdown.
    pub drain: Duration,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What counts and traces.
    pub observer: Observer,
}

impl WorkloadServerOptions {
    /// Ordinary options; as many connections as this process may open files.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            mode: 0o777,
            limits: Limits::for_open_files(open_files()),
            patience: Patience::default(),
            attestation: Attestation::default(),
            secret_names: SecretNames::default(),
            drain: Duration::from_secs(5),
            clock: Arc::new(SystemClock),
            observer: Observer::default(),
        }
    }
}

/// Why the workload socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It cannot be bound.
    #[error("cannot listen on `{}`: {source}", path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The descriptor set does not serve reflection.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A task of it panicked.
    #[error("a server's task panicked: {0}")]
    Panicked(String),
    /// It ended by itself.
    #[error("the workload socket ended: {0}")]
    Ended(#[from] tonic::transport::Error),
}

/// The bound workload socket; callers can connect, but are answered by [`WorkloadServer::run`] only.
#[derive(Debug)]
pub struct WorkloadServer {
    socket: Socket,
    options: WorkloadServerOptions,
}

impl WorkloadServer {
    /// Binds the socket.
    ///
    /// # Errors
    /// [`ServeError::Bind`].
    pub async fn bind(options: WorkloadServerOptions) -> Result<Self, ServeError> {
        let socket = Socket::bind(&options.socket, options.mode)
            .await
            .map_err(|source| ServeError::Bind {
                path: options.socket.clone(),
                source,
            })?;
        Ok(Self { socket, options })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.socket.path()
    }

    /// Serves `identities` until `shutdown`; then ends streams with UNAVAILABLE and lets calls end within the drain time.
    ///
    /// # Errors
    /// [`ServeError`] when it ends by itself.
    pub async fn run(
        self,
        identities: Arc<dyn Identities>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let options = self.options;
        let (stopping, stop) = watch::channel(false);
        let workloads = Workloads {
            identities,
            attestation: options.attestation,
            clock: options.clock,
            patience: options.patience,
            observer: options.observer.clone(),
            stop: stop.clone(),
        };
        // Both are asked for: grpcurl and others still speak v1alpha first.
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .with_service_name("SpiffeWorkloadAPI")
                .with_service_name("envoy.service.secret.v3.SecretDiscoveryService")
        };
        let router = GrpcServer::builder()
            .layer(TraceLayer(options.observer))
            .layer(FrontLayer)
            // A caller that is frozen must not hold its connection for ever.
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .http2_max_header_list_size(MAX_HEADERS)
            .max_concurrent_streams(MAX_STREAMS)
            .add_service(WorkloadApi::service(workloads.clone()))
            .add_service(SecretDiscovery::service(workloads, options.secret_names))
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        let path = self.socket.path().to_owned();
        tracing::info!(socket = %path.display(), "workloads are served");
        let mut stopped = stop;
        let serving =
            router.serve_with_incoming_shutdown(self.socket.accept(options.limits), async move {
                // An error means that the sender is gone, which is a stop, too.
                let _ = stopped.wait_for(|stop| *stop).await;
            });
        tokio::pin!(serving, shutdown);
        tokio::select! {
            ended = &mut serving => return Ok(ended?),
            () = &mut shutdown => {}
        }
        stopping.send_replace(true);
        match tokio::time::timeout(options.drain, serving).await {
            Ok(ended) => Ok(ended?),
            Err(_) => {
                tracing::warn!("calls still open after the drain time are cut");
                Ok(())
            }
        }
    }
}

/// How many files this process may open, after asking for as many as it may ask for: root more than it was given.
fn open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const MANY: u64 = 1 << 18;
    let now = getrlimit(Resource::Nofile);
    let given = now.maximum.unwrap_or(MANY);
    for most in [given.max(MANY), given] {
        let wanted = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            return most;
        }
    }
    now.current.unwrap_or(MANY)
}
