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
    /// Connections of everybody.
    pub connections: usize,
    /// Connections of one user.
    pub connections_per_user: usize,
    /// Calls of one user, open streams included.
    pub calls_per_user: usize,
}

impl Limits {
    /// Limits that leave `open_files` file descriptors enough for everything else, and no single user all of them.
    #[must_use]
    pub fn for_open_files(open_files: u64) -> Self {
        let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
        // Two for each process: its pidfd and its folder below /proc.
        let connections = (open_files.saturating_sub(128) / 3).clamp(16, 1 << 17);
        Self {
            connections,
            connections_per_user: (connections / 4 * 3).max(8),
            calls_per_user: 1 << 16,
        }
    }
}

/// Everybody who is connected.
#[derive(Debug)]
pub(crate) struct Callers {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connections: usize,
    users: HashMap<u32, Held>,
    processes: HashMap<u32, Weak<Process>>,
    /// How many processes may be remembered before those without a connection are forgotten.
    forget_at: usize,
}

#[derive(Debug, Default)]
struct Held {
    connections: usize,
    calls: usize,
}

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Too many at once.
    #[error("{0} connections are open {1}")]
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
        if state.connections >= self.limits.connections {
            return Err(Refused::Full(state.connections, "in all"));
        }
        let held = state.users.entry(peer.uid()).or_default();
        if held.connections >= self.limits.connections_per_user {
            return Err(Refused::Full(held.connections, "for this user"));
        }
        held.connections += 1;
        state.connections += 1;
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

    fn leave(&self, user: u32, connections: usize, calls: usize) {
        let mut state = self.lock();
        state.connections = state.connections.saturating_sub(connections);
        if let Some(held) = state.users.get_mut(&user) {
            held.connections = held.connections.saturating_sub(connections);
            held.calls = held.calls.saturating_sub(calls);
            if held.connections == 0 && held.calls == 0 {
                state.users.remove(&user);
            }
        }
    }
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
        self.callers.leave(self.peer.uid(), 1, 0);
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
        self.0.callers.leave(self.0.peer.uid(), 0, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_user_cannot_take_all_and_what_is_left_can_be_taken_again() {
        let callers = Callers::new(Limits {
            connections: 10,
            connections_per_user: 2,
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
        assert_eq!(error, "2 connections are open for this user");
        drop(first);
        let third = callers.admit(&here).unwrap();
        let call = third.call().unwrap();
        let status = second.call().unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(status.message().contains("1 calls"), "{status}");
        drop(call);
        drop(second.call().unwrap());
        drop((second, third));
        assert!(callers.lock().users.is_empty());
        assert_eq!(callers.lock().connections, 0);
    }

    #[test]
    fn limits_leave_room() {
        let few = Limits::for_open_files(1024);
        assert!(few.connections * 3 < 1024 && few.connections_per_user < few.connections);
        let many = Limits::for_open_files(1 << 20);
        assert!(many.connections_per_user >= 20_000);
    }
}
