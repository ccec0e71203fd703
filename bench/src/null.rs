//! Servers that decide nothing: what a server costs whatever it decides.

use std::io::Write as _;

use axum::Router;
use envoy_types::ext_authz::v3::pb::{
    Authorization, AuthorizationServer, CheckRequest, CheckResponse,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Allows everything that it can decode.
#[derive(Debug)]
struct Allows;

#[tonic::async_trait]
impl Authorization for Allows {
    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let status = envoy_types::pb::google::rpc::Status::default();
        Ok(Response::new(CheckResponse {
            status: Some(status),
            ..CheckResponse::default()
        }))
    }
}

/// Binds a free port and says so, in the words that `authz serve` logs.
async fn bind() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?.to_string();
    let line = serde_json::json!({ "message": "listening", "endpoint": address });
    writeln!(std::io::stderr(), "{line}")?;
    Ok(listener)
}

/// Serves gRPC until killed.
pub async fn grpc() -> anyhow::Result<()> {
    let listener = bind().await?;
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .max_concurrent_streams(1024)
        .add_service(AuthorizationServer::new(Allows))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}

/// Serves HTTP/1 until killed.
pub async fn http() -> anyhow::Result<()> {
    let listener = bind().await?;
    let routes = Router::new().fallback(|| async { "" });
    axum::serve(listener, routes).await?;
    Ok(())
}
