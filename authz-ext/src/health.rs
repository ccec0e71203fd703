//! Whether this server can be asked, and why not: `/readyz`, `/livez` and the gRPC health service, in step.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use portcullis_policy::snapshot::Snapshot;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::feed::{FeedKind, FeedStatus};
use crate::grpc::SERVICE_NAME;
use crate::reload::ReloadStatus;
use crate::tls::Material;

/// Everything that readiness depends on.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// The snapshot in force.
    pub(crate) published: watch::Receiver<Option<Arc<Snapshot>>>,
    /// What reload has done.
    pub(crate) status: watch::Receiver<ReloadStatus>,
    /// How it goes with the API server; `None` where none is followed.
    pub(crate) feed: Option<watch::Receiver<FeedStatus>>,
    /// Certificates of the listeners that have one, by listener.
    pub(crate) certificates: Vec<(String, Material)>,
    /// True from the moment that the server is told to stop.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether a request would be decided.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// What decides; `null` before the first good compilation.
    pub snapshot: Option<InForce>,
    /// What reload has done.
    pub reload: Reloads,
    /// What is known of the API server; absent where none is followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Followed>,
}

/// What is known of the API server that is followed.
#[derive(Clone, Debug, Serialize)]
pub struct Followed {
    /// Everything was read once.
    pub synced: bool,
    /// When it last answered, RFC 3339. What is in force is as old as this, at most.
    pub last_contact: Option<String>,
    /// When the last snapshot was made, RFC 3339.
    pub published: Option<String>,
    /// Policies of which an earlier version is in force, since the last one is refused.
    pub last_good: usize,
    /// Policies that were never good, and close what they select.
    pub closed: usize,
    /// Why there is no newer snapshot.
    pub failure: Option<String>,
    /// Each kind.
    pub kinds: Vec<FeedKind>,
}

impl Followed {
    fn of(status: &FeedStatus) -> Self {
        Self {
            synced: status.synced,
            last_contact: status.contact.and_then(rfc3339),
            published: status.published.and_then(rfc3339),
            last_good: status.kept,
            closed: status.closed,
            failure: status.failure.clone(),
            kinds: status.kinds.clone(),
        }
    }
}

/// The snapshot in force.
#[derive(Clone, Debug, Serialize)]
pub struct InForce {
    /// Its revision: a fingerprint of everything that it was compiled from.
    pub revision: String,
    /// How many policies it has.
    pub policies: usize,
    /// Since when it is in force, RFC 3339.
    pub since: Option<String>,
}

/// What reload has done.
#[derive(Clone, Debug, Serialize)]
pub struct Reloads {
    /// When files were last read, RFC 3339.
    pub last_attempt: Option<String>,
    /// Why the last attempt was refused; what was in force before it still is.
    pub error: Option<String>,
    /// Attempts that ended with a snapshot.
    pub succeeded: u64,
    /// Attempts that were refused.
    pub failed: u64,
}

fn rfc3339(time: SystemTime) -> Option<String> {
    OffsetDateTime::from(time).format(&Rfc3339).ok()
}

impl Readiness {
    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if *self.stopping.borrow() {
            reasons.push("the server is stopping".to_owned());
        }
        if self.published.borrow().is_none() {
            let error = self.status.borrow().last_error.clone();
            reasons.push(match error {
                Some(error) => format!("there is no snapshot: {error}"),
                None => "there is no snapshot yet".to_owned(),
            });
        }
        if let Some(feed) = &self.feed {
            reasons.extend(feed.borrow().missing.iter().cloned());
        }
        for (listener, certificate) in &self.certificates {
            if !certificate.is_there() {
                reasons.push(format!("`{listener}` has no certificate yet"));
            }
        }
        reasons
    }

    /// True when a request would be decided.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.reasons().is_empty()
    }

    /// All of it, to be shown.
    #[must_use]
    pub fn report(&self) -> Report {
        let reasons = self.reasons();
        let status = self.status.borrow().clone();
        Report {
            ready: reasons.is_empty(),
            reasons,
            snapshot: status.revision.map(|revision| InForce {
                revision,
                policies: status.policies,
                since: status.since.and_then(rfc3339),
            }),
            reload: Reloads {
                last_attempt: status.last_attempt.and_then(rfc3339),
                error: status.last_error,
                succeeded: status.succeeded,
                failed: status.failed,
            },
            kubernetes: self.feed.as_ref().map(|feed| Followed::of(&feed.borrow())),
        }
    }

    /// Waits until something may have changed.
    async fn changed(&mut self) {
        let missing = self
            .certificates
            .iter_mut()
            .map(|(_, c)| c)
            .find(|c| !c.is_there());
        let certificate = async {
            match missing {
                Some(certificate) => certificate.arrives().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = certificate => {}
            // A sender that is gone changes nothing any more.
            Ok(()) = self.published.changed() => {}
            Ok(()) = self.stopping.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// Keeps the gRPC health service, which has `said` whether we are ready, in step until the server
    /// stops; watchers hear of changes only.
    pub(crate) async fn follow(mut self, health: HealthReporter, mut said: bool) {
        loop {
            let ready = self.is_ready();
            if said != ready {
                said = ready;
                report(&health, ready).await;
            }
            self.changed().await;
        }
    }
}

/// Tells the health service; the empty name is the server as a whole.
pub(crate) async fn report(health: &HealthReporter, ready: bool) {
    let status = match ready {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    };
    for name in ["", SERVICE_NAME] {
        health.set_service_status(name, status).await;
    }
}

/// `/livez` and `/readyz`.
pub(crate) fn routes(readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

/// 200 when ready, else 503; both with the report.
async fn ready(State(readiness): State<Readiness>) -> Response {
    let report = readiness.report();
    let status = match report.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_TYPE, "application/json"),
    ];
    let body = serde_json::to_string(&report).unwrap_or_default() + "\n";
    (status, headers, body).into_response()
}
