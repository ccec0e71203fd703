//! `envoy.service.auth.v3.Authorization`: Check.
//!
//! Every request gets an answer in ext_authz's own terms. A message that is no `CheckRequest` is
//! denied as `invalid_request`; a gRPC error would instead be subject to the proxy's failure mode.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use envoy_types::ext_authz::v3::pb::{CheckRequest, CheckResponse};
use portcullis_policy::decision::Reason;
use prost::Message as _;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::check::{Checker, Refusal};
use crate::{decide, facts, respond};

/// Full name of the gRPC service.
pub const SERVICE_NAME: &str = "envoy.service.auth.v3.Authorization";

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// One listener's Authorization service.
#[derive(Clone, Debug)]
pub struct AuthorizationService {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    checker: Checker,
    facts: facts::Options,
    respond: respond::Options,
    max_message_bytes: usize,
}

impl AuthorizationService {
    /// A service that decides by `checker` and reads messages of at most `max_message_bytes`.
    #[must_use]
    pub fn new(
        checker: Checker,
        facts: facts::Options,
        respond: respond::Options,
        max_message_bytes: usize,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                checker,
                facts,
                respond,
                max_message_bytes,
            }),
        }
    }
}

impl Inner {
    async fn check(&self, received: Received, metadata: &MetadataMap) -> CheckResponse {
        let answer = self
            .checker
            .check(metadata.as_ref(), |snapshot| match received.0 {
                Ok(_) if self.checker.is_own_question(metadata) => Err(Refusal::new(
                    Reason::CustomProviderUnavailable,
                    "a CUSTOM provider led back to this service",
                )),
                Ok(check) => decide::request(snapshot, check, metadata, &self.facts),
                Err(error) => Err(Refusal::new(
                    Reason::InvalidRequest,
                    format!("not a `CheckRequest`: {error}"),
                )),
            })
            .await;
        respond::respond(&answer, &self.respond)
    }
}

impl NamedService for AuthorizationService {
    const NAME: &'static str = SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for AuthorizationService
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != CHECK {
            return Box::pin(async { Ok(Status::unimplemented("unknown method").into_http()) });
        }
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let limit = Some(inner.max_message_bytes);
            let mut grpc = Grpc::new(CheckCodec).apply_max_message_size_config(limit, None);
            Ok(grpc.unary(Check(inner), request).await)
        })
    }
}

/// The method. A decision takes microseconds, so it runs where the request was read.
struct Check(Arc<Inner>);

impl UnaryService<Received> for Check {
    type Response = CheckResponse;
    type Future = BoxFuture<Response<CheckResponse>, Status>;

    fn call(&mut self, request: Request<Received>) -> Self::Future {
        let (metadata, _, received) = request.into_parts();
        let inner = Arc::clone(&self.0);
        Box::pin(async move { Ok(Response::new(inner.check(received, &metadata).await)) })
    }
}

/// A message as it was received: perhaps not a `CheckRequest` at all.
struct Received(Result<CheckRequest, prost::DecodeError>);

#[derive(Clone, Copy, Debug)]
struct CheckCodec;

impl Codec for CheckCodec {
    type Encode = CheckResponse;
    type Decode = Received;
    type Encoder = <ProstCodec<CheckResponse, CheckRequest> as Codec>::Encoder;
    type Decoder = ReceivedDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<CheckResponse, CheckRequest>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ReceivedDecoder
    }
}

struct ReceivedDecoder;

impl Decoder for ReceivedDecoder {
    type Item = Received;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Received>, Status> {
        let received = CheckRequest::decode(&mut *buffer);
        // What a failed decoding left behind still belongs to this message.
        let left = prost::bytes::Buf::remaining(buffer);
        prost::bytes::Buf::advance(buffer, left);
        Ok(Some(Received(received)))
    }
}
