//! Which bundle every live stream has been given: published before used.
//!
//! A prepared authority signs only once every live stream has the bundle that holds it. A stream
//! opens a [`Delivery`], tells it each bundle sequence that its peer has (SDS: acknowledged;
//! Workload API: written), and drops it at its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// Rest between two looks at all streams.
const COUNTED_EVERY: Duration = Duration::from_millis(2);

/// Every live stream and the newest sequence of our own bundle that it was given.
#[derive(Clone, Debug, Default)]
pub struct Deliveries(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    streams: Mutex<Streams>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    delivered: HashMap<u64, u64>,
}

/// One live stream; dropping it means that the stream is over.
#[derive(Debug)]
pub struct Delivery {
    shared: Arc<Shared>,
    stream: u64,
}

impl Deliveries {
    /// Registers a stream that has been given nothing yet.
    #[must_use]
    pub fn open(&self) -> Delivery {
        let mut streams = self.0.lock();
        let stream = streams.next;
        streams.next += 1;
        streams.delivered.insert(stream, 0);
        Delivery {
            shared: Arc::clone(&self.0),
            stream,
        }
    }

    /// How many streams are live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.0.lock().delivered.len()
    }

    /// How many live streams have not been given `sequence` or a later one.
    #[must_use]
    pub fn behind(&self, sequence: u64) -> usize {
        let streams = self.0.lock();
        streams
            .delivered
            .values()
            .filter(|given| **given < sequence)
            .count()
    }

    /// Waits until no live stream is behind `sequence`. There is no time limit here: the caller has one.
    pub async fn reached(&self, sequence: u64) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change in between is not missed.
            changed.as_mut().enable();
            if self.behind(sequence) == 0 {
                return;
            }
            changed.await;
            // Thousands of streams say so one by one: they are counted now and then, not each time.
            tokio::time::sleep(COUNTED_EVERY).await;
        }
    }
}

impl Delivery {
    /// The peer of this stream has the bundle with `sequence`.
    pub fn delivered(&self, sequence: u64) {
        if let Some(given) = self.shared.lock().delivered.get_mut(&self.stream) {
            *given = sequence.max(*given);
        }
        self.shared.changed.notify_waiters();
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.shared.lock().delivered.remove(&self.stream);
        self.shared.changed.notify_waiters();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Streams> {
        // Every change is one assignment: a thread that panicked left nothing half done.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_every_live_stream_and_for_no_dead_one() {
        let deliveries = Deliveries::default();
        deliveries.reached(9).await;
        let (slow, fast) = (deliveries.open(), deliveries.open());
        fast.delivered(2);
        assert_eq!((deliveries.live(), deliveries.behind(2)), (2, 1));
        let waiting = deliveries.clone();
        let mut reached = tokio::spawn(async move { waiting.reached(2).await });
        assert!(
            tokio::time::timeout(Duration::from_millis(20), &mut reached)
                .await
                .is_err()
        );
        drop(slow);
        tokio::time::timeout(Duration::from_secs(5), reached)
            .await
            .unwrap()
            .unwrap();
        fast.delivered(1);
        assert_eq!(deliveries.behind(2), 0, "a sequence never goes back");
    }
}
