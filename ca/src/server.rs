//! Everything in one process: the certificate authority, its sockets, and the clock that rotates it.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::{self, AdminServer};
#[cfg(feature = "kubernetes")]
use crate::attest::Attestation;
use crate::ca::{Ca, OpenError, Options};
use crate::clock::SystemClock;
use crate::identities::Identities;
use crate::observe::otlp::{self, CollectorError, Export};
use crate::web::{WebAddress, WebError, WebOptions, WebServer};
use crate::wire::{ServeError, WorkloadServer, WorkloadServerOptions};

/// Longest time between two looks at the clock.
const TICK: Duration = Duration::from_secs(10);
/// Time that the last spans get at the end.
const EXPORT: Duration = Duration::from_secs(2);
/// Refresh hints that a new authority is published for before it signs (SPIFFE Federation §4.1).
const HINTS: u32 = 3;

/// What a server is made from.
#[derive(Clone)]
pub struct ServerOptions {
    /// The certificate authority.
    pub ca: Options,
    /// Where workloads connect.
    pub socket: PathBuf,
    /// What others may fetch.
    pub web: Vec<WebOptions>,
    /// The collector that gets spans; `None` for none.
    pub otlp: Option<otlp::Options>,
    /// The cluster that workloads run in; `None` for none.
    #[cfg(feature = "kubernetes")]
    pub kubernetes: Option<crate::kubernetes::Options>,
}

/// A server that cannot start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The certificate authority.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A socket.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A web listener.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The collector.
    #[error(transparent)]
    Otlp(#[from] CollectorError),
    /// The cluster.
    #[cfg(feature = "kubernetes")]
    #[error("`ca.kubernetes`: {0}")]
    Kubernetes(#[from] portcullis_wire::kube::ConnectError),
}

/// A server: its authorities are ready, its sockets are bound.
pub struct Server {
    ca: Arc<Ca>,
    workloads: WorkloadServer,
    admin: AdminServer,
    web: Vec<WebServer>,
    export: Option<Export>,
    #[cfg(feature = "kubernetes")]
    kubernetes: Option<Arc<crate::kubernetes::Kubernetes>>,
}

impl Server {
    /// Opens the certificate authority and binds the sockets, in this order: whoever can connect can be served.
    ///
    /// # Errors
    /// When the data cannot be trusted, or a socket cannot be had.
    pub async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        let admin_socket = admin::socket_in(&options.ca.data);
        let mut ca = options.ca;
        if options.web.iter().any(|web| web.content.is_polled()) {
            // Whoever polls has a new authority before it signs (SPIFFE Federation §4.1).
            ca.propagation = ca.propagation.max(ca.refresh_hint * HINTS);
        }
        let ca = Arc::new(Ca::open(ca, Arc::new(SystemClock)).await?);
        let export = match &options.otlp {
            Some(otlp) => Some(ca.observer().export(otlp, ca.trust_domain().as_str())?),
            None => None,
        };
        let admin = AdminServer::bind(&admin_socket).await?;
        let mut workloads = WorkloadServerOptions::new(options.socket);
        workloads.observer = ca.observer().clone();
        #[cfg(feature = "kubernetes")]
        let kubernetes = match options.kubernetes {
            None => None,
            Some(cluster) => {
                let (cluster, attestor) = crate::kubernetes::Kubernetes::connect(cluster).await?;
                ca.observer().tell_of(Arc::clone(&cluster) as _);
                workloads.attestation = Attestation::with(attestor);
                Some(cluster)
            }
        };
        let workloads = WorkloadServer::bind(workloads).await?;
        let mut web = Vec::with_capacity(options.web.len());
        for options in options.web {
            web.push(WebServer::bind(&ca, options).await?);
        }
        Ok(Self {
            ca,
            workloads,
            admin,
            web,
            export,
            #[cfg(feature = "kubernetes")]
            kubernetes,
        })
    }

    /// The certificate authority.
    #[must_use]
    pub fn ca(&self) -> &Arc<Ca> {
        &self.ca
    }

    /// Where workloads connect.
    #[must_use]
    pub fn socket(&self) -> &std::path::Path {
        self.workloads.path()
    }

    /// Where others fetch what they may: with the ports that the listeners got.
    pub fn web(&self) -> impl Iterator<Item = &WebAddress> {
        self.web.iter().map(WebServer::address)
    }

    /// Serves until `shutdown`, or until a socket ends by itself.
    ///
    /// # Errors
    /// When a socket ended by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let (stopping, stop) = watch::channel(false);
        let stopped = || {
            let mut stop = stop.clone();
            async move {
                // An error means that the sender is gone, which is a stop, too.
                let _ = stop.wait_for(|stop| *stop).await;
            }
        };
        let identities: Arc<dyn Identities> = Arc::clone(&self.ca) as _;
        let workloads = self.workloads.run(identities, stopped());
        let admin = self.admin.run(Arc::clone(&self.ca), stopped());
        let rotation = tokio::spawn(rotate(Arc::clone(&self.ca), stop.clone()));
        let federation = tokio::spawn(federate(Arc::clone(&self.ca), stop.clone()));
        #[cfg(feature = "kubernetes")]
        let cluster = tokio::spawn(follow(self.kubernetes, Arc::clone(&self.ca), stop.clone()));
        let mut web = JoinSet::new();
        for server in self.web {
            web.spawn(server.run(Arc::clone(&self.ca), stopped()));
        }
        let web = async {
            while let Some(ended) = web.join_next().await {
                // A panic would be ours, and is passed on.
                ended.map_err(|error| ServeError::Panicked(error.to_string()))??;
            }
            Ok::<_, ServerError>(())
        };
        let all = async {
            let sockets = async { tokio::try_join!(workloads, admin).map_err(ServerError::from) };
            tokio::try_join!(sockets, web)
        };
        tokio::pin!(all, shutdown);
        let ended = tokio::select! {
            ended = &mut all => ended,
            () = &mut shutdown => {
                tracing::info!("stopping: open calls get some seconds");
                stopping.send_replace(true);
                all.await
            }
        };
        stopping.send_replace(true);
        // A rotation that is under way is finished: its key is on disk, its record is not.
        let _ = rotation.await;
        let _ = federation.await;
        #[cfg(feature = "kubernetes")]
        let _ = cluster.await;
        if let Some(export) = self.export {
            export.close(EXPORT).await;
        }
        ended?;
        Ok(())
    }
}

/// Fetches the bundles of others until told to stop; what is under way then is left.
async fn federate(ca: Arc<Ca>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = ca.refresher().run(&ca) => {}
    }
}

/// Follows the cluster until told to stop.
#[cfg(feature = "kubernetes")]
async fn follow(
    cluster: Option<Arc<crate::kubernetes::Kubernetes>>,
    ca: Arc<Ca>,
    mut stop: watch::Receiver<bool>,
) {
    let Some(cluster) = cluster else { return };
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = cluster.run(&ca) => {}
    }
}

/// Looks at the clock as often as the shortest life of an authority asks for.
async fn rotate(ca: Arc<Ca>, mut stop: watch::Receiver<bool>) {
    let pause = (ca.options().authority_ttl / 60).clamp(Duration::from_millis(200), TICK);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
        let ticked = ca.tick().await;
        ca.observer().metrics().ticked(&ticked);
        match ticked {
            Ok(done) => {
                for (what, ids) in [
                    ("prepared", done.prepared),
                    ("activated", done.activated),
                    ("pruned", done.pruned),
                ] {
                    for authority in ids {
                        tracing::info!(%authority, "authority {what}");
                    }
                }
            }
            Err(error) => tracing::error!(%error, "the rotation could not be carried on"),
        }
    }
}

#[cfg(test)]
mod tests;
