//! A gRPC listener: `envoy.service.auth.v3.Authorization/Check` in the shortest way, health and
//! reflection beside it.
//!
//! ```text
//! connection (h2) -- Check, read whole --> decided where it was read --> one flush for many answers
//!                 \- Check that must wait (for its message, a token's keys, a provider) --> a task
//!                 \- any other method --> tonic's routes, in a task
//! ```
//!
//! A decision takes a few microseconds; a task for each, and a service stack around it, take more
//! than that (docs/benchmarks.md). So a connection gathers the checks that have arrived, answers them
//! one after the other, and has HTTP/2 write all the answers at once.

mod answers;
mod check;
mod connection;
mod message;
mod routes;
mod timeout;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tonic::service::Routes;

pub(crate) use self::check::Authorization;

use crate::incoming::Incoming;

/// Full name of the gRPC service.
pub const SERVICE_NAME: &str = "envoy.service.auth.v3.Authorization";

/// Serves `incoming` until `stop` says so, then lets open requests end. What is no Check goes to `routes`.
pub(crate) async fn serve(
    mut incoming: Incoming,
    authorization: Authorization,
    routes: Routes,
    mut stop: watch::Receiver<bool>,
) {
    let authorization = Arc::new(authorization);
    let routes = routes.prepare();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = incoming.next() => match accepted {
                Some(Ok(connection)) => {
                    let authorization = Arc::clone(&authorization);
                    let serving = connection::serve(connection, authorization, routes.clone(), stop.clone());
                    connections.spawn(serving);
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
