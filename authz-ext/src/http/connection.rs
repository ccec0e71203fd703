//! A connection that cannot be held open for nothing: every wait for the other side has an end.
//!
//! ```text
//! idle --first octet--> head --request read--> busy --answer given--> idle
//!  \_ idle_timeout       \_ header_timeout      \_ a write that does not go on: header_timeout
//! ```

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Limits;

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
/// Octets of the next request arrived while one was answered.
const BUSY_AHEAD: u8 = 3;

/// Where a connection is, told by those who read and answer its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phase(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    phase: AtomicU8,
    /// Requests so far: the wait for one is not that for another.
    requests: AtomicU32,
}

impl Phase {
    /// A whole request was read.
    pub(crate) fn request(&self) {
        self.0.phase.store(BUSY, Ordering::Relaxed);
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Its answer was given.
    pub(crate) fn answered(&self) {
        // A pipelined request may be half here: it has the time of a half one.
        let ahead = self.0.phase.load(Ordering::Relaxed) == BUSY_AHEAD;
        self.0
            .phase
            .store(if ahead { HEAD } else { IDLE }, Ordering::Relaxed);
    }

    fn received(&self) {
        match self.0.phase.load(Ordering::Relaxed) {
            IDLE => self.0.phase.store(HEAD, Ordering::Relaxed),
            BUSY => self.0.phase.store(BUSY_AHEAD, Ordering::Relaxed),
            _ => {}
        }
    }
}

/// The connection with its clocks.
#[derive(Debug)]
pub(crate) struct Timed<C> {
    inner: C,
    phase: Phase,
    limits: Limits,
    read: Clock,
    write: Clock,
}

impl<C> Timed<C> {
    pub(crate) fn new(inner: C, phase: Phase, limits: Limits) -> Self {
        Self {
            inner,
            phase,
            limits,
            read: Clock::default(),
            write: Clock::default(),
        }
    }
}

/// One wait at a time.
#[derive(Debug, Default)]
struct Clock {
    /// Goes off at the deadline or before: it is not set anew for each request, which costs more than
    /// to find out now and then that it is too early.
    sleep: Option<Pin<Box<Sleep>>>,
    /// What is waited for, of which request, and until when; a new wait begins when it changes.
    waiting_for: Option<(u8, u32)>,
    deadline: Option<Instant>,
}

impl Clock {
    /// Ready when the wait for `what` has taken `limit`.
    fn poll(&mut self, cx: &mut Context<'_>, what: (u8, u32), limit: Duration) -> Poll<()> {
        let deadline = match self.deadline {
            Some(deadline) if self.waiting_for == Some(what) => deadline,
            _ => Instant::now() + limit,
        };
        self.waiting_for = Some(what);
        self.deadline = Some(deadline);
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }

    fn stop(&mut self) {
        self.waiting_for = None;
    }
}

/// Why a connection ended: a request began, and its headers did not arrive in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the headers took too long")]
pub(crate) struct Late;

impl Late {
    /// Whether it is behind `error`.
    pub(super) fn is_in(error: &hyper::Error) -> bool {
        let cause = std::error::Error::source(error);
        let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
        cause
            .and_then(io::Error::get_ref)
            .is_some_and(|inner| inner.is::<Self>())
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<C: AsyncRead + Unpin> AsyncRead for Timed<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.inner).poll_read(cx, buffer) {
            if buffer.filled().len() > before {
                this.phase.received();
            }
            return Poll::Ready(read);
        }
        let (what, limit) = match this.phase.0.phase.load(Ordering::Relaxed) {
            IDLE => (IDLE, this.limits.idle_timeout),
            HEAD => (HEAD, this.limits.header_timeout),
            _ => {
                this.read.stop();
                return Poll::Pending;
            }
        };
        let request = this.phase.0.requests.load(Ordering::Relaxed);
        match this.read.poll(cx, (what, request), limit) {
            Poll::Pending => Poll::Pending,
            // An idle connection ends as if its peer had closed it.
            Poll::Ready(()) if what == IDLE => Poll::Ready(Ok(())),
            Poll::Ready(()) => {
                let late = io::Error::new(io::ErrorKind::TimedOut, Late);
                Poll::Ready(Err(late))
            }
        }
    }
}

impl<C: AsyncWrite + Unpin> Timed<C> {
    fn limit_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(done) => {
                self.write.stop();
                Poll::Ready(done)
            }
            Poll::Pending => self
                .write
                .poll(cx, (BUSY, 0), self.limits.header_timeout)
                .map(|()| Err(timed_out("the answer was not taken"))),
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Timed<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.limit_write(cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_flush(cx);
        this.limit_write(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.limit_write(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
        this.limit_write(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_request_has_its_own_time() {
        let (mut client, server) = tokio::io::duplex(1024);
        let phase = Phase::default();
        let mut timed = Timed::new(server, phase.clone(), Limits::default());
        let mut octets = [0; 4];
        // Every head comes in two parts, seconds apart; each is well in time.
        for _ in 0..20 {
            client.write_all(b"head").await.unwrap();
            timed.read_exact(&mut octets).await.unwrap();
            let rest = async {
                tokio::time::sleep(Duration::from_secs(6)).await;
                client.write_all(b"rest").await
            };
            let (read, written) = tokio::join!(timed.read_exact(&mut octets), rest);
            written.unwrap();
            read.expect("no request is late");
            phase.request();
            phase.answered();
        }
        // One that is late is late, though octets come now and then.
        client.write_all(b"head").await.unwrap();
        timed.read_exact(&mut octets).await.unwrap();
        let drip = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                let _ = client.write_all(b"a").await;
            }
        };
        let read = async {
            loop {
                match timed.read_u8().await {
                    Ok(_) => {}
                    Err(error) => return error.kind(),
                }
            }
        };
        let (kind, ()) = tokio::join!(read, drip);
        assert_eq!(kind, io::ErrorKind::TimedOut);
    }
}
