//! Accepted connections of one listener: TCP or unix, plain or TLS.

mod activation;
mod connection;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;

use crate::endpoint::Endpoint;
use crate::limits::{Counters, Load, Open};
use crate::tls::Material;

pub(crate) use self::connection::{Connection, Socket};

/// Rest after a failed accept. The usual cause, too many open files, goes away by itself.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Shortest time between two words in the log about connections that were refused.
const SILENCE: Duration = Duration::from_secs(10);

/// A bound listener: a stream of connections that never ends by itself.
#[derive(Debug)]
pub(crate) struct Incoming {
    endpoint: Endpoint,
    listener: Listener,
    load: Load,
    tls: Option<Material>,
    handshakes: JoinSet<Option<Connection>>,
    pause: Option<Pin<Box<Sleep>>>,
    refusal_logged: Option<Instant>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Ours to remove at the end; none, if somebody else made it.
        _file: Option<portcullis_wire::SocketFile>,
    },
}

impl Incoming {
    /// Binds `endpoint`; a unix socket gets `mode` before anybody can connect.
    pub(crate) async fn bind(endpoint: &Endpoint, mode: u32, load: &Load) -> io::Result<Self> {
        let (endpoint, listener) = match endpoint {
            Endpoint::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                (
                    Endpoint::Tcp(listener.local_addr()?),
                    Listener::Tcp(listener),
                )
            }
            Endpoint::Unix(path) => {
                let (listener, file) = portcullis_wire::bind_unix(path, mode).await?;
                let file = Some(file);
                (
                    endpoint.clone(),
                    Listener::Unix {
                        listener,
                        _file: file,
                    },
                )
            }
            Endpoint::Activated(name) => activation::take(name)?,
        };
        Ok(Self {
            endpoint,
            listener,
            load: load.clone(),
            tls: None,
            handshakes: JoinSet::new(),
            pause: None,
            refusal_logged: None,
        })
    }

    /// The same, with a TLS handshake before anything else.
    pub(crate) fn with_tls(mut self, tls: Material) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The endpoint as bound: a port of zero has become a real one.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        match &self.listener {
            Listener::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| {
                // Answers are small; waiting for more to send would cost 40 ms each.
                let _ = stream.set_nodelay(true);
                Socket::Tcp(stream)
            }),
            Listener::Unix { listener, .. } => listener
                .poll_accept(cx)
                .map_ok(|(stream, _)| Socket::Unix(stream)),
        }
    }

    /// Says so now and then, not once for each.
    fn log_refusal(&mut self) {
        let now = Instant::now();
        let silent = |last: Instant| now.duration_since(last) < SILENCE;
        if !self.refusal_logged.is_some_and(silent) {
            self.refusal_logged = Some(now);
            tracing::warn!(
                listener = %self.endpoint,
                limit = self.load.limits().connections,
                "connections refused: `limits.connections` are open"
            );
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(connection)))) => {
                    return Poll::Ready(Some(Ok(connection)));
                }
                Poll::Ready(Some(_)) => continue,
                Poll::Ready(None) | Poll::Pending => {}
            }
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match std::task::ready!(self.poll_accept(cx)) {
                Ok(socket) => {
                    let Some(open) = self.load.connection() else {
                        self.log_refusal();
                        continue;
                    };
                    let Some(tls) = self.tls.clone() else {
                        return Poll::Ready(Some(Ok(Connection::plain(socket, open))));
                    };
                    let handshake = handshake(tls, socket, open, self.load.clone());
                    self.handshakes.spawn(handshake);
                }
                // The client went away before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(listener = %self.endpoint, %error, "cannot accept a connection");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

async fn handshake(tls: Material, socket: Socket, open: Open, load: Load) -> Option<Connection> {
    let limit = load.limits().header_timeout;
    let error = match tokio::time::timeout(limit, tls.accept(socket)).await {
        Ok(Ok(stream)) => return Some(Connection::tls(stream, open)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    Counters::count(&load.counters().handshakes_failed);
    // Anybody can cause these: a scan must not fill the log.
    tracing::info!(error, "a TLS handshake failed");
    None
}

#[cfg(test)]
mod tests;
