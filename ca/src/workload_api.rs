//! The SPIFFE Workload API.
//!
//! ```text
//! call -> security header -> limits -> attestation -> Identities -> full state, now and on every change
//! ```

pub mod client;
mod message;
mod renewal;
mod stream;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::attest::{AttestError, Attestation};
use crate::caller::Caller;
use crate::clock::Clock;
use crate::identities::Identities;
use crate::observe::Observer;
use crate::proto::workload::spiffe_workload_api_server::{
    SpiffeWorkloadApi, SpiffeWorkloadApiServer,
};
use crate::proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
    ValidateJwtsvidRequest, ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse,
    WitsvidRequest, WitsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest,
    X509svidResponse,
};
use crate::spiffe_id::SpiffeId;
use crate::wire::{Call, Session, status};

pub(crate) use renewal::Renewal;

use message::{JwtBundles, Question, WitBundles, WitSvids, X509Bundles, X509Svids};

/// Longest message that a workload may send, bytes: a token with room to spare.
pub(crate) const MAX_REQUEST: usize = 256 << 10;
/// How many audiences one call may name.
const MAX_AUDIENCES: usize = 64;

/// What the services on the workload socket share.
#[derive(Clone)]
pub(crate) struct Workloads {
    pub(crate) identities: Arc<dyn Identities>,
    pub(crate) attestation: Attestation,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) patience: Patience,
    pub(crate) observer: Observer,
    /// Turns true when the server is about to end.
    pub(crate) stop: watch::Receiver<bool>,
}

/// How long which things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long a call for which there is no identity waits for one before it is refused: an entry that is created
    /// meanwhile is served at once, however long the client would have waited before it tried again.
    pub hold: Duration,
    /// How long a reader may leave a message untaken before its connection is cut.
    pub stalled: Duration,
    /// Shortest time between two messages on one stream.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(1),
            stalled: Duration::from_secs(10),
            pause: Duration::from_millis(20),
        }
    }
}

impl Workloads {
    /// Counts the call and attests its caller.
    pub(crate) async fn attest<T>(&self, request: &Request<T>) -> Result<(Call, Caller), Status> {
        let call = call(request)?;
        let caller = self.caller(call.session()).await?;
        Ok((call, caller))
    }

    /// Waits until the server is about to end.
    pub(crate) async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // An error means that the server is gone, which is an end, too.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Who the caller is now.
    pub(crate) async fn caller(&self, session: &Session) -> Result<Caller, Status> {
        let caller = self.attested(session).await;
        caller.map_err(|error| status::unattested(&error))
    }

    /// Attests, and counts what comes of it.
    pub(crate) async fn attested(&self, session: &Session) -> Result<Caller, AttestError> {
        let caller = self.attestation.attest(session.peer()).await;
        self.observer.metrics().attested(&caller);
        caller
    }
}

/// Counts a call until what is returned is dropped.
pub(crate) fn call<T>(request: &Request<T>) -> Result<Call, Status> {
    request
        .extensions()
        .get::<Arc<Session>>()
        .ok_or_else(|| Status::internal("the connection is not known"))?
        .call()
}

/// The service.
#[derive(Clone)]
pub(crate) struct WorkloadApi(Workloads);

impl WorkloadApi {
    pub(crate) fn service(workloads: Workloads) -> SpiffeWorkloadApiServer<Self> {
        SpiffeWorkloadApiServer::new(Self(workloads)).max_decoding_message_size(MAX_REQUEST)
    }

    async fn stream<Q: Question>(
        &self,
        request: Request<impl Send>,
        question: Q,
    ) -> Result<Response<Messages<Q::Message>>, Status> {
        stream::open(&self.0, &request, question).await
    }
}

/// The answer of a streaming call.
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Messages<X509svidResponse>;
    type FetchX509BundlesStream = Messages<X509BundlesResponse>;
    type FetchJWTBundlesStream = Messages<JwtBundlesResponse>;
    type FetchWITSVIDStream = Messages<WitsvidResponse>;
    type FetchWITBundlesStream = Messages<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.stream(request, X509Svids).await
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.stream(request, X509Bundles).await
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.stream(request, JwtBundles).await
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        // SPIFFE Workload API §6.2.1: at least one audience; §4.5: an unset field is an invalid argument.
        let JwtsvidRequest {
            audience,
            spiffe_id,
        } = request.get_ref();
        if audience.iter().all(String::is_empty) {
            return Err(Status::invalid_argument(
                "audience must be specified: name at least one",
            ));
        }
        if audience.iter().any(String::is_empty) {
            return Err(Status::invalid_argument(
                "audience must be specified: one of them is empty",
            ));
        }
        if audience.len() > MAX_AUDIENCES {
            return Err(Status::invalid_argument(format!(
                "{} audiences are named, at most {MAX_AUDIENCES} are allowed",
                audience.len()
            )));
        }
        let wanted = requested(spiffe_id)?;
        let (_call, caller) = self.0.attest(&request).await?;
        let svids = self
            .0
            .identities
            .jwt_svids(&caller, &request.get_ref().audience, wanted.as_ref())
            .await
            .map_err(status::not_issued)?;
        let svids = svids
            .into_iter()
            .map(|svid| Jwtsvid {
                spiffe_id: svid.spiffe_id.to_string(),
                svid: svid.token,
                hint: svid.hint,
            })
            .collect();
        Ok(Response::new(JwtsvidResponse { svids }))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let ValidateJwtsvidRequest { audience, svid } = request.get_ref();
        if audience.is_empty() {
            return Err(Status::invalid_argument("audience must be specified"));
        }
        if svid.is_empty() {
            return Err(Status::invalid_argument("svid must be specified"));
        }
        let (_call, caller) = self.0.attest(&request).await?;
        let valid = self
            .0
            .identities
            .validate_jwt_svid(&caller, audience, svid)
            .await
            .map_err(status::not_issued)?;
        Ok(Response::new(ValidateJwtsvidResponse {
            spiffe_id: valid.spiffe_id.to_string(),
            claims: Some(message::claims(valid.claims)),
        }))
    }

    async fn fetch_witsvid(
        &self,
        request: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        self.has_wit()?;
        let wanted = requested(&request.get_ref().spiffe_id)?;
        self.stream(request, WitSvids(wanted)).await
    }

    async fn fetch_wit_bundles(
        &self,
        request: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        self.has_wit()?;
        self.stream(request, WitBundles).await
    }
}

impl WorkloadApi {
    /// SPIFFE Workload API §7: the profile is optional.
    fn has_wit(&self) -> Result<(), Status> {
        match self.0.identities.serves_wit() {
            true => Ok(()),
            false => Err(Status::unimplemented(
                "WIT-SVIDs are not served here: ask for X.509-SVIDs or JWT-SVIDs",
            )),
        }
    }
}

/// The SPIFFE ID that a request names; unset, all are meant.
fn requested(spiffe_id: &str) -> Result<Option<SpiffeId>, Status> {
    let invalid = |error| Status::invalid_argument(format!("invalid requested SPIFFE ID: {error}"));
    match spiffe_id {
        "" => Ok(None),
        id => SpiffeId::parse(id).map(Some).map_err(invalid),
    }
}
