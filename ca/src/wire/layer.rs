//! What holds for every call, whatever the service.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::{Code, Status};
use tower::Layer;

use super::latest::Flushed;
use super::status;

const WORKLOAD_API: &str = "/SpiffeWorkloadAPI/";
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Refuses Workload API calls without the security header, tells streams what the transport has passed on, and
/// gives oversized messages the status that gRPC names for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrontLayer;

impl<S> Layer<S> for FrontLayer {
    type Service = Front<S>;

    fn layer(&self, inner: S) -> Front<S> {
        Front { inner }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Front<S> {
    inner: S,
}

/// Put into a response's extensions by a service whose stream wants to know.
#[derive(Clone)]
pub(crate) struct OnFlush(pub(crate) Arc<dyn Flushed>);

impl<S> Service<Request<Body>> for Front<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Reflection, health and SDS do without (SPIFFE Workload Endpoint §3).
        if request.uri().path().starts_with(WORKLOAD_API) && !has_security_header(request.headers())
        {
            let refused = status::no_security_header().into_http();
            return Box::pin(std::future::ready(Ok(refused)));
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Ok(mut response) = answer.await;
            name_oversized(response.headers_mut());
            Ok(match response.extensions_mut().remove::<OnFlush>() {
                None => response,
                Some(OnFlush(told)) => response.map(|inner| Body::new(Watched { inner, told })),
            })
        })
    }
}

/// Exactly one value, and exactly this one: both matter to keep a browser or proxy from being used as a way in.
fn has_security_header(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(SECURITY_HEADER).iter();
    values.next().is_some_and(|value| value == "true") && values.next().is_none()
}

/// gRPC's name for a message that is too large is RESOURCE_EXHAUSTED; tonic says OUT_OF_RANGE.
fn name_oversized(headers: &mut HeaderMap) {
    let Some(status) = Status::from_header_map(headers) else {
        return;
    };
    if status.code() == Code::OutOfRange && status.message().contains("message length too large") {
        headers.insert(
            Status::GRPC_STATUS,
            HeaderValue::from(Code::ResourceExhausted as i32),
        );
    }
}

/// A body that tells when the transport comes back for more: then what it took before has found room.
struct Watched {
    inner: Body,
    told: Arc<dyn Flushed>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        this.told.flushed();
        Pin::new(&mut this.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_security_header_is_exact() {
        let with = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(SECURITY_HEADER, HeaderValue::from_static(value));
            }
            has_security_header(&headers)
        };
        assert!(with(&["true"]));
        for wrong in [
            &[][..],
            &["True"],
            &["TRUE"],
            &["1"],
            &[""],
            &["true,true"],
            &["true", "true"],
            &["false", "true"],
        ] {
            assert!(!with(wrong), "{wrong:?}");
        }
    }
}
