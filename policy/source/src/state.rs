//! What is known of the API server and of each kind: for readiness, metrics and people.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use portcullis_wire::metrics::Latency;
use tokio::sync::watch;

use crate::kind::{KINDS, Kind};

/// How it goes with one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum KindState {
    /// It is watched, and was listed whole.
    Following,
    /// The cluster does not have it: there are no such objects. It is looked for.
    NotInstalled,
    /// It was not listed yet.
    #[default]
    Starting,
    /// The API server cannot be had, or does not answer as it should; what was listed last is in force.
    Retrying(String),
    /// A role lacks a verb.
    Forbidden {
        /// `list` or `watch`.
        verb: String,
        /// What the API server said.
        message: String,
    },
}

impl KindState {
    /// One word, for labels.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::NotInstalled => "not_installed",
            Self::Starting => "starting",
            Self::Retrying(_) => "retrying",
            Self::Forbidden { .. } => "forbidden",
        }
    }

    /// Every word.
    pub const WORDS: [&'static str; 5] = [
        "following",
        "not_installed",
        "starting",
        "retrying",
        "forbidden",
    ];
}

/// One kind and how it goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindStatus {
    /// The kind.
    pub kind: &'static Kind,
    /// The worst state of the places where it is followed.
    pub state: KindState,
    /// It was listed whole, or is not installed, everywhere.
    pub synced: bool,
    /// Objects that are held.
    pub objects: usize,
}

impl fmt::Display for KindStatus {
    /// What is missing, for people: `cannot list pods: ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = self.kind.resource();
        match &self.state {
            KindState::Following => write!(f, "{resource} are followed"),
            KindState::NotInstalled => write!(f, "{resource} are not installed"),
            KindState::Starting => write!(f, "{resource} were not listed yet"),
            KindState::Retrying(why) => write!(f, "cannot follow {resource}: {why}"),
            KindState::Forbidden { verb, message } => {
                write!(f, "cannot {verb} {resource}: {message}")
            }
        }
    }
}

/// What a source has done, and how it is.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Every kind that is installed was listed whole once, and a snapshot was made of it.
    pub synced: bool,
    /// When the last snapshot was published.
    pub published: Option<SystemTime>,
    /// When the API server last answered.
    pub contact: Option<SystemTime>,
    /// Each kind.
    pub kinds: Vec<KindStatus>,
    /// Policies of which an earlier version is in force.
    pub kept: usize,
    /// Policies that were never good, and close what they select.
    pub closed: usize,
    /// Why there is no newer snapshot, or one by another mesh than was meant.
    pub failure: Option<String>,
    /// Whether this replica writes statuses; `None` where none are written.
    pub leads: Option<bool>,
}

impl Status {
    /// What keeps the source from being synced, a line each.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        if self.synced {
            return Vec::new();
        }
        let missing = self.kinds.iter().filter(|kind| !kind.synced);
        let missing = missing.map(ToString::to_string);
        missing.chain(self.failure.clone()).collect()
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Objects that came, by place in [`KINDS`].
    pub events: [AtomicU64; KINDS.len()],
    /// Whole lists that came, by place in [`KINDS`]: the first, and one after each gap.
    pub lists: [AtomicU64; KINDS.len()],
    /// Watches and lists that failed, by place in [`KINDS`].
    pub errors: [AtomicU64; KINDS.len()],
    /// Watches that could not go on because the server had forgotten what came since (410), by place in [`KINDS`].
    pub expired: [AtomicU64; KINDS.len()],
    /// From an object's arrival until a snapshot with it is in force.
    pub lag: Latency,
    /// Making one snapshot.
    pub compile: Latency,
    /// Statuses that were written.
    pub statuses: AtomicU64,
    /// Statuses that could not be written.
    pub statuses_failed: AtomicU64,
    /// Milliseconds since the epoch of the last answer; 0 for none.
    contact: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counters: &[AtomicU64; KINDS.len()], kind: &Kind) {
        let place = KINDS.iter().position(|other| std::ptr::eq(other, kind));
        if let Some(counter) = place.and_then(|place| counters.get(place)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The API server has just answered.
    pub(crate) fn touch(&self) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = since.unwrap_or_default().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.contact.store(millis, Ordering::Relaxed);
    }

    /// When the API server last answered.
    #[must_use]
    pub fn contact(&self) -> Option<SystemTime> {
        match self.contact.load(Ordering::Relaxed) {
            0 => None,
            millis => SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)),
        }
    }
}

/// A kind in one place: all of it, one namespace, or one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    /// In [`KINDS`].
    pub kind: usize,
    /// `None`: everywhere.
    pub namespace: Option<String>,
    /// `None`: every object.
    pub name: Option<String>,
}

impl Place {
    pub(crate) fn kind(&self) -> &'static Kind {
        // INVARIANT: places are made from `KINDS`; the first stands in for what cannot be.
        KINDS.get(self.kind).unwrap_or(&KINDS[0])
    }
}

/// The states of all places, and whoever follows them.
#[derive(Debug)]
pub(crate) struct Board {
    places: std::sync::Mutex<BTreeMap<Place, (KindState, bool)>>,
    status: watch::Sender<Status>,
    pub counters: Arc<Counters>,
}

impl Board {
    pub(crate) fn new(places: &[Place]) -> Self {
        let places = places
            .iter()
            .map(|place| (place.clone(), (KindState::Starting, false)));
        let board = Self {
            places: std::sync::Mutex::new(places.collect()),
            status: watch::Sender::new(Status::default()),
            counters: Arc::default(),
        };
        board.show();
        board
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Changes what is shown beside the kinds.
    pub(crate) fn modify(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    /// `place` is in `state`; returns false where it was already.
    pub(crate) fn set(&self, place: &Place, state: KindState) -> bool {
        let changed = self.change(place, |was| {
            let changed = was.0 != state;
            was.0 = state;
            changed
        });
        if changed {
            self.show();
        }
        changed
    }

    /// Everything at `place` is known, and what was known of it is in the store.
    pub(crate) fn synced(&self, place: &Place) {
        if self.change(place, |was| !std::mem::replace(&mut was.1, true)) {
            self.show();
        }
    }

    /// Every place is known.
    pub(crate) fn is_synced(&self) -> bool {
        self.lock().values().all(|(_, synced)| *synced)
    }

    fn change(&self, place: &Place, change: impl FnOnce(&mut (KindState, bool)) -> bool) -> bool {
        self.lock().get_mut(place).is_some_and(change)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Place, (KindState, bool)>> {
        self.places
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn show(&self) {
        let places = self.lock();
        let kinds = KINDS.iter().enumerate().filter_map(|(number, kind)| {
            let of_kind = || places.iter().filter(|(place, _)| place.kind == number);
            let state = of_kind().map(|(_, (state, _))| state).max()?.clone();
            let synced = of_kind().all(|(_, (_, synced))| *synced);
            Some(KindStatus {
                kind,
                state,
                synced,
                objects: 0,
            })
        });
        let kinds: Vec<KindStatus> = kinds.collect();
        drop(places);
        self.status.send_modify(|status| {
            let objects = |kind: &Kind| {
                let before = status.kinds.iter();
                let mut before = before.filter(|before| std::ptr::eq(before.kind, kind));
                before.next().map_or(0, |before| before.objects)
            };
            let kinds = kinds.into_iter().map(|mut kind| {
                kind.objects = objects(kind.kind);
                kind
            });
            status.kinds = kinds.collect();
        });
    }
}
