//! A place for one message: what a reader has not taken yet is replaced by what is newer.
//!
//! Every message of the Workload API is the full state, so a slow reader misses nothing, and what waits for
//! it never grows.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio_stream::Stream;
use tonic::Status;

/// A pair of ends of a new place.
pub(crate) fn latest<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        slot: Mutex::new(Slot {
            waiting: None,
            in_hand: false,
            reader: None,
            finished: false,
            abandoned: false,
        }),
        changed: Notify::new(),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The writer's end; dropping it ends the stream after what waits.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// The reader's end.
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// Told by the transport that it has passed on all that it took.
pub(crate) trait Flushed: Send + Sync {
    /// Everything taken so far is on its way.
    fn flushed(&self);
}

struct Shared<T> {
    slot: Mutex<Slot<T>>,
    changed: Notify,
}

struct Slot<T> {
    waiting: Option<Result<T, Status>>,
    /// Taken by the transport, which has not found room for it yet.
    in_hand: bool,
    reader: Option<Waker>,
    finished: bool,
    abandoned: bool,
}

impl<T> Sender<T> {
    /// Puts `message` in the place of whatever waits.
    pub(crate) fn put(&self, message: Result<T, Status>) {
        let reader = {
            let mut slot = self.0.lock();
            slot.waiting = Some(message);
            slot.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Waits until everything put has been passed on; for ever, once the reader is gone.
    pub(crate) async fn drained(&self) {
        self.until(|slot| !slot.in_hand && slot.waiting.is_none() && !slot.abandoned)
            .await;
    }

    /// Waits until the reader is gone.
    pub(crate) async fn abandoned(&self) {
        self.until(|slot| slot.abandoned).await;
    }

    async fn until(&self, reached: impl Fn(&Slot<T>) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change in between is not missed.
            changed.as_mut().enable();
            if reached(&self.0.lock()) {
                return;
            }
            changed.await;
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let reader = {
            let mut slot = self.0.lock();
            slot.finished = true;
            slot.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T: Send + 'static> Receiver<T> {
    /// Who is to be told that the transport has passed on what it took.
    pub(crate) fn on_flush(&self) -> Arc<dyn Flushed> {
        Arc::clone(&self.0) as Arc<dyn Flushed>
    }
}

impl<T> Stream for Receiver<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut slot = self.0.lock();
        if let Some(message) = slot.waiting.take() {
            slot.in_hand = true;
            return Poll::Ready(Some(message));
        }
        if slot.finished {
            return Poll::Ready(None);
        }
        slot.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let unread = {
            let mut slot = self.0.lock();
            slot.abandoned = true;
            slot.waiting.take()
        };
        drop(unread);
        self.0.changed.notify_waiters();
    }
}

impl<T: Send> Flushed for Shared<T> {
    fn flushed(&self) {
        let was_in_hand = std::mem::take(&mut self.lock().in_hand);
        if was_in_hand {
            self.changed.notify_waiters();
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        // Every change is one assignment: a thread that panicked left nothing half done.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_stream::StreamExt as _;

    use super::*;

    async fn is_pending(future: impl Future<Output = ()>) -> bool {
        tokio::time::timeout(Duration::from_millis(10), future)
            .await
            .is_err()
    }

    #[tokio::test]
    async fn a_slow_reader_finds_the_newest_only() {
        let (sender, mut receiver) = latest();
        for number in 0..1000 {
            sender.put(Ok(number));
        }
        assert_eq!(receiver.next().await.unwrap().unwrap(), 999);
        drop(sender);
        assert!(receiver.next().await.is_none());
    }

    #[tokio::test]
    async fn is_drained_when_the_transport_says_so() {
        let (sender, mut receiver) = latest();
        sender.drained().await;
        sender.put(Ok(1));
        assert!(is_pending(sender.drained()).await, "nobody took it");
        let flush = receiver.on_flush();
        receiver.next().await.unwrap().unwrap();
        assert!(is_pending(sender.drained()).await, "it is in hand");
        flush.flushed();
        sender.drained().await;
        sender.put(Ok(2));
        receiver.next().await.unwrap().unwrap();
        drop(receiver);
        flush.flushed();
        assert!(is_pending(sender.drained()).await, "nobody has it");
        sender.abandoned().await;
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_by_a_message_and_by_the_end() {
        let (sender, mut receiver) = latest();
        let reading = tokio::spawn(async move {
            let first = receiver.next().await;
            (first.unwrap().unwrap(), receiver.next().await.is_none())
        });
        tokio::task::yield_now().await;
        sender.put(Ok("x"));
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(reading.await.unwrap(), ("x", true));
    }
}
