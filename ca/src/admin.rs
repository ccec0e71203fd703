//! The admin API: SPIRE's server services on a socket that only the operator may use.
//!
//! ```text
//! DIR/admin.sock -> who is it? -> Entry, Bundle, SVID, TrustDomain, LocalAuthority (SPIRE), Status (ours) -> Ca
//! ```

mod bundle;
pub mod client;
pub mod convert;
mod entry;
mod filter;
pub mod local_authority;
mod revocation;
mod status;
mod svid;
mod trust_domain;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tonic::service::Interceptor;
use tonic::transport::Server as GrpcServer;
use tonic::{Request, Status};

use crate::ca::Ca;
use crate::observe::trace::TraceLayer;
use crate::proto::FILE_DESCRIPTOR_SET;
use crate::proto::spire::api::server::bundle::v1::bundle_server::BundleServer;
use crate::proto::spire::api::server::entry::v1::entry_server::EntryServer;
use crate::proto::spire::api::server::localauthority::v1::local_authority_server::LocalAuthorityServer;
use crate::proto::spire::api::server::svid::v1::svid_server::SvidServer;
use crate::proto::spire::api::server::trustdomain::v1::trust_domain_server::TrustDomainServer;
use crate::proto::status::revocation_server::RevocationServer;
use crate::proto::status::status_server::StatusServer;
use crate::wire::{Limits, ServeError, Session, Socket};

/// Name of the socket in the data folder.
pub const SOCKET_NAME: &str = "admin.sock";
/// Largest message, bytes: a batch of 100,000 entries fits.
pub const MAX_MESSAGE: usize = 64 << 20;
/// Most items of one batch.
const MAX_BATCH: usize = 200_000;
/// Time that open calls get at shutdown.
const DRAIN: Duration = Duration::from_secs(5);
/// What the operator may hold open.
const LIMITS: Limits = Limits {
    open_files: 1024,
    open_files_per_user: 1024,
    calls_per_user: 4096,
};

/// Where the admin socket of a data folder is.
#[must_use]
pub fn socket_in(data: &Path) -> PathBuf {
    data.join(SOCKET_NAME)
}

/// Whoever was let in, as the journal names it.
#[derive(Clone, Debug)]
struct Operator(Arc<str>);

/// Lets in root and the user that the server runs as; the socket's mode says the same, and a mode can be changed.
#[derive(Clone, Copy, Debug)]
struct OperatorsOnly;

impl Interceptor for OperatorsOnly {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let session = request.extensions().get::<Arc<Session>>();
        let uid = session.map(|session| session.peer().uid());
        let own = rustix::process::geteuid().as_raw();
        match uid {
            Some(uid) if uid == 0 || uid == own => {
                request
                    .extensions_mut()
                    .insert(Operator(format!("uid:{uid}").into()));
                Ok(request)
            }
            Some(uid) => Err(Status::permission_denied(format!(
                "the admin API is for uid {own} and root, and the caller is uid {uid}"
            ))),
            None => Err(Status::permission_denied(
                "the kernel does not say who the caller is",
            )),
        }
    }
}

/// The services' common ground.
#[derive(Clone)]
struct Admin {
    ca: Arc<Ca>,
}

impl Admin {
    /// Who calls, as the journal names it.
    fn actor<T>(request: &Request<T>) -> Arc<str> {
        let operator = request.extensions().get::<Operator>();
        operator.map_or_else(|| "unknown".into(), |operator| Arc::clone(&operator.0))
    }
}

/// Refuses a batch that nobody needs in one piece.
fn check_batch(items: usize) -> Result<(), Status> {
    match items > MAX_BATCH {
        true => Err(Status::invalid_argument(format!(
            "the batch has {items} items, at most {MAX_BATCH} are taken at once"
        ))),
        false => Ok(()),
    }
}

/// The bound admin socket.
#[derive(Debug)]
pub struct AdminServer {
    socket: Socket,
}

impl AdminServer {
    /// Binds the socket, mode 0600.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub async fn bind(path: &Path) -> Result<Self, ServeError> {
        let socket = Socket::bind(path, 0o600)
            .await
            .map_err(|source| ServeError::Bind {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self { socket })
    }

    /// Serves `ca` until `shutdown`.
    ///
    /// # Errors
    /// When it ends by itself.
    pub async fn run(
        self,
        ca: Arc<Ca>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let traced = TraceLayer(ca.observer().clone());
        let admin = Admin { ca };
        macro_rules! service {
            ($server:ident) => {
                tonic::service::interceptor::InterceptedService::new(
                    $server::new(admin.clone())
                        .max_decoding_message_size(MAX_MESSAGE)
                        .max_encoding_message_size(MAX_MESSAGE),
                    OperatorsOnly,
                )
            };
        }
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let (health, health_service) = tonic_health::server::health_reporter();
        health
            .set_service_status("", tonic_health::ServingStatus::Serving)
            .await;
        let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = GrpcServer::builder()
            .layer(traced)
            // An operator's tool that is frozen must not hold its connection for ever.
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .http2_max_header_list_size(64 << 10)
            .add_service(service!(EntryServer))
            .add_service(service!(BundleServer))
            .add_service(service!(SvidServer))
            .add_service(service!(LocalAuthorityServer))
            .add_service(service!(TrustDomainServer))
            .add_service(service!(StatusServer))
            .add_service(service!(RevocationServer))
            .add_service(health_service)
            .add_service(reflection)
            .serve_with_incoming_shutdown(self.socket.accept(LIMITS), async {
                let _ = stopped.await;
            });
        tokio::pin!(serving, shutdown);
        tokio::select! {
            ended = &mut serving => return Ok(ended?),
            () = &mut shutdown => {}
        }
        let _ = stopping.send(());
        match tokio::time::timeout(DRAIN, serving).await {
            Ok(ended) => Ok(ended?),
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
