//! A small ext_authz client: what a proxy would ask, asked by ourselves.

use std::time::Duration;

use envoy_types::ext_authz::v3::pb::{CheckRequest, CheckResponse};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tonic::Request;
use tonic::transport::Channel;

use crate::endpoint::Endpoint;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot connect to `{endpoint}`: {source}")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// What went wrong.
        source: tonic::transport::Error,
    },
    /// The server answered with a gRPC error.
    #[error("`{endpoint}` did not decide: {status}")]
    Refused {
        /// Where.
        endpoint: Endpoint,
        /// Its words.
        status: Box<tonic::Status>,
    },
}

/// A connection to one listener.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    inner: AuthorizationClient<Channel>,
}

impl Client {
    /// Connects, over TCP or a unix socket.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, ClientError> {
        let channel = channel(endpoint)
            .await
            .map_err(|source| ClientError::Connect {
                endpoint: endpoint.clone(),
                source,
            })?;
        Ok(Self {
            endpoint: endpoint.clone(),
            inner: AuthorizationClient::new(channel),
        })
    }

    /// Asks over a channel that was made elsewhere, which is called `endpoint` in errors.
    #[must_use]
    pub fn over(endpoint: &Endpoint, channel: Channel) -> Self {
        Self {
            endpoint: endpoint.clone(),
            inner: AuthorizationClient::new(channel),
        }
    }

    /// Asks once. `request` may carry gRPC metadata.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn check(
        &mut self,
        request: impl Into<Request<CheckRequest>>,
    ) -> Result<CheckResponse, ClientError> {
        let answer = self.inner.check(request.into()).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| ClientError::Refused {
                endpoint: self.endpoint.clone(),
                status: Box::new(status),
            })
    }
}

/// Connects and asks once.
///
/// # Errors
/// [`ClientError`].
pub async fn check(
    endpoint: &Endpoint,
    request: CheckRequest,
) -> Result<CheckResponse, ClientError> {
    Client::connect(endpoint)
        .await?
        .check(Request::new(request))
        .await
}

/// A gRPC channel to `endpoint`.
///
/// # Errors
/// The transport's own.
pub async fn channel(endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let uri = match endpoint {
        Endpoint::Tcp(address) => format!("http://{address}"),
        Endpoint::Unix(path) => format!("unix:{}", path.display()),
        // Its address is the service manager's to know; as a URI it is an error.
        Endpoint::Activated(_) => endpoint.to_string(),
    };
    tonic::transport::Endpoint::from_shared(uri)?
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .connect()
        .await
}
