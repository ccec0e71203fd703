//! From what arrives to snapshots: gathered for a moment, compiled off the threads that serve, published whole.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, ObjectKey, Outcome, Store};
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::Snapshot;
use tokio::sync::{Notify, mpsc, watch};

use crate::follow::{Arrival, What};
use crate::lease::Leadership;
use crate::report::{Told, reports};
use crate::state::{Board, Place};
use crate::trim::{Trimmed, Written};

/// What arrives together is compiled together.
const GATHER: Duration = Duration::from_millis(4);
/// Most arrivals of one compilation.
const MOST: usize = 10_000;
/// Refused policies that one compilation logs.
const LOGGED: usize = 20;
/// Statuses are made no more often.
const REPORT: Duration = Duration::from_secs(1);

/// The documents in force, shared with who proposes changes.
#[derive(Clone, Debug)]
pub struct SharedStore {
    store: Arc<Mutex<Store>>,
    settings: Settings,
    /// As they were last taken.
    files: Arc<Mutex<Vec<SourceText>>>,
    changed: Arc<Notify>,
}

impl SharedStore {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            store: Arc::new(Mutex::new(Store::new(settings.clone()))),
            settings,
            files: Arc::default(),
            changed: Arc::default(),
        }
    }

    /// The store itself. It is locked while it compiles: not for the threads that serve.
    pub fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts files beside the objects, in place of those before. Blocks while the store compiles.
    ///
    /// # Errors
    /// Every diagnostic, where one is an error; the files before stay.
    pub fn set_files(&self, files: Vec<SourceText>) -> Result<(), Vec<Diagnostic>> {
        self.lock().set_files(files.clone())?;
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
        self.changed.notify_one();
        Ok(())
    }

    fn renew(&self, objects: impl Iterator<Item = Change>) {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.clone();
        let mut store = Store::new(self.settings.clone());
        // They were good before.
        let _ = store.set_files(files);
        store.change(objects);
        *self.lock() = store;
    }
}

/// An object that is held.
#[derive(Debug)]
struct Held {
    text: Arc<[u8]>,
    written: Written,
}

/// Makes snapshots of what arrives.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub store: SharedStore,
    pub board: Arc<Board>,
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    /// For the writer of statuses, while it leads; `None` where nobody writes any.
    pub reports: Option<(watch::Sender<Told>, Leadership)>,
    held: BTreeMap<Place, BTreeMap<ObjectKey, Held>>,
    /// Policies that are refused, and the first thing wrong with each.
    refused: BTreeMap<ObjectKey, String>,
    /// What is wrong with the mesh.
    mesh: Option<String>,
    /// The store may be half changed.
    broken: bool,
    reported: Option<Instant>,
    pause: Duration,
    to_report: bool,
}

impl Publisher {
    pub(crate) fn new(
        store: SharedStore,
        board: Arc<Board>,
        snapshots: watch::Sender<Option<Arc<Snapshot>>>,
        reports: Option<(watch::Sender<Told>, Leadership)>,
    ) -> Self {
        Self {
            store,
            board,
            snapshots,
            reports,
            held: BTreeMap::new(),
            refused: BTreeMap::new(),
            mesh: None,
            broken: false,
            reported: None,
            pause: REPORT,
            to_report: false,
        }
    }

    /// Publishes until nothing can arrive any more.
    pub(crate) async fn run(mut self, mut arrivals: mpsc::Receiver<Arrival>) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                arrived = arrivals.recv() => match arrived {
                    Some(arrival) => {
                        batch.push(arrival);
                        tokio::time::sleep(GATHER).await;
                    }
                    None => return,
                },
                () = self.store.changed.notified() => {}
                () = tokio::time::sleep(REPORT), if self.to_report => {}
            }
            while batch.len() < MOST
                && let Ok(arrival) = arrivals.try_recv()
            {
                batch.push(arrival);
            }
            let stepping = tokio::task::spawn_blocking(move || {
                self.step(batch);
                self
            });
            match stepping.await {
                Ok(publisher) => self = publisher,
                // The runtime is shutting down: a panic is caught inside.
                Err(_) => return,
            }
        }
    }

    fn step(&mut self, batch: Vec<Arrival>) {
        let mut changes = Vec::new();
        let mut arrived = Vec::new();
        let mut listed = Vec::new();
        for Arrival { place, what, at } in batch {
            let before = changes.len();
            // A status that somebody wrote is none of the engine's business, but ours.
            self.to_report |= place.kind().is_policy;
            self.take(&place, what, &mut changes, &mut listed);
            if changes.len() > before {
                arrived.push(at);
            }
        }
        let compiled = catch_unwind(AssertUnwindSafe(|| self.compile(changes, &listed)));
        match compiled {
            Ok(true) => {
                let now = Instant::now();
                for at in arrived {
                    self.board.counters.lag.observe(now.duration_since(at));
                }
            }
            Ok(false) => {}
            Err(_) => {
                self.broken = true;
                let why = "the compiler stopped unexpectedly; the last snapshot stays in force";
                tracing::error!("{why}; please report the objects that made it");
                self.board
                    .modify(|status| status.failure = Some(why.to_owned()));
            }
        }
    }

    /// What the store is to be told of an arrival.
    fn take(
        &mut self,
        place: &Place,
        what: What,
        changes: &mut Vec<Change>,
        listed: &mut Vec<Place>,
    ) {
        let held = self.held.entry(place.clone()).or_default();
        match what {
            What::Applied(object) => changes.extend(apply(held, object)),
            What::Deleted(key) => {
                if held.remove(&key).is_some() {
                    changes.push(Change::Delete(key));
                }
            }
            What::Listed(objects) => {
                let mut before = std::mem::take(held);
                let mut gone: Vec<ObjectKey> = Vec::new();
                let mut now = BTreeMap::new();
                for object in objects {
                    if let Some(was) = before.remove(&object.key) {
                        now.insert(object.key.clone(), was);
                    }
                    changes.extend(apply(&mut now, object));
                }
                gone.extend(before.into_keys());
                changes.extend(gone.into_iter().map(Change::Delete));
                *held = now;
                listed.push(place.clone());
            }
        }
    }

    /// Whether a snapshot with the changes is in force.
    fn compile(&mut self, changes: Vec<Change>, listed: &[Place]) -> bool {
        let started = Instant::now();
        if self.broken {
            self.renew();
            self.broken = false;
        } else if !changes.is_empty() {
            self.store.lock().change(changes);
        }
        for place in listed {
            self.board.synced(place);
        }
        self.count_objects();
        if !self.board.is_synced() {
            return false;
        }
        let shared = self.store.clone();
        let mut store = shared.lock();
        if !self.has_mesh(&store) {
            return false;
        }
        let snapshot = store.snapshot();
        let before = self.snapshots.borrow().clone();
        let is_new = before.is_none_or(|before| !Arc::ptr_eq(&before, &snapshot));
        if is_new {
            self.snapshots.send_replace(Some(Arc::clone(&snapshot)));
            self.board.counters.compile.observe(started.elapsed());
            let (kept, closed) = self.tell_refused(&store);
            self.board.modify(|status| {
                if !status.synced {
                    tracing::info!(
                        revision = snapshot.revision(),
                        policies = snapshot.policy_count(),
                        "every kind was listed: the API server's policies are in force"
                    );
                }
                status.synced = true;
                status.published = Some(SystemTime::now());
                status.failure.clone_from(&self.mesh);
                (status.kept, status.closed) = (kept, closed);
            });
        }
        self.to_report |= is_new;
        self.report(&store, &snapshot);
        is_new
    }

    /// Whether the mesh is known, or was: by the names of another one, a policy can mean the opposite.
    fn has_mesh(&mut self, store: &Store) -> bool {
        let is_first = self.snapshots.borrow().is_none();
        let refused = store.refused_mesh().map(|(key, outcome)| {
            let (instead, diagnostics) = match outcome {
                Outcome::LastGood { diagnostics } => {
                    ("the last good one stays in force", diagnostics)
                }
                Outcome::Closed { diagnostics } | Outcome::LeftOut { diagnostics } => {
                    let instead = match is_first {
                        true => "nothing is decided until it can be read",
                        false => "it is left out",
                    };
                    (instead, diagnostics)
                }
                Outcome::Accepted => return (None, true),
            };
            let first = diagnostics.iter().find(|d| d.is_error());
            let why = first.map(ToString::to_string).unwrap_or_default();
            let why = format!(
                "the mesh in {} is refused, {instead}: {why}",
                key.resource()
            );
            (
                Some(why),
                !is_first || matches!(outcome, Outcome::LastGood { .. }),
            )
        });
        let (why, known) = refused.unwrap_or((None, true));
        if why != self.mesh {
            match &why {
                Some(why) => tracing::error!("{why}"),
                None => tracing::info!("the mesh is accepted again"),
            }
            self.board.modify(|status| status.failure.clone_from(&why));
            self.mesh = why;
        }
        known
    }

    /// Logs what is newly refused, and what is accepted again; of how many an earlier version is in force, and how many
    /// are closed.
    fn tell_refused(&mut self, store: &Store) -> (usize, usize) {
        let (mut kept, mut closed, mut left_out) = (0, 0, 0);
        let mut before = std::mem::take(&mut self.refused);
        let mut told = 0;
        for (key, outcome) in store.outcomes() {
            let (count, instead, diagnostics) = match outcome {
                Outcome::Accepted => {
                    if before.remove(key).is_some() {
                        tracing::info!(resource = key.resource(), "accepted again, and in force");
                    }
                    continue;
                }
                Outcome::LastGood { diagnostics } => (
                    &mut kept,
                    "the last good version stays in force",
                    diagnostics,
                ),
                Outcome::Closed { diagnostics } => {
                    (&mut closed, "what it selects is denied", diagnostics)
                }
                Outcome::LeftOut { diagnostics } => (
                    &mut left_out,
                    "it would decide nothing, and is left out",
                    diagnostics,
                ),
            };
            *count += 1;
            let first = diagnostics.iter().find(|d| d.is_error());
            let why = first.map(ToString::to_string).unwrap_or_default();
            if before.remove(key).as_ref() != Some(&why) && told < LOGGED {
                told += 1;
                let hint = first.and_then(|first| first.hint.as_deref());
                tracing::warn!(
                    resource = key.resource(),
                    error = why,
                    hint,
                    "refused: {instead}"
                );
            }
            self.refused.insert(key.clone(), why);
        }
        (kept, closed)
    }

    /// A new store with everything that is held.
    fn renew(&self) {
        let objects = self.held.values().flatten();
        let changes = objects.map(|(key, held)| change(key.clone(), Arc::clone(&held.text)));
        self.store.renew(changes);
    }

    fn count_objects(&self) {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for (place, held) in &self.held {
            *counts.entry(place.kind).or_default() += held.len();
        }
        self.board.modify(|status| {
            for kind in &mut status.kinds {
                let place = crate::kind::KINDS
                    .iter()
                    .position(|other| std::ptr::eq(other, kind.kind));
                kind.objects = place
                    .and_then(|place| counts.get(&place))
                    .copied()
                    .unwrap_or(0);
            }
        });
    }

    /// Tells who writes statuses, where there is something to tell and the last time was not just now.
    fn report(&mut self, store: &Store, snapshot: &Arc<Snapshot>) {
        let Some((sender, leadership)) = &self.reports else {
            self.to_report = false;
            return;
        };
        // Whoever does not lead keeps them due for when it does.
        if !leadership.leads() {
            return;
        }
        let is_due = self.reported.is_none_or(|at| at.elapsed() >= self.pause);
        if !self.to_report || !is_due {
            return;
        }
        let written = |key: &ObjectKey| -> Option<Written> {
            let mut places = self.held.values();
            places.find_map(|held| Some(held.get(key)?.written.clone()))
        };
        let started = Instant::now();
        let made = reports(store, snapshot, written);
        sender.send_replace(Told {
            reports: Arc::new(made),
            snapshot: Some(Arc::clone(snapshot)),
        });
        self.reported = Some(Instant::now());
        // In a large cluster they take a while: a twentieth of the time, at most.
        self.pause = REPORT.max(started.elapsed() * 20);
        self.to_report = false;
    }
}

/// The object is held from now on; a change, where it is another to the engine.
fn apply(held: &mut BTreeMap<ObjectKey, Held>, object: Trimmed) -> Option<Change> {
    let Trimmed { key, text, written } = object;
    if let Some(was) = held.get_mut(&key)
        && was.text == text
    {
        was.written = written;
        return None;
    }
    let kept = Held {
        text: Arc::clone(&text),
        written,
    };
    held.insert(key.clone(), kept);
    Some(change(key, text))
}

fn change(key: ObjectKey, bytes: Arc<[u8]>) -> Change {
    let file = key.file();
    Change::Apply {
        key,
        text: SourceText { file, bytes },
    }
}
