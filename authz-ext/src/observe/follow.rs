//! Followers: whoever wants to see decisions as they happen.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use portcullis_policy::explain::Explanation;
use portcullis_policy::request::Request;
use portcullis_policy::snapshot::Snapshot;
use tokio::sync::mpsc;

use super::event::DecisionEvent;

/// Events that wait for one follower; more are lost to it.
const WAITING: usize = 1024;
/// Followers at once.
const FOLLOWERS: usize = 16;

/// Which decisions a follower wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only denials.
    pub denied: bool,
    /// With what is needed to explain each.
    pub explain: bool,
}

/// A request and the snapshot that decided it.
#[derive(Debug)]
pub struct Subject {
    /// What decided.
    pub snapshot: Arc<Snapshot>,
    /// The request, as the policies saw it.
    pub request: Request,
}

impl Subject {
    /// Why it was decided as it was. Takes a while: not for the thread of a request.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        self.snapshot.explain(&self.request, false)
    }
}

/// One decision as a follower gets it.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The decision.
    pub event: Arc<DecisionEvent>,
    /// What it was about, for followers that explain.
    pub subject: Option<Arc<Subject>>,
}

/// There are as many followers as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{FOLLOWERS} others follow decisions already; try again when one has left")]
pub struct TooManyFollowers;

/// Everybody who follows.
#[derive(Debug, Default)]
pub(super) struct Followers {
    /// How many want every decision, and how many want denials only: what a request looks at.
    of_all: AtomicUsize,
    of_denials: AtomicUsize,
    list: RwLock<Vec<Arc<Queue>>>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Queue {
    filter: Filter,
    sender: mpsc::Sender<Followed>,
    lost: AtomicU64,
}

impl Followers {
    pub(super) fn wants(&self, denied: bool) -> bool {
        self.of_all.load(Ordering::Relaxed) > 0
            || (denied && self.of_denials.load(Ordering::Relaxed) > 0)
    }

    pub(super) fn offer(&self, event: &Arc<DecisionEvent>, subject: Option<Subject>) {
        let denied = !event.decision.is_allow();
        let subject = subject.map(Arc::new);
        let mut gone = false;
        for queue in self.read().iter() {
            if queue.filter.denied && !denied {
                continue;
            }
            let followed = Followed {
                event: Arc::clone(event),
                subject: subject.clone().filter(|_| queue.filter.explain),
            };
            match queue.sender.try_send(followed) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => {
                    queue.lost.fetch_add(1, Ordering::Relaxed);
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                Err(mpsc::error::TrySendError::Closed(_)) => gone = true,
            }
        }
        if gone {
            self.change(|list| list.retain(|queue| !queue.sender.is_closed()));
        }
    }

    pub(super) fn subscribe(&self, filter: Filter) -> Result<Follow, TooManyFollowers> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let queue = Arc::new(Queue {
            filter,
            sender,
            lost: AtomicU64::new(0),
        });
        let joined = self.change(|list| {
            list.retain(|queue| !queue.sender.is_closed());
            let room = list.len() < FOLLOWERS;
            if room {
                list.push(Arc::clone(&queue));
            }
            room
        });
        match joined {
            true => Ok(Follow { receiver, queue }),
            false => Err(TooManyFollowers),
        }
    }

    /// How many follow.
    pub(super) fn len(&self) -> usize {
        let list = self.read();
        list.iter().filter(|q| !q.sender.is_closed()).count()
    }

    /// Events that were lost to followers that did not keep up.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Queue>>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<Queue>>) -> T) -> T {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut list);
        let of_denials = list.iter().filter(|queue| queue.filter.denied).count();
        self.of_denials.store(of_denials, Ordering::Relaxed);
        let of_all = list.len().saturating_sub(of_denials);
        self.of_all.store(of_all, Ordering::Relaxed);
        changed
    }
}

/// A follower's end. Dropped, it follows no more.
#[derive(Debug)]
pub struct Follow {
    receiver: mpsc::Receiver<Followed>,
    queue: Arc<Queue>,
}

impl Follow {
    /// The next decision.
    pub async fn next(&mut self) -> Option<Followed> {
        self.receiver.recv().await
    }

    /// How many decisions were lost since this was last asked: they came faster than they were taken.
    #[must_use]
    pub fn take_lost(&mut self) -> u64 {
        self.queue.lost.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use portcullis_policy::decision::{Decision, Reason};
    use tonic::codegen::http::HeaderMap;

    use super::super::Decided;
    use super::*;

    fn event(reason: Reason) -> Arc<DecisionEvent> {
        let decided = Decided {
            listener: &Arc::from("l"),
            headers: &HeaderMap::new(),
            request: None,
            snapshot: None,
            decision: &Decision::closed(reason, "r"),
            error: None,
            started: Instant::now(),
        };
        Arc::new(DecisionEvent::of(
            &decided,
            None,
            Duration::from_micros(7),
            &super::super::fields::Options::default(),
        ))
    }

    #[tokio::test]
    async fn a_follower_gets_what_it_asked_for_and_its_losses_are_counted() {
        let followers = Followers::default();
        assert!(!followers.wants(true));
        let denied = Filter {
            denied: true,
            explain: false,
        };
        let mut one = followers.subscribe(denied).unwrap();
        assert!(followers.wants(true) && !followers.wants(false));
        let mut all = followers.subscribe(Filter::default()).unwrap();
        assert!(followers.wants(false));
        followers.offer(&event(Reason::AllowedBy), None);
        followers.offer(&event(Reason::DeniedBy), None);
        let next = one.next().await.unwrap();
        assert_eq!(next.event.decision.reason, Reason::DeniedBy);
        for reason in [Reason::AllowedBy, Reason::DeniedBy] {
            assert_eq!(all.next().await.unwrap().event.decision.reason, reason);
        }
        // Nobody takes anything: the queue is full, and no more.
        for _ in 0..WAITING + 5 {
            followers.offer(&event(Reason::DeniedBy), None);
        }
        assert_eq!((one.take_lost(), one.take_lost()), (5, 0));
        assert_eq!(followers.lost(), 10);
    }

    #[tokio::test]
    async fn followers_are_bounded_and_make_room_when_they_leave() {
        let followers = Followers::default();
        let mut all: Vec<Follow> = (0..FOLLOWERS)
            .map(|_| followers.subscribe(Filter::default()).unwrap())
            .collect();
        let refused = followers.subscribe(Filter::default());
        assert_eq!(refused.unwrap_err(), TooManyFollowers);
        all.pop();
        assert!(followers.subscribe(Filter::default()).is_ok());
        all.clear();
        followers.offer(&event(Reason::DeniedBy), None);
        assert_eq!(followers.len(), 0);
        assert!(!followers.wants(true));
    }
}
