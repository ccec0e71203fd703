//! What a server takes on at once, and what it counts beyond.
//!
//! A check over a limit is denied in the proxy's own terms, at once and with a reason: a gRPC error would
//! leave it to the proxy's failure mode, and waiting would pass the overload on.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use portcullis_policy::decision::Reason;
use tokio::time::Instant;

/// Bounds of a server, over all its listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most checks that are read and decided at once; one more is denied as `overloaded`.
    pub concurrent_checks: usize,
    /// Most open connections; one more is closed as soon as it is accepted.
    pub connections: usize,
    /// Longest time for one check, from its headers to its answer; then it is denied as `deadline`.
    pub deadline: Duration,
    /// Most headers (of gRPC: metadata) of one check.
    pub headers: usize,
    /// Longest headers of one check, in bytes, names and values.
    pub header_bytes: usize,
    /// Longest time for a TLS handshake, for the headers of a request, for a client to take an answer.
    pub header_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent_checks: 1024,
            connections: 16_384,
            deadline: Duration::from_secs(10),
            headers: 256,
            header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(10),
        }
    }
}

/// What happened since the start; to be read at any time, by anybody.
#[derive(Debug, Default)]
pub struct Counters {
    /// Checks being read or decided now.
    pub checks_in_flight: AtomicU64,
    /// Checks denied as `overloaded`.
    pub overloaded: AtomicU64,
    /// Checks denied as `deadline`.
    pub deadline: AtomicU64,
    /// Connections open now, those in their TLS handshake included.
    pub connections: AtomicU64,
    /// Connections closed because there were too many.
    pub connections_refused: AtomicU64,
    /// TLS handshakes that failed, refused peers included.
    pub handshakes_failed: AtomicU64,
    /// Peers whose certificate is good, but not on the listener's list.
    pub peers_refused: AtomicU64,
    /// Certificates of ours that were put in force, without those at the start.
    pub certificates_swapped: AtomicU64,
    /// Certificates of ours that were refused, the ones before them staying in force.
    pub certificates_refused: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One more of something that is open now, until it is dropped.
#[derive(Debug)]
pub(crate) struct Open {
    counters: Arc<Counters>,
    gauge: fn(&Counters) -> &AtomicU64,
}

impl Open {
    /// `None` when there are `most` already.
    fn new(
        counters: &Arc<Counters>,
        gauge: fn(&Counters) -> &AtomicU64,
        most: usize,
    ) -> Option<Self> {
        let before = gauge(counters).fetch_add(1, Ordering::Relaxed);
        let open = Self {
            counters: Arc::clone(counters),
            gauge,
        };
        // Dropped, it takes back what it added.
        (before < u64::try_from(most).unwrap_or(u64::MAX)).then_some(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.gauge)(&self.counters).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a check was not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrun {
    /// Too many at once, or one that is too large.
    Overloaded,
    /// Not in time.
    Deadline,
}

impl Overrun {
    /// The reason of the denial.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Overloaded => Reason::Overloaded,
            Self::Deadline => Reason::Deadline,
        }
    }
}

/// The limits of a running server, and its counters.
#[derive(Clone, Debug, Default)]
pub struct Load {
    limits: Limits,
    counters: Arc<Counters>,
}

impl Load {
    /// Nothing is open yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            counters: Arc::default(),
        }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// A check over a limit, counted.
    pub(crate) fn over(&self, overrun: Overrun) -> Overrun {
        Counters::count(match overrun {
            Overrun::Overloaded => &self.counters.overloaded,
            Overrun::Deadline => &self.counters.deadline,
        });
        overrun
    }

    /// Runs one check that was `received` at some time and that the client gives up after
    /// `client_timeout`, within the limits.
    ///
    /// It counts as running from the first time that it gets a thread: a burst that is answered as fast
    /// as threads come free is no overload, and what waited too long for one is denied without being read.
    pub(crate) async fn run<T>(
        &self,
        received: Instant,
        client_timeout: Option<Duration>,
        check: impl Future<Output = T>,
    ) -> Result<T, Overrun> {
        let most = self.limits.concurrent_checks;
        let Some(_open) = Open::new(&self.counters, |c| &c.checks_in_flight, most) else {
            return Err(self.over(Overrun::Overloaded));
        };
        // A little before the client gives up: an answer that comes later is none.
        let client = client_timeout.map(|timeout| timeout - timeout / 8);
        let limit = client.map_or(self.limits.deadline, |client| {
            client.min(self.limits.deadline)
        });
        if received.elapsed() >= limit {
            return Err(self.over(Overrun::Deadline));
        }
        let mut check = pin!(check);
        // Most checks wait for nothing, and need no clock.
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(check.as_mut().poll(cx))).await {
            return Ok(done);
        }
        tokio::time::timeout_at(received + limit, check)
            .await
            .map_err(|_| self.over(Overrun::Deadline))
    }

    /// Room for one more connection; `None`, counted, when there is none.
    pub(crate) fn connection(&self) -> Option<Open> {
        let open = Open::new(&self.counters, |c| &c.connections, self.limits.connections);
        if open.is_none() {
            Counters::count(&self.counters.connections_refused);
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn load(change: impl FnOnce(&mut Limits)) -> Load {
        let mut limits = Limits::default();
        change(&mut limits);
        Load::new(limits)
    }

    fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn one_check_too_many_is_refused_at_once_and_room_comes_back() {
        let load = load(|limits| limits.concurrent_checks = 1);
        let first = load.run(Instant::now(), None, pending::<()>());
        tokio::pin!(first);
        assert!(futures_poll(first.as_mut()).await.is_none());
        let second = load.run(Instant::now(), None, async {}).await;
        assert_eq!(second, Err(Overrun::Overloaded));
        assert_eq!(first.await, Err(Overrun::Deadline));
        assert_eq!(load.run(Instant::now(), None, async {}).await, Ok(()));
        let counters = load.counters();
        assert_eq!(read(&counters.overloaded), 1);
        assert_eq!(read(&counters.deadline), 1);
        assert_eq!(read(&counters.checks_in_flight), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_is_answered_before_it_gives_up() {
        let load = Load::default();
        let start = Instant::now();
        let client = Some(Duration::from_millis(200));
        let answer = load.run(start, client, pending::<()>()).await;
        assert_eq!(answer, Err(Overrun::Deadline));
        let took = start.elapsed();
        assert!(took > Duration::from_millis(100) && took < Duration::from_millis(200));
        // One that waited too long for its turn is not even begun.
        let late = load.run(start, client, async { panic!("begun") }).await;
        assert_eq!(late, Err(Overrun::Deadline));
    }

    #[test]
    fn connections_are_limited_and_given_back() {
        let load = load(|limits| limits.connections = 1);
        let first = load.connection();
        assert!(first.is_some() && load.connection().is_none());
        drop(first);
        assert!(load.connection().is_some());
        assert_eq!(read(&load.counters().connections_refused), 1);
        assert_eq!(read(&load.counters().connections), 0);
    }

    async fn futures_poll<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
                std::task::Poll::Ready(done) => Some(done),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
