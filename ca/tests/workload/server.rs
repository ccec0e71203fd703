//! A server on a socket of its own, and clients of it.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use portcullis_ca::proto::sds::secret_discovery_service_client::SecretDiscoveryServiceClient;
use portcullis_ca::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_ca::wire::{WorkloadServer, WorkloadServerOptions};
use portcullis_ca::workload_api::Patience;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::fake::Fake;

pub const PATIENCE: Patience = Patience {
    hold: Duration::from_millis(50),
    stalled: Duration::from_millis(500),
    pause: Duration::from_millis(1),
};

pub struct Server {
    pub fake: Arc<Fake>,
    folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

pub type Client = SpiffeWorkloadApiClient<InterceptedService<Channel, SecurityHeader>>;

#[derive(Clone)]
pub struct SecurityHeader;

impl tonic::service::Interceptor for SecurityHeader {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("workload.spiffe.io", "true".parse().unwrap());
        Ok(request)
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut WorkloadServerOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::new();
        let mut options = WorkloadServerOptions::new(folder.path().join("w.sock"));
        options.patience = PATIENCE;
        change(&mut options);
        let server = WorkloadServer::bind(options).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let identities = Arc::clone(&fake);
        let serving = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or(()) };
            server.run(identities, stopped).await.unwrap();
        });
        Self {
            fake,
            folder,
            stop: Some(stop),
            serving,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("w.sock")
    }

    pub async fn channel(&self) -> Channel {
        let path = self.path();
        Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .unwrap()
    }

    pub async fn client(&self) -> Client {
        SpiffeWorkloadApiClient::with_interceptor(self.channel().await, SecurityHeader)
    }

    pub async fn sds(&self) -> SecretDiscoveryServiceClient<Channel> {
        SecretDiscoveryServiceClient::new(self.channel().await)
    }

    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        soon(&mut self.serving).await.unwrap();
    }
}

/// A channel over a connection that somebody made.
pub async fn channel_over(stream: UnixStream) -> Result<Channel, tonic::transport::Error> {
    let stream = std::sync::Mutex::new(Some(stream));
    Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let stream = stream.lock().unwrap().take();
            async move {
                let stream = stream.ok_or(std::io::ErrorKind::NotConnected)?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        }))
        .await
}

/// What comes within ten seconds.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .expect("nothing came within ten seconds")
}

/// True when nothing comes for a while.
pub async fn nothing<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(150), future)
        .await
        .is_err()
}

/// Waits until something holds.
pub async fn until(mut holds: impl FnMut() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
