//! How long a connection may be open for nothing: every wait for the other side has an end.
//!
//! ```text
//! accepted -> (handshake) -> silent --first request--> busy --all answered--> idle --request--> busy ...
//!               \_ header_timeout \_ header_timeout        \_ deadline          \_ idle_timeout
//! ```
//!
//! Whatever is not a whole request counts as silence: half a preface, a head that drips, an answer that is not read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What happened on one connection.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Requests that are not answered.
    open: usize,
    /// How long nothing may happen from `since` on.
    patience: Duration,
    since: Instant,
    /// Once there was a request.
    idle: Duration,
}

/// A request, until it is answered or nobody waits for the answer.
#[derive(Debug)]
pub(super) struct Busy(Activity);

impl Activity {
    /// The first request is to be there within `first`, another within `idle` of the last one's answer.
    pub(super) fn new(first: Duration, idle: Duration) -> Self {
        Self(Arc::new(Mutex::new(State {
            open: 0,
            patience: first,
            since: Instant::now(),
            idle,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come.
    pub(super) fn request(&self) -> Busy {
        self.state().open += 1;
        Busy(self.clone())
    }

    /// Returns when nothing has happened for too long.
    pub(super) async fn ended(&self) {
        loop {
            let until = {
                let state = self.state();
                match state.open {
                    0 => state.since + state.patience,
                    _ => Instant::now() + state.idle,
                }
            };
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open = state.open.saturating_sub(1);
        state.since = Instant::now();
        state.patience = state.idle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_has_an_end_and_work_has_none() {
        let (first, idle) = (Duration::from_secs(10), Duration::from_secs(300));
        let started = Instant::now();
        Activity::new(first, idle).ended().await;
        assert_eq!(started.elapsed().as_secs(), 10);

        let started = Instant::now();
        let activity = Activity::new(first, idle);
        let one = activity.request();
        let working = async {
            tokio::time::sleep(idle * 3).await;
            drop(one);
            tokio::time::sleep(idle / 2).await;
            drop(activity.request());
        };
        tokio::join!(activity.ended(), working);
        let wanted = idle * 3 + idle / 2 + idle;
        assert_eq!(started.elapsed().as_secs(), wanted.as_secs());
    }
}
