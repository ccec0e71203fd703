//! One kind in one place, followed for ever: found, listed, watched, and taken up again after whatever breaks.
//!
//! ```text
//! is it installed? -> list -> watch -> (gap) -> list ...
//!                       |        \-> Arrival::Applied, Arrival::Deleted
//!                       \-> Arrival::Listed, when the list is whole
//! ```
//!
//! Until a new list is whole, what the last one said stays in force: a list that breaks off takes nothing away, and what was
//! removed does not come back. Every list but the first is a consistent read, never one from a cache that lags behind.

mod discover;
mod failure;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kube::api::{Api, ListParams};
use kube::core::{ApiResource, DynamicResourceScope};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource};
use portcullis_policy::live::ObjectKey;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _};

use self::discover::{Found, discover};
use self::failure::Failure;
use crate::kind::FirstList;
use crate::object::Object;
use crate::state::{Board, Counters, KindState, Place};
use crate::trim::{self, Trimmed, trim};

/// A watch is taken up again after this many seconds: a connection that died in silence is noticed soon after.
const WATCH: u32 = 120;
/// A watch that has said nothing wrong for so long is one that works: longer than it takes to connect.
const QUIET: Duration = Duration::from_secs(12);
/// A first list that comes as a stream has stalled when nothing came for so long: some servers never say that it is whole.
const STALLED: Duration = Duration::from_secs(30);
/// The first and the longest wait after a failure.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// A failure after so long is a new one.
const FORGET: Duration = Duration::from_secs(60);
/// A kind that was there and is not any more is believed to be gone after so long: an API server that starts does not know
/// every kind at once.
const GONE: Duration = Duration::from_secs(30);

/// What came from the API server.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub place: Place,
    pub what: What,
    pub at: Instant,
}

/// What is new.
#[derive(Debug)]
pub(crate) enum What {
    /// These are all there are.
    Listed(Vec<Trimmed>),
    /// One is new or changed.
    Applied(Trimmed),
    /// One is gone.
    Deleted(ObjectKey),
}

/// What following needs.
#[derive(Clone)]
pub(crate) struct Follower {
    pub client: Client,
    pub board: Arc<Board>,
    pub arrivals: mpsc::Sender<Arrival>,
    /// How often a kind that is not installed, or may not be read, is looked at.
    pub look: Duration,
    /// The server cannot stream lists.
    pub no_streams: Arc<AtomicBool>,
}

/// Why a watch ended.
enum Ended {
    /// Its lists are to be made anew, page by page.
    Again,
    /// It may not be installed any more.
    Missing,
    /// Nobody wants to hear of it.
    Unwanted,
}

impl Follower {
    /// Follows `place`; returns when nobody wants to hear of it any more.
    pub(crate) async fn run(self, place: Place) {
        let kind = place.kind();
        let mut wait = Wait::default();
        let mut listed = false;
        let mut missing: Option<Instant> = None;
        loop {
            let found = discover(&self.client, kind, !listed).await;
            let version = match found {
                Ok(Found::Version(version)) => version,
                Ok(Found::Absent) => {
                    let since = *missing.get_or_insert_with(Instant::now);
                    if listed && since.elapsed() < GONE {
                        let why = "the API server does not serve it any more".to_owned();
                        self.say(&place, KindState::Retrying(why));
                    } else if self.absent(&place).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(self.look).await;
                    continue;
                }
                Err(failure) => {
                    self.failed(&place, failure, &mut wait).await;
                    continue;
                }
            };
            missing = None;
            let resource = kind.api_resource(version);
            let ended = if kind.metadata_only {
                let api = api::<Object<true>>(&self.client, &place, &resource);
                self.watch(&place, version, api, &mut listed, &mut wait)
                    .await
            } else {
                let api = api::<Object<false>>(&self.client, &place, &resource);
                self.watch(&place, version, api, &mut listed, &mut wait)
                    .await
            };
            match ended {
                Ended::Again => {}
                Ended::Missing => tokio::time::sleep(SHORTEST).await,
                Ended::Unwanted => return,
            }
        }
    }

    /// There is none of it.
    async fn absent(&self, place: &Place) -> Result<(), ()> {
        if self.say(place, KindState::NotInstalled) {
            tracing::info!(
                kind = place.kind().resource(),
                "not installed in this cluster: it is off until it appears"
            );
            self.send(place, What::Listed(Vec::new())).await?;
        }
        Ok(())
    }

    /// Lists and watches until something asks for another beginning.
    async fn watch<const METADATA: bool>(
        &self,
        place: &Place,
        version: &str,
        api: Api<Object<METADATA>>,
        listed: &mut bool,
        wait: &mut Wait,
    ) -> Ended {
        let kind = place.kind();
        let streams = kind.first_list == FirstList::Streamed
            && !*listed
            && !self.no_streams.load(Ordering::Relaxed);
        // A stream is a watch: that a later list will be refused is to be known now.
        if streams && let Err(error) = api.list(&ListParams::default().limit(1)).await {
            let failure = Failure::of_request(error, "list");
            let is_missing = failure.is_missing();
            self.failed(place, failure, wait).await;
            return if is_missing {
                Ended::Missing
            } else {
                Ended::Again
            };
        }
        let mut config = watcher::Config::default().timeout(WATCH);
        config.field_selector = place
            .name
            .as_ref()
            .map(|name| format!("metadata.name={name}"));
        if streams {
            config = config.streaming_lists();
        }
        let mut events = pin!(watcher(api, config));
        let mut list: Option<Vec<Trimmed>> = None;
        let mut doubtful = false;
        loop {
            let limit = match (doubtful, streams && !*listed) {
                (true, _) => Some(QUIET),
                (false, true) => Some(STALLED),
                (false, false) => None,
            };
            let Some(event) = next(events.as_mut(), limit).await else {
                if streams && !*listed && !doubtful {
                    self.no_streams.store(true, Ordering::Relaxed);
                    return Ended::Again;
                }
                // It failed, and has not failed again.
                doubtful = false;
                if *listed && list.is_none() {
                    self.say(place, KindState::Following);
                }
                continue;
            };
            let sent = match event {
                Ok(Event::Init) => {
                    // A stream may come from a cache that lags: only the first list of all may.
                    if streams && *listed {
                        return Ended::Again;
                    }
                    list = Some(Vec::new());
                    Ok(())
                }
                Ok(Event::InitApply(object)) => {
                    self.heard();
                    if let Some(list) = &mut list {
                        list.push(trim(kind, version, object));
                    }
                    Ok(())
                }
                Ok(Event::InitDone) => {
                    self.heard();
                    doubtful = false;
                    let whole = list.take().unwrap_or_default();
                    Counters::count(&self.board.counters.lists, kind);
                    tracing::debug!(
                        kind = kind.resource(),
                        namespace = place.namespace,
                        objects = whole.len(),
                        "listed"
                    );
                    *listed = true;
                    self.say(place, KindState::Following);
                    self.send(place, What::Listed(whole)).await
                }
                Ok(Event::Apply(object)) => {
                    doubtful = false;
                    self.event(place);
                    let object = trim(kind, version, object);
                    self.send(place, What::Applied(object)).await
                }
                Ok(Event::Delete(object)) => {
                    doubtful = false;
                    self.event(place);
                    let key = trim::key(kind, object.meta());
                    self.send(place, What::Deleted(key)).await
                }
                Err(error) => {
                    doubtful = true;
                    let failure = Failure::of(error);
                    if streams && failure.refuses_streams() {
                        self.no_streams.store(true, Ordering::Relaxed);
                        return Ended::Again;
                    }
                    let (is_missing, lost) = (failure.is_missing(), failure.lost_an_event());
                    if failure.is_expired() {
                        Counters::count(&self.board.counters.expired, kind);
                    }
                    self.failed(place, failure, wait).await;
                    if is_missing {
                        return Ended::Missing;
                    }
                    if lost {
                        return Ended::Again;
                    }
                    Ok(())
                }
            };
            if sent.is_err() {
                return Ended::Unwanted;
            }
        }
    }

    /// Something did not go as it should: says so, and waits.
    async fn failed(&self, place: &Place, failure: Failure, wait: &mut Wait) {
        Counters::count(&self.board.counters.errors, place.kind());
        if failure.was_answered() {
            self.heard();
        }
        let forbidden = matches!(failure, Failure::Forbidden { .. });
        let state = failure.into_state();
        if self.say(place, state.clone()) {
            let resource = place.kind().resource();
            let namespace = place.namespace.as_deref();
            match &state {
                KindState::Forbidden { verb, message } => tracing::error!(
                    kind = resource,
                    namespace,
                    "cannot {verb} {resource}: {message}; grant it to our service account"
                ),
                KindState::Retrying(why) => {
                    tracing::warn!(kind = resource, namespace, why, "trying again");
                }
                _ => {}
            }
        }
        let pause = wait.next();
        tokio::time::sleep(if forbidden { self.look } else { pause }).await;
    }

    fn event(&self, place: &Place) {
        self.heard();
        Counters::count(&self.board.counters.events, place.kind());
        self.say(place, KindState::Following);
    }

    fn heard(&self) {
        self.board.counters.touch();
    }

    fn say(&self, place: &Place, state: KindState) -> bool {
        self.board.set(place, state)
    }

    async fn send(&self, place: &Place, what: What) -> Result<(), ()> {
        let arrival = Arrival {
            place: place.clone(),
            what,
            at: Instant::now(),
        };
        self.arrivals.send(arrival).await.map_err(|_| ())
    }
}

fn api<K>(client: &Client, place: &Place, resource: &ApiResource) -> Api<K>
where
    K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
{
    match (&place.namespace, place.kind().namespaced) {
        (Some(namespace), true) => Api::namespaced_with(client.clone(), namespace, resource),
        _ => Api::all_with(client.clone(), resource),
    }
}

/// The next event; `None` if there is none within `limit`.
async fn next<S: Stream>(mut events: Pin<&mut S>, limit: Option<Duration>) -> Option<S::Item> {
    let next = async {
        match events.next().await {
            Some(event) => event,
            // A watcher never ends.
            None => std::future::pending().await,
        }
    };
    match limit {
        None => Some(next.await),
        Some(limit) => within(limit, next).await,
    }
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

/// How long to wait after a failure: longer each time, and never all at the same moment.
#[derive(Debug, Default)]
struct Wait {
    last: Option<(Instant, Duration)>,
}

impl Wait {
    fn next(&mut self) -> Duration {
        let base = match self.last {
            Some((at, pause)) if at.elapsed() < FORGET => (pause * 2).min(LONGEST),
            _ => SHORTEST,
        };
        self.last = Some((Instant::now(), base));
        // Spread over half of it: every replica loses the same server at once.
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .subsec_nanos();
        base / 2 + base.mul_f64(f64::from(nanos % 1000) / 2000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let mut wait = Wait::default();
        let waits: Vec<Duration> = (0..20).map(|_| wait.next()).collect();
        assert!(waits[0] <= SHORTEST);
        assert!(waits[19] >= LONGEST / 2 && waits[19] <= LONGEST);
        // Spread is half of the wait: two doublings are above it.
        assert!(waits.windows(3).take(5).all(|w| w[2] > w[0]), "{waits:?}");
    }
}
