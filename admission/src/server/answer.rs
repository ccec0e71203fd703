//! One request: what it must be, and what goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::Semaphore;

use super::body::{Bodies, Held, Unread};
use super::fair::Fair;
use super::idle::Activity;
use super::{Limits, Readiness};
use crate::decide::Admission;
use crate::in_force::InForce;
use crate::metrics::{Metrics, Undecided};
use crate::review::{self, Malformed, Operation, Request, User};
use crate::verdict::{Cause, Verdict};
use crate::{tell, webhook};

/// What all requests share.
pub struct Shared {
    admission: Arc<Admission>,
    in_force: Arc<dyn InForce>,
    pub(super) readiness: Arc<dyn Readiness>,
    pub(super) metrics: Arc<Metrics>,
    limits: Limits,
    /// Judging takes a processor, so there is no use in more at once than there are.
    processors: Arc<Fair>,
    /// Reading takes one for a moment.
    readers: Arc<Semaphore>,
    bodies: Bodies,
    open: AtomicUsize,
    pub(super) stopping: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        admission: Admission,
        in_force: Arc<dyn InForce>,
        readiness: Arc<dyn Readiness>,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            admission: Arc::new(admission),
            in_force,
            readiness,
            metrics,
            limits,
            processors: Fair::new(processors),
            readers: Arc::new(Semaphore::new(processors)),
            bodies: Bodies::new(limits.body_bytes),
            open: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        }
    }
}

/// The routes of the listener.
pub(super) fn routes(shared: Arc<Shared>, activity: Activity) -> Router {
    Router::new()
        .route(webhook::PATH, any(validate))
        .fallback(elsewhere)
        .layer(from_fn(move |request: HttpRequest, next: Next| {
            let busy = activity.request();
            async move {
                let answer = next.run(request).await;
                drop(busy);
                answer
            }
        }))
        .with_state(shared)
}

async fn elsewhere(State(shared): State<Arc<Shared>>) -> Response {
    let why = format!("reviews are taken at `{}`", webhook::PATH);
    undecided(&shared, Undecided::NotAReview, StatusCode::NOT_FOUND, &why)
}

async fn validate(State(shared): State<Arc<Shared>>, request: HttpRequest) -> Response {
    let started = Instant::now();
    if request.method() != Method::POST {
        let why = "reviews are sent with POST";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut response = undecided(&shared, Undecided::NotAReview, status, why);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let media_type = request.headers().get(CONTENT_TYPE);
    let media_type = media_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let why = "an AdmissionReview is `application/json`";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return undecided(&shared, Undecided::NotAReview, status, why);
    }
    let encoding = request.headers().get(CONTENT_ENCODING);
    let encoding = encoding.map(|value| String::from_utf8_lossy(value.as_bytes()));
    if let Some(encoding) = encoding.filter(|e| !e.trim().eq_ignore_ascii_case("identity")) {
        let encoding = review::excerpt(&encoding);
        let why = format!("the body is sent as `{encoding}`: send it as it is");
        return undecided(
            &shared,
            Undecided::NotAReview,
            StatusCode::BAD_REQUEST,
            &why,
        );
    }
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > shared.limits.body_bytes) {
        return too_large(&shared);
    }
    let _open = match Open::new(&shared) {
        Some(open) => open,
        None => {
            let why = "too many reviews at once";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return undecided(&shared, Undecided::Overloaded, status, why);
        }
    };
    let deadline = deadline(request.uri().query(), shared.limits.deadline);
    let body = shared.bodies.read(request.into_body());
    let body = match tokio::time::timeout(deadline, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(Unread::TooLong)) => return too_large(&shared),
        Ok(Err(Unread::NoRoom)) => {
            let why = "too many long reviews at once";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return undecided(&shared, Undecided::Overloaded, status, why);
        }
        Ok(Err(Unread::Broken(error))) => {
            let why = format!("the body ends early: {error}");
            return undecided(
                &shared,
                Undecided::NotAReview,
                StatusCode::BAD_REQUEST,
                &why,
            );
        }
        Err(_) => {
            let why = format!("the body has not come within {deadline:?}");
            return undecided(
                &shared,
                Undecided::NotAReview,
                StatusCode::BAD_REQUEST,
                &why,
            );
        }
    };
    let left = deadline.saturating_sub(started.elapsed());
    match tokio::time::timeout(left, judged(&shared, body, started, deadline)).await {
        Ok(response) => response,
        Err(_) => {
            let why = format!("no verdict within {deadline:?}");
            undecided(
                &shared,
                Undecided::Deadline,
                StatusCode::GATEWAY_TIMEOUT,
                &why,
            )
        }
    }
}

/// One more review that is open, until it is dropped.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Option<Self> {
        let before = shared.open.fetch_add(1, Ordering::Relaxed);
        // Dropped, it takes back what it added.
        let open = Self(Arc::clone(shared));
        (before < shared.limits.reviews).then_some(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn judged(
    shared: &Arc<Shared>,
    body: Held,
    started: Instant,
    deadline: Duration,
) -> Response {
    // What is read from the body lives as long as its verdict takes.
    let Held { bytes, room: _room } = body;
    if !shared.readiness.is_synced() {
        let why = "the policies in force are not known yet";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return undecided(shared, Undecided::NotReady, status, why);
    }
    let Ok(reader) = Arc::clone(&shared.readers).acquire_owned().await else {
        return crashed(shared, "the server is closing");
    };
    let reading = tokio::task::spawn_blocking(move || {
        let _reader = reader;
        review::parse(&bytes)
    });
    let request = match reading.await {
        Ok(Ok(request)) => request,
        Ok(Err(Malformed::Unreadable { uid, why })) => {
            return decided(shared, &unreadable(uid), &Verdict::malformed(&why), started);
        }
        Ok(Err(malformed)) => {
            let status = StatusCode::BAD_REQUEST;
            return undecided(
                shared,
                Undecided::NotAReview,
                status,
                &malformed.to_string(),
            );
        }
        Err(error) => return crashed(shared, &error.to_string()),
    };
    let place = match shared.processors.place(&request.namespace) {
        Ok(place) => place,
        Err(full) => {
            let status = StatusCode::TOO_MANY_REQUESTS;
            return undecided(shared, Undecided::Overloaded, status, &full.to_string());
        }
    };
    let Some(processor) = place.processor().await else {
        return crashed(shared, "the server is closing");
    };
    let judge = Arc::clone(shared);
    // The rest is for the answer.
    let until = started + deadline * 3 / 4;
    let judging = tokio::task::spawn_blocking(move || {
        // It goes on to its end even when nobody waits any more.
        let _processor = processor;
        match judge
            .admission
            .decide(&request, judge.in_force.as_ref(), until)
        {
            Ok(verdict) => decided(&judge, &request, &verdict, started),
            Err(late) => {
                let status = StatusCode::GATEWAY_TIMEOUT;
                undecided(&judge, Undecided::Deadline, status, &late.to_string())
            }
        }
    });
    match judging.await {
        Ok(response) => response,
        Err(error) => crashed(shared, &error.to_string()),
    }
}

fn decided(shared: &Shared, request: &Request, verdict: &Verdict, started: Instant) -> Response {
    let elapsed = started.elapsed();
    shared.metrics.decided(request, verdict, elapsed);
    record(request, verdict, elapsed);
    let body = verdict.answer.to_json(&request.uid);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}

/// What the record says of a review that could not be read.
fn unreadable(uid: String) -> Request {
    Request {
        uid,
        group: String::new(),
        version: String::new(),
        kind: String::new(),
        sub_resource: String::new(),
        name: String::new(),
        namespace: String::new(),
        operation: Operation::Connect,
        user: User::default(),
        object: None,
        old_object: None,
        dry_run: false,
    }
}

/// The line of the audit log.
fn record(request: &Request, verdict: &Verdict, elapsed: Duration) {
    let short = |text: &str| review::excerpt(text);
    let object = request.object.as_ref().or(request.old_object.as_ref());
    let name = match request.name.as_str() {
        "" => object.map(|o| o.name().into_owned()).unwrap_or_default(),
        name => name.to_owned(),
    };
    let codes: Vec<&str> = verdict.codes.keys().copied().collect();
    let decision = if verdict.cause.allows() {
        "allow"
    } else {
        "deny"
    };
    let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    macro_rules! line {
        ($level:ident, $words:literal) => {
            tracing::$level!(
                target: "portcullis_admission::audit",
                uid = %short(&request.uid),
                operation = request.operation.as_str(),
                kind = %short(&request.kind),
                namespace = %short(&request.namespace),
                name = %short(&name),
                user = %short(&request.user.name),
                decision,
                cause = verdict.cause.as_str(),
                codes = %codes.join(","),
                enforcement = verdict.level.map(|level| level.as_str()),
                snapshot = verdict.snapshot.as_deref(),
                break_glass = verdict.break_glass.as_deref(),
                dry_run = request.dry_run,
                duration_us = us,
                $words
            )
        };
    }
    match verdict.cause {
        Cause::BreakGlass => line!(warn, "a refusal is passed by break-glass"),
        Cause::BreakGlassRefused => line!(warn, "break-glass is refused"),
        Cause::Subresource | Cause::Unchanged => line!(debug, "a change is judged"),
        _ => line!(info, "a change is judged"),
    }
}

/// The API server's own patience stands in the query, as `timeout=10s`; an answer after it is none.
fn deadline(query: Option<&str>, configured: Duration) -> Duration {
    let stated = query.into_iter().flat_map(|query| query.split('&'));
    let stated = stated.filter_map(|pair| pair.strip_prefix("timeout="));
    let patience = stated.filter_map(go_duration).min();
    patience.map_or(configured, |patience| {
        (patience - patience / 8).min(configured)
    })
}

/// A duration as Go prints it, as far as API servers use it: `5s`, `1m30s`, `500ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(digits)?;
        let number: f64 = number.parse().ok().filter(|n: &f64| *n < 1e6)?;
        let unit = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit)?;
        let seconds = match unit {
            "ms" => number / 1e3,
            "s" => number,
            "m" => number * 60.0,
            "h" => number * 3600.0,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(seconds).ok()?;
        rest = after;
    }
    (total > Duration::ZERO).then_some(total)
}

fn too_large(shared: &Shared) -> Response {
    let why = format!("the body has more than {} octets", shared.limits.body_bytes);
    undecided(shared, Undecided::TooLarge, StatusCode::BAD_REQUEST, &why)
}

fn crashed(shared: &Shared, why: &str) -> Response {
    tracing::error!(why, "a review could not be judged: this is a defect");
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    undecided(
        shared,
        Undecided::Crashed,
        status,
        "the verdict failed: this is a defect of Portcullis",
    )
}

/// No verdict: whatever is not 2xx leaves it to the failure policy.
fn undecided(shared: &Shared, cause: Undecided, status: StatusCode, why: &str) -> Response {
    shared.metrics.undecided(cause);
    let why = tell::cut(&tell::one_line(why), tell::WARNING);
    tracing::warn!(
        cause = cause.as_str(),
        status = status.as_u16(),
        why,
        "no verdict"
    );
    (status, format!("{why}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_is_answered_before_it_gives_up() {
        let four = Duration::from_secs(4);
        for (query, wanted) in [
            (None, 4000),
            (Some("timeout=10s"), 4000),
            (Some("timeout=2s"), 1750),
            (Some("a=b&timeout=1m0s"), 4000),
            (Some("timeout=800ms"), 700),
            (Some("timeout=0s"), 4000),
            (Some("timeout=-1s"), 4000),
            (Some("timeout=99999999999999999999s"), 4000),
            (Some("timeout=ü"), 4000),
            (Some("timeout="), 4000),
        ] {
            assert_eq!(
                deadline(query, four),
                Duration::from_millis(wanted),
                "{query:?}"
            );
        }
    }
}
