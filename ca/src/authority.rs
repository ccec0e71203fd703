//! A signing authority of the trust domain: its certificate or key, its state, and its private key.

pub mod jwt;
pub mod set;
pub mod upstream;
pub mod x509;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::key::SigningKey;
use crate::store::{AuthorityRow, AuthorityState};

/// An authority. Immutable: a new state is a new value.
#[derive(Clone)]
pub struct Authority {
    /// What is stored of it.
    pub row: AuthorityRow,
    /// Its private key; `None` when it is gone (kept in memory by a process that ended), so that it can
    /// be trusted and no longer sign.
    pub key: Option<Arc<dyn SigningKey>>,
    /// What an X.509 authority is to those it signs for.
    pub x509: Option<X509Parts>,
}

/// Read from the certificate once.
#[derive(Clone, Debug)]
pub struct X509Parts {
    /// Subject, DER.
    pub subject: Bytes,
    /// Subject key identifier.
    pub key_id: Bytes,
    /// Certificates between a leaf and the root, this authority's first; empty for a root.
    pub chain: Vec<Bytes>,
}

/// An authority that cannot be made, read, or moved to another state.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// No such authority.
    #[error("no {kind} authority found with id `{id}`")]
    NotFound {
        /// What it would sign.
        kind: &'static str,
        /// What was asked for.
        id: String,
    },
    /// It is switched off.
    #[error(
        "there are no {0} authorities here: set `ca.experimental.wit_svid: true` in the configuration"
    )]
    Off(&'static str),
    /// It is in another state.
    #[error("authority `{id}` is {state}: {hint}")]
    State {
        /// Which.
        id: String,
        /// Where it is in its life.
        state: &'static str,
        /// What to do first.
        hint: &'static str,
    },
    /// One is prepared already.
    #[error("authority `{0}` is prepared already: activate, taint or revoke it first")]
    AlreadyPrepared(String),
    /// The active one signs for everybody.
    #[error(
        "authority `{0}` is active: prepare and activate another one first, or taint it with `--emergency`, which does both at once"
    )]
    TaintActive(String),
    /// Live streams have not got the bundle with it.
    #[error(
        "authority `{id}` is published, but {behind} live streams do not have it yet: try again"
    )]
    NotDelivered {
        /// Which.
        id: String,
        /// How many streams.
        behind: usize,
    },
    /// Those who poll our bundle may not have it yet.
    #[error(
        "authority `{id}` has not been published long enough for everybody who polls the bundle: try again in {left:?}, or taint the active one with --emergency"
    )]
    NotPropagated {
        /// Which.
        id: String,
        /// How long to wait.
        left: Duration,
    },
    /// Its private key is gone.
    #[error("authority `{0}` cannot sign: its private key is gone")]
    KeyGone(String),
    /// The key failed.
    #[error(transparent)]
    Key(#[from] crate::key::KeyError),
    /// The upstream authority is unusable.
    #[error("the upstream authority: {0}")]
    Upstream(String),
    /// What it signed for a rehearsal was not right.
    #[error("authority `{id}` failed its rehearsal: {cause}")]
    Rehearsal {
        /// Which.
        id: String,
        /// Why.
        cause: String,
    },
    /// Nothing was stored.
    #[error("{0}")]
    Store(String),
}

impl Authority {
    /// True while it may sign: it is active, has its key, and its time has come and is not over. The clock may have been
    /// set back: what it signs then would be valid for nobody.
    #[must_use]
    pub fn can_sign(&self, now: SystemTime) -> bool {
        self.row.state == AuthorityState::Active && self.key.is_some() && self.is_valid(now)
    }

    /// True within its validity.
    #[must_use]
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.row.not_before <= now && now < self.row.not_after
    }

    /// True while it belongs into the bundle: until it is revoked, or pruned after its end. The time alone changes
    /// nothing: the same sequence is the same content (SPIFFE Trust Domain and Bundle §4.1.1).
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.row.state != AuthorityState::Revoked
    }
}

/// The key stays out of logs.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("id", &self.row.id)
            .field("kind", &self.row.kind)
            .field("state", &self.row.state)
            .finish_non_exhaustive()
    }
}
