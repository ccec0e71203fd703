//! `/decisions`: decisions as they happen, a JSON line each.
//!
//! A line is a [`DecisionEvent`](crate::observe::event::DecisionEvent), with `explanation` where it
//! was asked for; `{"lost":N}` says that N decisions came faster than they were taken.

use std::convert::Infallible;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use portcullis_policy::explain::Explanation;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::StatusCode;

use super::{Near, Shared, stopped};
use crate::observe::event::DecisionEvent;
use crate::observe::follow::{Filter, Follow, Followed};

/// Lines on their way to one follower, beside those that its queue holds.
const LINES: usize = 16;

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: &'a DecisionEvent,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explanation>,
}

#[derive(Serialize)]
struct Lost {
    lost: u64,
}

/// Answers `GET /decisions`.
pub(super) async fn follow(
    State(shared): State<Shared>,
    Extension(Near(near)): Extension<Near>,
    RawQuery(query): RawQuery,
) -> Response {
    // Who calls whom, and what is refused, is not for the network.
    if !near {
        let words = "decisions are shown on this machine only\n";
        return (StatusCode::FORBIDDEN, words).into_response();
    }
    let filter = match filter(query.as_deref().unwrap_or_default()) {
        Ok(filter) => filter,
        Err(words) => return (StatusCode::BAD_REQUEST, words + "\n").into_response(),
    };
    let follow = match shared.observer.subscribe(filter) {
        Ok(follow) => follow,
        Err(error) => {
            let words = format!("{error}\n");
            return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
        }
    };
    let (sender, receiver) = mpsc::channel(LINES);
    tokio::spawn(lines(follow, shared, sender));
    let headers = [
        ("content-type", "application/x-ndjson"),
        ("cache-control", "no-store"),
    ];
    (headers, Body::from_stream(ReceiverStream::new(receiver))).into_response()
}

fn filter(query: &str) -> Result<Filter, String> {
    let mut filter = Filter::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let field = match pair.split_once('=').unwrap_or((pair, "true")) {
            ("denied", value) => (&mut filter.denied, value),
            ("explain", value) => (&mut filter.explain, value),
            _ => return Err("unknown parameter; known are `denied` and `explain`".to_owned()),
        };
        *field.0 = match field.1 {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => return Err("a parameter is neither `true` nor `false`".to_owned()),
        };
    }
    Ok(filter)
}

/// Writes what is followed to `sender`, until either end is gone or the server stops.
async fn lines(
    mut follow: Follow,
    mut shared: Shared,
    sender: mpsc::Sender<Result<Bytes, Infallible>>,
) {
    loop {
        let followed = tokio::select! {
            () = sender.closed() => return,
            () = stopped(&mut shared.stop) => return,
            followed = follow.next() => followed,
        };
        let Some(followed) = followed else {
            return;
        };
        let lost = follow.take_lost();
        let mut bytes = Vec::new();
        if lost > 0 {
            line(&mut bytes, &Lost { lost });
        }
        let explanation = explain(&followed).await;
        let event = &followed.event;
        line(&mut bytes, &Line { event, explanation });
        let sent = tokio::select! {
            () = stopped(&mut shared.stop) => return,
            sent = sender.send(Ok(bytes.into())) => sent,
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn explain(followed: &Followed) -> Option<Explanation> {
    let subject = followed.subject.clone()?;
    tokio::task::spawn_blocking(move || subject.explain())
        .await
        .ok()
}

fn line(bytes: &mut Vec<u8>, value: &impl Serialize) {
    // Neither has a key that is no text.
    if serde_json::to_writer(&mut *bytes, value).is_ok() {
        bytes.push(b'\n');
    } else {
        bytes.clear();
    }
}
