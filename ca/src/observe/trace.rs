//! Spans: of calls whose caller records a trace, of the issuing inside them, and of every step of rotation.
//!
//! The caller states its span in `traceparent` (W3C Trace Context). What the caller does not record, we do not.

use std::borrow::Cow;
use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::SystemTime;

use http::{HeaderMap, Request, Response};
use ring::rand::{SecureRandom as _, SystemRandom};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::{Code, Status};
use tower::Layer;

use super::Observer;

/// Longest `tracestate` that is handed on, in bytes (W3C Trace Context §3.3.1.1).
const LONGEST_STATE: usize = 512;

tokio::task_local! {
    /// The span of the call that a task works for.
    static CURRENT: TraceContext;
}

/// A span, as others refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    /// `tracestate`; empty without one.
    pub(crate) state: String,
}

impl TraceContext {
    /// The span that a call belongs to, if its spans are recorded.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let mut context = parse(text("traceparent")?)?;
        let state = text("tracestate").filter(|state| state.len() <= LONGEST_STATE);
        context.state = state.unwrap_or_default().to_owned();
        Some(context)
    }

    /// The span of the call that this task works for, if it is recorded.
    fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// A new span below this one.
    fn child(&self) -> Self {
        Self {
            span_id: id(),
            ..self.clone()
        }
    }

    /// The first span of a new trace.
    fn root() -> Self {
        Self {
            trace_id: id(),
            span_id: id(),
            state: String::new(),
        }
    }
}

/// `version-trace-parent-flags` of a span that is recorded (W3C Trace Context §3.2).
fn parse(text: &str) -> Option<TraceContext> {
    let mut parts = text.trim().split('-');
    let [version] = hex(parts.next()?)?;
    let trace_id: [u8; 16] = hex(parts.next()?)?;
    let span_id: [u8; 8] = hex(parts.next()?)?;
    let [flags] = hex(parts.next()?)?;
    // Later versions may have more to say, this one has not.
    let is_known = version != 0xff && (version != 0 || parts.next().is_none());
    let is_recorded = flags & 1 == 1;
    let is_named = trace_id != [0; 16] && span_id != [0; 8];
    (is_known && is_recorded && is_named).then_some(TraceContext {
        trace_id,
        span_id,
        state: String::new(),
    })
}

/// Lower-case digits only.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut octets = [0; N];
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
        *octet = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(octets)
}

/// A name that nobody else has: not all zero.
fn id<const N: usize>() -> [u8; N] {
    let mut id = [0; N];
    if SystemRandom::new().fill(&mut id).is_err() || id == [0; N] {
        // No trace is worth a failure: without randomness it has a poor name.
        id = [1; N];
    }
    id
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    Text(String),
    Number(i64),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<usize> for Attribute {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A span that is over.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) name: Cow<'static, str>,
    pub(crate) context: TraceContext,
    pub(crate) parent: Option<[u8; 8]>,
    /// Somebody called us; else it is our own doing.
    pub(crate) is_call: bool,
    pub(crate) start: SystemTime,
    pub(crate) end: SystemTime,
    pub(crate) attributes: Vec<(&'static str, Attribute)>,
    /// What failed.
    pub(crate) error: Option<String>,
}

/// A span that has begun.
#[derive(Debug)]
pub(crate) struct Begun(Span);

impl Begun {
    fn new(name: impl Into<Cow<'static, str>>, parent: Option<&TraceContext>) -> Self {
        let now = SystemTime::now();
        Self(Span {
            name: name.into(),
            context: parent.map_or_else(TraceContext::root, TraceContext::child),
            parent: parent.map(|parent| parent.span_id),
            is_call: false,
            start: now,
            end: now,
            attributes: Vec::new(),
            error: None,
        })
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Attribute>) -> Self {
        self.0.attributes.push((name, value.into()));
        self
    }
}

impl Observer {
    /// Begins a span below that of the call that this task works for; none where nobody records.
    pub(crate) fn below_call(&self, name: &'static str) -> Option<Begun> {
        self.spans()?;
        TraceContext::current().map(|parent| Begun::new(name, Some(&parent)))
    }

    /// Begins a span below that of the call, or one of its own: what is done by itself is always worth one.
    pub(crate) fn step(&self, name: &'static str) -> Option<Begun> {
        self.spans()?;
        Some(Begun::new(name, TraceContext::current().as_ref()))
    }

    /// Ends a span.
    pub(crate) fn end(&self, begun: Begun, error: Option<String>) {
        if let Some(spans) = self.spans() {
            spans.offer(Span {
                end: SystemTime::now(),
                error,
                ..begun.0
            });
        }
    }
}

/// Makes a span of each call whose caller records one.
#[derive(Clone, Debug)]
pub(crate) struct TraceLayer(pub(crate) Observer);

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced {
            inner,
            observer: self.0.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Traced<S> {
    inner: S,
    observer: Observer,
}

impl<S> Service<Request<Body>> for Traced<S>
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
        let is_traced = self.observer.spans().is_some();
        let parent = is_traced.then(|| TraceContext::of(request.headers()));
        let Some(parent) = parent.flatten() else {
            return Box::pin(self.inner.call(request));
        };
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let (service, method) = path.rsplit_once('/').unwrap_or(("", &path));
        let mut begun = Begun::new(path.clone(), Some(&parent))
            .with("rpc.system", "grpc")
            .with("rpc.service", service)
            .with("rpc.method", method);
        begun.0.is_call = true;
        let answer = CURRENT.scope(begun.0.context.clone(), self.inner.call(request));
        let observer = self.observer.clone();
        Box::pin(async move {
            let Ok(response) = answer.await;
            // Of a refusal the status is in the head; what is still to come is not waited for.
            let status = Status::from_header_map(response.headers());
            let code = status.as_ref().map_or(Code::Ok, Status::code);
            let begun = begun.with("rpc.grpc.status_code", Attribute::Number(code as i64));
            let error = status.filter(|_| code != Code::Ok);
            observer.end(begun, error.map(|status| status.message().to_owned()));
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_recorded_span_that_is_well_named_is_joined() {
        const IDS: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        for (text, joins) in [
            (format!("00-{IDS}-01"), true),
            (format!("00-{IDS}-03"), true),
            (format!("01-{IDS}-01-more"), true),
            (format!("00-{IDS}-00"), false),
            (format!("00-{IDS}-01-more"), false),
            (format!("ff-{IDS}-01"), false),
            (format!("00-{IDS}-01").to_uppercase(), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{IDS}"), false),
            ("é".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(parse(&text).is_some(), joins, "{text}");
        }
        let context = parse(&format!("00-{IDS}-01")).unwrap();
        let child = context.child();
        assert_eq!(child.trace_id, context.trace_id);
        assert_ne!(child.span_id, context.span_id);
    }
}
