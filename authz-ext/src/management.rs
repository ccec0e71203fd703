//! The management listener: plain HTTP for operators and their tools, beside the listeners of proxies.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | what is counted, for Prometheus |
//! | `/decisions` | decisions as they happen, a JSON line each; `?denied=true`, `?explain=true` |
//! | `/livez` | 200 as long as the process answers |
//! | `/readyz` | 200 when requests are decided, else 503; a JSON object says by which snapshot, or why not |
//!
//! Whoever has more to tell merges its routes into the router of `routes` before `serve` gets it.
//! The listener goes on through the drain and is the last to stop.

mod decisions;

use std::net::IpAddr;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tower::ServiceExt as _;

use crate::http::Limits;
use crate::http::connection::{Phase, Timed};
use crate::incoming::{Connection, Incoming};
use crate::observe::Observer;

/// Prometheus reads it whatever it asked for.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections at once: a few tools, never a load.
const CONNECTIONS: usize = 64;

/// What the routes share.
#[derive(Clone, Debug)]
struct Shared {
    observer: Observer,
    stop: watch::Receiver<bool>,
}

/// Whether the other end of a connection is this machine.
#[derive(Clone, Copy, Debug)]
struct Near(bool);

/// The routes of what is observed. Streams end when `stop` says so.
pub(crate) fn routes(observer: Observer, stop: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/decisions", get(decisions::follow))
        .with_state(Shared { observer, stop })
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let headers = [
        ("content-type", METRICS_TYPE),
        ("cache-control", "no-store"),
    ];
    (headers, shared.observer.metrics_text())
}

/// Serves `routes` until `stop` says so, then lets open requests end.
pub(crate) async fn serve(mut incoming: Incoming, routes: Router, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = incoming.next(), if connections.len() < CONNECTIONS => match accepted {
                Some(Ok(connection)) => {
                    connections.spawn(connected(connection, routes.clone(), stop.clone()));
                }
                Some(Err(_)) => {}
                None => break,
            },
        }
    }
    drop(incoming);
    while connections.join_next().await.is_some() {}
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connected(connection: Connection, routes: Router, mut stop: watch::Receiver<bool>) {
    let near = Near(
        connection
            .peer()
            .address
            .is_none_or(|a: IpAddr| a.is_loopback()),
    );
    let phase = Phase::default();
    let phases = phase.clone();
    let tower = tower::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        phases.request();
        let (phases, routes) = (phases.clone(), routes.clone());
        async move {
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(near);
            let answered = routes.oneshot(request).await;
            phases.answered();
            answered
        }
    });
    let io = TokioIo::new(Timed::new(connection, phase, Limits::default()));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(64);
    let serving = http.serve_connection(io, TowerToHyperService::new(tower));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the management listener ended early");
    }
}
