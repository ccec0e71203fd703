//! `/metrics`, `/livez` and `/readyz`, in plain HTTP, for operators and their tools.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Shared, stopped};

/// Prometheus reads it whatever it asked for.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections at once: a few tools, never a load.
const CONNECTIONS: usize = 64;
/// How long a head may take, and a connection may stay.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let headers = [
        ("content-type", METRICS_TYPE),
        ("cache-control", "no-store"),
    ];
    (headers, shared.metrics.text())
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let mut missing = shared.readiness.missing().0;
    if shared.stopping.load(Ordering::Relaxed) {
        missing.push("the server is stopping".to_owned());
    }
    let status = match missing.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({ "ready": missing.is_empty(), "missing": missing });
    (
        status,
        [("content-type", "application/json")],
        format!("{body}\n"),
    )
        .into_response()
}

/// Serves until `stop` says so, then lets open requests end.
pub(super) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(shared);
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = open.join_next() => {}
            accepted = listener.accept(), if open.len() < CONNECTIONS => {
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(super::ACCEPT_PAUSE).await;
                    continue;
                };
                let service = TowerToHyperService::new(routes.clone());
                let mut stop = stop.clone();
                open.spawn(async move {
                    let mut http = hyper::server::conn::http1::Builder::new();
                    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_headers(64);
                    let serving = http.serve_connection(TokioIo::new(stream), service);
                    tokio::pin!(serving);
                    let served = async {
                        tokio::select! {
                            _ = &mut serving => {}
                            () = stopped(&mut stop) => {
                                serving.as_mut().graceful_shutdown();
                                let _ = serving.await;
                            }
                        }
                    };
                    let _ = tokio::time::timeout(LONGEST, served).await;
                });
            }
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}
