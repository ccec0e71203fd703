//! Envoy's secret discovery service, on the workload socket.
//!
//! ```text
//! names -> what is wanted -> attestation -> Identities -> secrets -> StreamSecrets, DeltaSecrets, FetchSecrets
//! ```
//!
//! Beside `authz-ext`, this is the only room that knows Envoy.

mod conversation;
mod delta;
mod name;
mod secret;
mod state_of_the_world;

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::identities::IssueError;
use crate::proto::sds::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use crate::proto::sds::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use crate::wire::status;
use crate::workload_api::Workloads;

pub use name::SecretNames;

use conversation::open;
use delta::Delta;
use state_of_the_world::StateOfTheWorld;

/// The service.
#[derive(Clone)]
pub(crate) struct SecretDiscovery {
    workloads: Workloads,
    names: SecretNames,
}

impl SecretDiscovery {
    pub(crate) fn service(
        workloads: Workloads,
        names: SecretNames,
    ) -> SecretDiscoveryServiceServer<Self> {
        SecretDiscoveryServiceServer::new(Self { workloads, names })
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for SecretDiscovery {
    type StreamSecretsStream = Answers<DiscoveryResponse>;
    type DeltaSecretsStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        open(
            &self.workloads,
            request,
            StateOfTheWorld::new(self.names.clone()),
        )
        .await
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        open(&self.workloads, request, Delta::new(self.names.clone())).await
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let mut dialect = StateOfTheWorld::new(self.names.clone());
        let (_call, caller) = self.workloads.attest(&request).await?;
        let wanted = dialect.first(request.into_inner())?;
        let context = self.workloads.identities.x509_context(&caller).await;
        let context = context.map_err(|error| match error {
            IssueError::NoIdentity => Status::permission_denied("no identity issued"),
            other => status::not_issued(other),
        })?;
        let secrets = wanted.secrets(&context, &self.names)?;
        Ok(Response::new(dialect.response(&secrets)))
    }
}
