//! `envoy.service.auth.v3.Authorization`: Check.
//!
//! Every request gets an answer in ext_authz's own terms. A message that is no `CheckRequest` is
//! denied as `invalid_request`, one over a limit as `overloaded`; a gRPC error would instead be subject to
//! the proxy's failure mode.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use envoy_types::ext_authz::v3::pb::{CheckRequest, CheckResponse};
use http_body_util::Full;
use portcullis_policy::decision::Reason;
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::time::Instant;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic::codegen::http::HeaderMap;
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::check::{Checker, Refusal};
use crate::limits::{Limits, Load, Overrun};
use crate::{decide, facts, respond};

mod timeout;

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
    load: Load,
}

impl AuthorizationService {
    /// A service that decides by `checker`, within the limits of `load`, and reads messages of at most
    /// `max_message_bytes`.
    #[must_use]
    pub fn new(
        checker: Checker,
        facts: facts::Options,
        respond: respond::Options,
        max_message_bytes: usize,
        load: Load,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                checker,
                facts,
                respond,
                max_message_bytes,
                load,
            }),
        }
    }
}

impl Inner {
    async fn check(&self, received: Received, metadata: &MetadataMap) -> CheckResponse {
        let answer = self
            .checker
            .check(metadata.as_ref(), |snapshot| match received.0 {
                Ok(_) if self.checker.is_own_question(metadata.as_ref()) => {
                    Err(crate::custom::led_back())
                }
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

impl Inner {
    /// Reads and decides one check. The answer is always one in ext_authz's own terms.
    async fn answer<B>(
        self: Arc<Self>,
        request: http::Request<B>,
        received: Instant,
    ) -> http::Response<tonic::body::Body>
    where
        B: Body + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        // For whoever hears of a denial that was not read.
        let headers = HeaderMap::clone(request.headers());
        let limits = self.load.limits();
        let reason = if is_over(&headers, limits) {
            self.load.over(Overrun::Overloaded).reason()
        } else {
            let client_timeout = timeout::of(&headers);
            let limit = Some(self.max_message_bytes);
            let mut grpc = Grpc::new(CheckCodec).apply_max_message_size_config(limit, None);
            let check = grpc.unary(Check(Arc::clone(&self)), request);
            match self.load.run(received, client_timeout, check).await {
                Ok(response) => match refused(&response) {
                    None => return response,
                    Some(Code::OutOfRange | Code::ResourceExhausted) => {
                        self.load.over(Overrun::Overloaded).reason()
                    }
                    Some(_) => Reason::InvalidRequest,
                },
                Err(overrun) => overrun.reason(),
            }
        };
        let answer = self.checker.refuse(&headers, reason, received.into_std());
        tracing::debug!(
            listener = self.checker.listener(),
            reason = reason.as_str(),
            "a check was denied unread"
        );
        fixed(respond::respond(&answer, &self.respond)).await
    }
}

/// More or longer headers than the limits say.
fn is_over(headers: &HeaderMap, limits: &Limits) -> bool {
    let octets = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    headers.len() > limits.headers || octets.sum::<usize>() > limits.header_bytes
}

/// Why the message was not read, where it was not: our method itself has no errors.
fn refused(response: &http::Response<tonic::body::Body>) -> Option<Code> {
    let status = response.headers().get("grpc-status")?;
    match Code::from_bytes(status.as_bytes()) {
        Code::Ok => None,
        code => Some(code),
    }
}

/// A response with this message, framed as any other.
async fn fixed(response: CheckResponse) -> http::Response<tonic::body::Body> {
    /// A message of no octets.
    const EMPTY: &[u8] = &[0; 5];
    let request = http::Request::new(Full::new(Bytes::from_static(EMPTY)));
    Grpc::new(CheckCodec).unary(Fixed(response), request).await
}

/// Answers the same whatever it is asked.
struct Fixed(CheckResponse);

impl UnaryService<Received> for Fixed {
    type Response = CheckResponse;
    type Future = Ready<Result<Response<CheckResponse>, Status>>;

    fn call(&mut self, _: Request<Received>) -> Self::Future {
        ready(Ok(Response::new(std::mem::take(&mut self.0))))
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
        let answer = Arc::clone(&self.inner).answer(request, Instant::now());
        Box::pin(async move { Ok(answer.await) })
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
