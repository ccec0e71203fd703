//! Processors shared between namespaces: what one tenant sends holds up his own reviews, not those of others.
//!
//! A namespace has half of the processors at once, one at least, and a short queue for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reviews of one namespace that are judged or wait for it.
const QUEUE: usize = 16;

/// The processors.
#[derive(Debug)]
pub(super) struct Fair {
    all: Arc<Semaphore>,
    share: usize,
    namespaces: Mutex<HashMap<String, Share>>,
}

#[derive(Debug)]
struct Share {
    places: Arc<Semaphore>,
    open: usize,
}

/// Too many reviews of one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{QUEUE} changes in this namespace are being judged: try again in a moment")]
pub(super) struct Full;

/// A place in the queue of a namespace, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    fair: Arc<Fair>,
    namespace: String,
    places: Arc<Semaphore>,
}

/// A processor, until it is dropped.
#[derive(Debug)]
pub(super) struct Processor {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
    _place: Place,
}

impl Fair {
    pub(super) fn new(processors: usize) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(processors)),
            share: (processors / 2).max(1),
            namespaces: Mutex::default(),
        })
    }

    /// Queues for a processor on behalf of `namespace`.
    pub(super) fn place(self: &Arc<Self>, namespace: &str) -> Result<Place, Full> {
        let mut namespaces = self.namespaces();
        let share = namespaces
            .entry(namespace.to_owned())
            .or_insert_with(|| Share {
                places: Arc::new(Semaphore::new(self.share)),
                open: 0,
            });
        if share.open >= QUEUE {
            return Err(Full);
        }
        share.open += 1;
        Ok(Place {
            fair: Arc::clone(self),
            namespace: namespace.to_owned(),
            places: Arc::clone(&share.places),
        })
    }

    fn namespaces(&self) -> MutexGuard<'_, HashMap<String, Share>> {
        self.namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for a processor; `None` when there will be none.
    pub(super) async fn processor(self) -> Option<Processor> {
        // First the own share: whoever waits for it must not hold what others could use.
        let own = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.fair.all).acquire_owned().await.ok()?;
        Some(Processor {
            _own: own,
            _all: all,
            _place: self,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut namespaces = self.fair.namespaces();
        if let Some(share) = namespaces.get_mut(&self.namespace) {
            share.open = share.open.saturating_sub(1);
            if share.open == 0 {
                namespaces.remove(&self.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_namespace_has_half_of_the_processors_and_a_short_queue() {
        let fair = Fair::new(4);
        let soon = Duration::from_secs(1);
        let take = |namespace: &str| {
            let place = fair.place(namespace);
            async move { tokio::time::timeout(soon, place.unwrap().processor()).await }
        };
        let greedy = [take("evil").await, take("evil").await];
        assert!(greedy.iter().all(Result::is_ok));
        assert!(take("evil").await.is_err(), "half is taken");
        let queued: Vec<Place> = (2..QUEUE).map(|_| fair.place("evil").unwrap()).collect();
        assert_eq!(fair.place("evil").unwrap_err(), Full);
        let others = [take("shop").await, take("bank").await];
        assert!(others.iter().all(Result::is_ok));
        assert!(take("mail").await.is_err(), "all are taken");
        drop((queued, greedy));
        assert!(take("evil").await.is_ok());
        drop(others);
        assert!(fair.namespaces().is_empty(), "nothing is left behind");
    }
}
