//! Establishes facts about the caller at the other end of a unix socket.
//!
//! ```text
//! connection -> SO_PEERCRED, SO_PEERPIDFD -> Peer -> what it is now: credentials, executable
//!            -> attestors: unix, systemd, k8s -> selectors -> Caller
//! ```
//!
//! A caller is attested anew for every call and for every message on a long one. What it is by then is
//! compared with what it was when it connected: after `exec` of another program, or with other users or
//! groups, a connection has no identity any more. A copy of the socket may have stayed with somebody who
//! would otherwise ask in the name of, say, a set-user-ID program that the process has become.

mod executable;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod names;
mod process;
mod systemd;
mod unix;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio::net::UnixStream;

use crate::caller::Caller;
use crate::selector::Selector;

pub use executable::{Digests, Executable, FileIdentity};
pub use names::Names;
pub use process::{AttestError, Credentials, Process};
pub use systemd::SystemdAttestor;
pub use unix::{SHA256_LIMIT, UnixAttestor};

/// Finds out one kind of facts about a process.
#[async_trait]
pub trait Attestor: Send + Sync {
    /// The type of its selectors.
    fn name(&self) -> &'static str;

    /// Facts about a caller. None is a good answer; an error says that a fact may be missing, and the
    /// caller is told to come again later instead of being taken for somebody without it.
    ///
    /// # Errors
    /// [`AttestError`].
    async fn attest(&self, caller: &Observed<'_>) -> Result<Vec<Selector>, AttestError>;
}

/// What a process is at the moment of a call.
#[derive(Debug)]
pub struct Observed<'a> {
    /// The process.
    pub process: &'a Process,
    /// Who it acts as.
    pub credentials: Credentials,
    /// What it runs; `None` where we may not look.
    pub executable: Option<Executable>,
}

/// The other end of a connection, as it was when it connected.
#[derive(Debug)]
pub struct Peer {
    uid: u32,
    gid: u32,
    process: Result<Arc<Process>, AttestError>,
    /// The program that it ran at its first call.
    program: OnceLock<Option<FileIdentity>>,
}

impl Peer {
    /// Whoever is at the other end of `stream`; `known` is the same process, if it is known to live already.
    ///
    /// # Errors
    /// When the kernel does not say who that is.
    pub fn of(
        stream: &UnixStream,
        known: impl FnOnce(u32) -> Option<Arc<Process>>,
    ) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid();
        let known = pid.and_then(|pid| u32::try_from(pid).ok()).and_then(known);
        let process = match known {
            Some(process) => Ok(process),
            None => Process::of_peer(stream, pid).map(Arc::new),
        };
        Ok(Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            process,
            program: OnceLock::new(),
        })
    }

    /// User ID of the process when it connected.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The process.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn process(&self) -> Result<&Arc<Process>, AttestError> {
        self.process.as_ref().map_err(Clone::clone)
    }

    /// What it is now.
    fn observe(&self) -> Result<Observed<'_>, AttestError> {
        let process = self.process()?;
        let credentials = process.credentials()?;
        if credentials.uid != self.uid {
            return Err(AttestError::Changed("user"));
        }
        if credentials.gid != self.gid {
            return Err(AttestError::Changed("group"));
        }
        let executable = Executable::of(process)?;
        self.program_is(executable.as_ref())?;
        Ok(Observed {
            process,
            credentials,
            executable,
        })
    }
}

impl Peer {
    /// Remembers the first program and refuses every other one.
    fn program_is(&self, now: Option<&Executable>) -> Result<(), AttestError> {
        let now = now.map(|executable| executable.file);
        match (self.program.get_or_init(|| now), now) {
            (Some(first), Some(now)) if first.is_same_file(&now) => Ok(()),
            (None, None) => Ok(()),
            _ => Err(AttestError::Changed("executable")),
        }
    }
}

/// All attestors together.
#[derive(Clone)]
pub struct Attestation {
    attestors: Arc<[Box<dyn Attestor>]>,
}

impl Attestation {
    /// Attestation by all of `attestors`.
    #[must_use]
    pub fn new(attestors: Vec<Box<dyn Attestor>>) -> Self {
        Self {
            attestors: attestors.into(),
        }
    }

    /// Finds out who a peer is now.
    ///
    /// # Errors
    /// [`AttestError`]: nobody gets an identity on half of the facts.
    pub async fn attest(&self, peer: &Peer) -> Result<Caller, AttestError> {
        let observed = peer.observe()?;
        let mut selectors = Vec::with_capacity(16);
        for attestor in self.attestors.iter() {
            match attestor.attest(&observed).await {
                Ok(found) => selectors.extend(found),
                Err(error) => {
                    tracing::warn!(
                        attestor = attestor.name(), pid = observed.process.pid(), uid = peer.uid, %error,
                        "a caller cannot be attested"
                    );
                    return Err(error);
                }
            }
        }
        // Still the one that all of this was read of, and it did not become another in the meantime.
        peer.program_is(Executable::of(observed.process)?.as_ref())?;
        if !observed.process.is_alive() {
            return Err(AttestError::Ended);
        }
        let mut caller = Caller::new(selectors);
        caller.pid = Some(observed.process.pid());
        caller.uid = Some(observed.credentials.uid);
        caller.gid = Some(observed.credentials.gid);
        caller.path = observed.executable.map(|executable| executable.path);
        Ok(caller)
    }
}

impl Attestation {
    /// `unix` and `systemd`, and `more`.
    #[must_use]
    pub fn with(more: Option<Box<dyn Attestor>>) -> Self {
        let usual: [Box<dyn Attestor>; 2] =
            [Box::new(UnixAttestor::default()), Box::new(SystemdAttestor)];
        Self::new(usual.into_iter().chain(more).collect())
    }
}

impl Default for Attestation {
    /// `unix` and `systemd`.
    fn default() -> Self {
        Self::with(None)
    }
}

impl std::fmt::Debug for Attestation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.attestors.iter().map(|attestor| attestor.name()))
            .finish()
    }
}
