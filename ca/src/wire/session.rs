//! One connection: who is at its other end, what it may hold open, and how it is cut.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};

use tokio::net::UnixStream;
use tonic::Status;

use crate::attest::{Peer, Process};

/// How much of us all callers, and those of one user, may hold at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// File descriptors of everybody: one for each connection, two for each process that is connected.
    pub open_files: usize,
    /// File descriptors of one user.
    pub open_files_per_user: usize,
    /// Calls of one user, open streams included.
    pub calls_per_user: usize,
}

impl Limits {
    /// Limits that leave `open_files` file descriptors enough for everything else, and no single user all of them.
    #[must_use]
    pub fn for_open_files(open_files: u64) -> Self {
        let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
        let open_files = open_files.min(1 << 20);
        let open_files = open_files.saturating_sub(open_files / 8 + 128).max(48);
        Self {
            open_files,
            open_files_per_user: open_files / 4 * 3,
            calls_per_user: 1 << 16,
        }
    }
}

/// File descriptors of a process that is held: its pidfd and its folder below `/proc`.
const OF_A_PROCESS: usize = 2;

/// Everybody who is connected.
#[derive(Debug)]
pub(crate) struct Callers {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open_files: usize,
    users: HashMap<u32, Held>,
    processes: HashMap<u32, Weak<Process>>,
    /// Connections of each process that has some, by where it is in memory: there it stays as long as one has it.
    connections: HashMap<usize, usize>,
    /// How many processes may be remembered before those without a connection are forgotten.
    forget_at: usize,
}

#[derive(Debug, Default)]
struct Held {
    open_files: usize,
    calls: usize,
}

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Too many at once.
    #[error("{0} files are open for connections {1}")]
    Full(usize, &'static str),
    /// The kernel does not say who it is.
    #[error("{0}")]
    Unknown(#[from] io::Error),
}

impl Callers {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
        })
    }

    /// Lets a connection in, or not.
    pub(crate) fn admit(self: &Arc<Self>, stream: &UnixStream) -> Result<Arc<Session>, Refused> {
        // A process that connected before and still lives is the same one: numbers are given anew only after an end,
        // and connections are accepted in the order in which they were made.
        let peer = Peer::of(stream, |pid| {
            let known = self.lock().processes.get(&pid)?.upgrade()?;
            known.is_alive().then_some(known)
        })?;
        let mut state = self.lock();
        let place = peer.process().ok().map(place);
        let is_first = place.is_some_and(|place| !state.connections.contains_key(&place));
        let needed = if is_first { 1 + OF_A_PROCESS } else { 1 };
        if state.open_files + needed > self.limits.open_files {
            return Err(Refused::Full(state.open_files, "in all"));
        }
        let held = state.users.entry(peer.uid()).or_default();
        if held.open_files + needed > self.limits.open_files_per_user {
            return Err(Refused::Full(held.open_files, "of this user"));
        }
        held.open_files += needed;
        state.open_files += needed;
        if let Some(place) = place {
            *state.connections.entry(place).or_default() += 1;
        }
        if let Ok(process) = peer.process() {
            if state.processes.len() >= state.forget_at {
                state
                    .processes
                    .retain(|_, process| process.strong_count() > 0);
                state.forget_at = (2 * state.processes.len()).max(256);
            }
            state
                .processes
                .insert(process.pid(), Arc::downgrade(process));
        }
        drop(state);
        Ok(Arc::new(Session {
            peer,
            callers: Arc::clone(self),
            cut: AtomicBool::new(false),
            reader: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters only: a thread that panicked between two of them does no harm that lasts.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection is over.
    fn disconnected(&self, peer: &Peer) {
        let mut state = self.lock();
        let mut freed = 1;
        if let Ok(process) = peer.process() {
            let place = place(process);
            if let Some(connections) = state.connections.get_mut(&place) {
                *connections = connections.saturating_sub(1);
                if *connections == 0 {
                    state.connections.remove(&place);
                    freed += OF_A_PROCESS;
                }
            }
        }
        state.open_files = state.open_files.saturating_sub(freed);
        state.freed(peer.uid(), freed, 0);
    }
}

impl State {
    fn freed(&mut self, user: u32, open_files: usize, calls: usize) {
        if let Some(held) = self.users.get_mut(&user) {
            held.open_files = held.open_files.saturating_sub(open_files);
            held.calls = held.calls.saturating_sub(calls);
            if held.open_files == 0 && held.calls == 0 {
                self.users.remove(&user);
            }
        }
    }
}

fn place(process: &Arc<Process>) -> usize {
    Arc::as_ptr(process).addr()
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    peer: Peer,
    callers: Arc<Callers>,
    cut: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Session {
    /// Who is at the other end.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Counts one more call of this user, until the answer is dropped.
    pub(crate) fn call(self: &Arc<Self>) -> Result<Call, Status> {
        let mut state = self.callers.lock();
        let held = state.users.entry(self.peer.uid()).or_default();
        if held.calls >= self.callers.limits.calls_per_user {
            return Err(Status::unavailable(format!(
                "this user has {} calls and streams open, more are not allowed: close some",
                held.calls
            )));
        }
        held.calls += 1;
        drop(state);
        Ok(Call(Arc::clone(self)))
    }

    /// Ends the connection at once; its streams with it.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        let reader = self
            .reader
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Remembers who is to be woken by a cut.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *reader {
            Some(known) => known.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.callers.disconnected(&self.peer);
    }
}

/// One open call.
#[derive(Debug)]
pub(crate) struct Call(Arc<Session>);

impl Call {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.0
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Self(session) = self;
        session.callers.lock().freed(session.peer.uid(), 0, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_user_cannot_take_all_and_what_is_left_can_be_taken_again() {
        let callers = Callers::new(Limits {
            open_files: 20,
            open_files_per_user: 4,
            calls_per_user: 1,
        });
        let (here, _there) = UnixStream::pair().unwrap();
        let first = callers.admit(&here).unwrap();
        let second = callers.admit(&here).unwrap();
        assert!(
            Arc::ptr_eq(
                first.peer().process().unwrap(),
                second.peer().process().unwrap()
            ),
            "one process is watched once"
        );
        let error = callers.admit(&here).unwrap_err().to_string();
        assert_eq!(error, "4 files are open for connections of this user");
        drop(first);
        let third = callers.admit(&here).unwrap();
        let call = third.call().unwrap();
        let status = second.call().unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(status.message().contains("1 calls"), "{status}");
        drop(call);
        drop(second.call().unwrap());
        drop((second, third));
        let left = callers.lock();
        assert!(left.users.is_empty() && left.connections.is_empty());
        assert_eq!(left.open_files, 0);
    }

    #[test]
    fn limits_leave_room() {
        for open_files in [0, 64, 1024, 20_000, 1 << 20, u64::MAX] {
            let limits = Limits::for_open_files(open_files);
            assert!(limits.open_files_per_user < limits.open_files);
            if open_files >= 1024 {
                assert!(u64::try_from(limits.open_files).unwrap() + 128 <= open_files);
            }
        }
        // Ten thousand connections of one process, on a machine of ordinary limits.
        assert!(Limits::for_open_files(20_000).open_files_per_user > 10_002);
    }
}
