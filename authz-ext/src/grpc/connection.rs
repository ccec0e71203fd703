//! One HTTP/2 connection.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::server::{Builder, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use portcullis_wire::Prompt;
use prost::bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tonic::service::Routes;

use super::check::{Asked, Authorization};
use super::{routes, stopped};
use crate::incoming::Connection;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Most requests that are answered before any of the answers is written.
const GATHERED: usize = 32;

/// Rest between two questions whether the peer is still there, and the time that it has to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Most requests of a connection that are open at once.
const STREAMS: u32 = 1024;
/// What a client may send before it hears of us.
const WINDOW: u32 = 1 << 20;
const FRAME: u32 = 16 << 10;

type Stream = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves one connection until its peer or `stop` ends it.
pub(super) async fn serve(
    connection: Connection,
    authorization: Arc<Authorization>,
    routes: Routes,
    mut stop: watch::Receiver<bool>,
) {
    let limits = authorization.limits();
    let io = Prompt::new(connection, limits.header_timeout);
    // What is a little over is answered by the service, in ext_authz's own terms; the rest by HTTP/2.
    let header_bytes = limits.header_bytes.saturating_mul(4);
    let mut http2 = Builder::new();
    http2
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX));
    let handshake = tokio::select! {
        handshake = http2.handshake(io) => handshake,
        () = stopped(&mut stop) => return,
    };
    let ended = match handshake {
        Ok(connection) => {
            Driver::new(connection, authorization, routes)
                .run(stop)
                .await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A connection and what is answered on it.
struct Driver {
    connection: h2::server::Connection<Prompt<Connection>, Bytes>,
    alive: KeepAlive,
    authorization: Arc<Authorization>,
    routes: Routes,
    waiting: JoinSet<()>,
}

impl Driver {
    fn new(
        mut connection: h2::server::Connection<Prompt<Connection>, Bytes>,
        authorization: Arc<Authorization>,
        routes: Routes,
    ) -> Self {
        Self {
            alive: KeepAlive::new(connection.ping_pong()),
            connection,
            authorization,
            routes,
            waiting: JoinSet::new(),
        }
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), h2::Error> {
        let mut stopping = pin!(async move { stopped(&mut stop).await });
        let mut is_stopping = false;
        let mut gathered = Vec::new();
        loop {
            let open = poll_fn(|cx| {
                if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
                    is_stopping = true;
                    self.connection.graceful_shutdown();
                }
                self.poll_gather(cx, &mut gathered)
            });
            if !open.await? {
                return Ok(());
            }
            for (request, respond) in gathered.drain(..) {
                self.answer(request, respond);
            }
        }
    }

    /// Gathers what has arrived, at least one request; false once the connection has ended.
    fn poll_gather(
        &mut self,
        cx: &mut Context<'_>,
        gathered: &mut Vec<Stream>,
    ) -> Poll<Result<bool, h2::Error>> {
        if self.alive.poll(cx).is_ready() {
            tracing::debug!("a connection ended: its peer does not answer");
            return Poll::Ready(Ok(false));
        }
        while let Poll::Ready(Some(_)) = self.waiting.poll_join_next(cx) {}
        while gathered.len() < GATHERED {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(stream)) => gathered.push(stream?),
                Poll::Ready(None) if gathered.is_empty() => return Poll::Ready(Ok(false)),
                Poll::Pending if gathered.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(true))
    }

    fn answer(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        if request.uri().path() != CHECK {
            let routes = self.routes.clone();
            self.waiting.spawn(routes::answer(routes, request, respond));
            return;
        }
        let (head, body) = request.into_parts();
        let mut asked = self.authorization.asked(head.headers, body);
        match self.authorization.answer_at_once(&mut asked) {
            Some(Ok(frame)) => send(respond, frame),
            Some(Err(_)) => {}
            None => {
                let authorization = Arc::clone(&self.authorization);
                self.waiting.spawn(wait(authorization, asked, respond));
            }
        }
    }
}

/// Answers a check that is not all here, or whose answer others have to say something about.
async fn wait(
    authorization: Arc<Authorization>,
    mut asked: Asked,
    mut respond: SendResponse<Bytes>,
) {
    let taken_back = poll_fn(|cx| respond.poll_reset(cx));
    let answer = tokio::select! {
        answer = authorization.answer(&mut asked) => answer,
        _ = taken_back => return,
    };
    if let Ok(frame) = answer {
        send(respond, frame);
    }
}

/// Sends a message and the word that all went well. What a client does not read waits in its stream,
/// of which there are few.
fn send(mut respond: SendResponse<Bytes>, frame: Bytes) {
    let mut response = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let sent = respond
        .send_response(response, false)
        .and_then(|mut stream| {
            stream.send_data(frame, false)?;
            stream.send_trailers(trailers)
        });
    if let Err(error) = sent {
        tracing::debug!(%error, "an answer was not sent");
    }
}

/// Finds out whether a peer that says nothing is still there: a proxy that vanished without a word must
/// not hold its connection for ever.
struct KeepAlive {
    pings: Option<PingPong>,
    next: Pin<Box<Sleep>>,
    asked: bool,
}

impl KeepAlive {
    fn new(pings: Option<PingPong>) -> Self {
        Self {
            pings,
            next: Box::pin(sleep(PING_INTERVAL)),
            asked: false,
        }
    }

    /// Ready once the peer is gone.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pings) = &mut self.pings else {
            return Poll::Pending;
        };
        loop {
            if self.asked
                && let Poll::Ready(pong) = pings.poll_pong(cx)
            {
                if pong.is_err() {
                    return Poll::Ready(());
                }
                self.asked = false;
                self.next.as_mut().reset(Instant::now() + PING_INTERVAL);
            }
            ready!(self.next.as_mut().poll(cx));
            if self.asked || pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.asked = true;
            self.next.as_mut().reset(Instant::now() + PING_TIMEOUT);
        }
    }
}
