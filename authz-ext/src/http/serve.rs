//! Connections in, answers out: hyper's HTTP/1, without a router, since whatever path is asked is a check.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming as Body;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_policy::decision::Reason;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::connection::{Late, Phase, Timed};
use super::peer::Peer;
use super::{Options, answer, facts};
use crate::check::Checker;
use crate::custom;
use crate::incoming::{Connection, Incoming};
use crate::limits::Load;
use crate::respond;

/// One listener's endpoint.
#[derive(Debug)]
struct Service {
    checker: Checker,
    options: Options,
    respond: respond::Options,
    load: Load,
}

/// Serves `incoming` until `stop` says so, then lets open requests end.
pub(crate) async fn serve(
    mut incoming: Incoming,
    checker: Checker,
    options: Options,
    respond: respond::Options,
    load: Load,
    mut stop: watch::Receiver<bool>,
) {
    let service = Arc::new(Service {
        checker,
        options,
        respond,
        load,
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = incoming.next() => match accepted {
                Some(Ok(connection)) => {
                    let service = Arc::clone(&service);
                    connections.spawn(connected(connection, service, stop.clone()));
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

async fn connected(connection: Connection, service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let peer = Arc::new(connection.peer());
    let phase = Phase::default();
    let limits = service.options.limits;
    let (phases, asked) = (phase.clone(), Arc::clone(&service));
    let answering = service_fn(move |request| {
        phases.request();
        let (phases, service, peer) = (phases.clone(), Arc::clone(&asked), Arc::clone(&peer));
        async move {
            let answer = check(&service, &peer, request).await;
            phases.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    let io = TokioIo::new(Timed::new(connection, phase, limits));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        // The connection keeps its own time, which knows an idle one from a slow one.
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.saturating_mul(2).max(16 << 10))
        .max_headers(service.load.limits().headers);
    let serving = http.serve_connection(io, answering);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        refused(&service.checker, &error);
    }
}

/// A request that no handler saw is a denial as any other: counted, and in the decision log.
fn refused(checker: &Checker, error: &hyper::Error) {
    let listener = checker.listener();
    let reason = if error.is_parse() || error.is_parse_too_large() {
        // hyper has answered what it could not read: 400, 414 or 431.
        Reason::InvalidRequest
    } else if Late::is_in(error) {
        // What does not come is not answered: the connection is closed.
        Reason::Deadline
    } else {
        tracing::debug!(listener, %error, "a connection ended early");
        return;
    };
    tracing::warn!(listener, reason = reason.as_str(), %error, "request refused: it is no HTTP/1 request within the limits");
    let _ = checker.refuse(&HeaderMap::new(), reason, std::time::Instant::now());
}

/// Answers a check.
async fn check(service: &Service, peer: &Peer, request: Request<Body>) -> Response<String> {
    let (parts, _body) = request.into_parts();
    let options = &service.options;
    let received = Instant::now();
    let check = service.checker.check(&parts.headers, |snapshot| {
        if service.checker.is_own_question(&parts.headers) {
            return Err(custom::led_back());
        }
        facts::request(&parts, peer, options, snapshot.mesh().num_trusted_proxies)
    });
    let answer = match service.load.run(received, None, check).await {
        Ok(answer) => answer,
        Err(overrun) => {
            let checker = &service.checker;
            checker.refuse(&parts.headers, overrun.reason(), received.into_std())
        }
    };
    answer::response(&answer, options.dialect, &service.respond)
}
