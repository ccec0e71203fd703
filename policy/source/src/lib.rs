//! Policies and inventory from a Kubernetes API server, as they come and go.
//!
//! ```text
//! API server -> follow (one task for each kind) -> trim -> publish: live::Store -> Arc<Snapshot>
//!                                                             \-> report -> status: conditions, by the leader
//!                                                                     \-> cases: do those of PolicyTests hold?
//! ```
//!
//! Snapshots are made off the threads that serve. An outage of the API
//! server keeps the last snapshot in force, for as long as it lasts; [`Status`] tells its age, and why there is no newer one.

mod cases;
mod contact;
pub mod crd;
mod follow;
mod kind;
mod lease;
pub mod metrics;
mod object;
mod options;
mod publish;
mod report;
mod state;
mod status;
mod trim;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kube::Client;
use portcullis_policy::snapshot::Snapshot;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use self::cases::RunCases;
pub use self::kind::{KINDS, Kind};
pub use self::options::Options;
pub use self::publish::SharedStore;
pub use self::state::{Counters, KindState, KindStatus, Status};
pub use self::status::StatusOptions;

use self::cases::Tester;
use self::follow::Follower;
use self::lease::{Election, Leadership};
use self::publish::Publisher;
use self::report::Told;
use self::state::Board;
use self::status::Writer;

/// Arrivals that wait for the compiler; then the API server's do.
const WAITING: usize = 4096;

/// A running source. It ends when it is dropped.
pub struct Source {
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    board: Arc<Board>,
    store: SharedStore,
    election: Option<(Arc<Election>, Leadership)>,
    tasks: JoinSet<()>,
}

impl Source {
    /// Begins to follow the API server of `client`; the first snapshot is published once every kind that is installed was
    /// listed whole.
    #[must_use]
    pub fn start(client: Client, options: &Options) -> Self {
        let places = options.places();
        let board = Arc::new(Board::new(&places));
        let store = SharedStore::new(options.settings.clone());
        let (sender, snapshots) = watch::channel(None);
        let (arrivals, arrived) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        let follower = Follower {
            client: client.clone(),
            board: Arc::clone(&board),
            arrivals,
            look: options.look,
            no_streams: Arc::new(AtomicBool::new(false)),
        };
        for place in places {
            tasks.spawn(follower.clone().run(place));
        }
        drop(follower);
        tasks.spawn(contact::beat(client.clone(), Arc::clone(&board)));
        let mut election = None;
        let mut reports = None;
        if let Some(status) = &options.status {
            let running = Arc::new(Election {
                client: client.clone(),
                namespace: status.namespace.clone(),
                name: status.lease.clone(),
                identity: status.identity.clone(),
                duration: status.lease_duration.max(Duration::from_secs(1)),
                clock: status.clock,
            });
            let (leadership, electing) = Election::clone(&running).start();
            tasks.spawn(electing);
            let (sender, told) = watch::channel(Told::default());
            let cases = status.cases.map(|run| {
                let (found, cases) = watch::channel(Arc::default());
                let tester = Tester {
                    run,
                    leadership: leadership.clone(),
                };
                tasks.spawn(tester.run(told.clone(), found));
                cases
            });
            let writer = Writer {
                client,
                board: Arc::clone(&board),
                leadership: leadership.clone(),
                istio: status.istio,
                cases,
            };
            tasks.spawn(writer.run(told));
            election = Some((running, leadership.clone()));
            reports = Some((sender, leadership));
        }
        let publisher = Publisher::new(store.clone(), Arc::clone(&board), sender, reports);
        tasks.spawn(publisher.run(arrived));
        Self {
            snapshots,
            board,
            store,
            election,
            tasks,
        }
    }

    /// The snapshot in force, followed; `None` before the first.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshots.clone()
    }

    /// How it goes, followed.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.board.subscribe()
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.board.counters)
    }

    /// The documents in force: to propose changes to, and to put files beside.
    #[must_use]
    pub fn store(&self) -> SharedStore {
        self.store.clone()
    }

    /// Whether this replica leads at this moment, and so writes statuses; `None` where none are written.
    #[must_use]
    pub fn leads(&self) -> Option<bool> {
        let (_, leadership) = self.election.as_ref()?;
        Some(leadership.leads())
    }

    /// Ends it, and gives the lease back where it has it.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        if let Some((election, _)) = &self.election {
            election.release().await;
        }
    }
}
