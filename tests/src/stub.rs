//! An ext_authz service that keeps what it was asked: it shows what Envoy really sends, and proves the harness
//! before the engine is in it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use envoy_types::ext_authz::v3::pb::{
    Authorization, AuthorizationServer, CheckRequest, CheckResponse,
};
use envoy_types::pb::google::rpc::Status;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response};

/// One question and the metadata that came with it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The message.
    pub request: CheckRequest,
    /// gRPC metadata.
    pub metadata: MetadataMap,
}

type Log = Arc<Mutex<Vec<Asked>>>;

/// The service, for as long as it is held. It denies what has `deny` in its path or server name.
pub struct Stub {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Log,
    _runtime: Runtime,
}

impl Stub {
    /// Starts on a free port of loopback.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let asked = Log::default();
        let service = AuthorizationServer::new(Answers(asked.clone()));
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
        });
        Ok(Self {
            address,
            asked,
            _runtime: runtime,
        })
    }

    /// Everything asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

struct Answers(Log);

#[tonic::async_trait]
impl Authorization for Answers {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, tonic::Status> {
        let metadata = request.metadata().clone();
        let request = request.into_inner();
        let code = if denied(&request) {
            Code::PermissionDenied
        } else {
            Code::Ok
        };
        let status = Status {
            code: code as i32,
            ..Status::default()
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Asked { request, metadata });
        Ok(Response::new(CheckResponse {
            status: Some(status),
            ..CheckResponse::default()
        }))
    }
}

fn denied(request: &CheckRequest) -> bool {
    let Some(attributes) = &request.attributes else {
        return true;
    };
    let http = attributes
        .request
        .as_ref()
        .and_then(|request| request.http.as_ref());
    let path = http.map_or("", |http| http.path.as_str());
    let sni = attributes
        .tls_session
        .as_ref()
        .map_or("", |session| session.sni.as_str());
    path.contains("deny") || sni.contains("deny")
}
