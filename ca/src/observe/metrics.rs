//! What is counted: atomics on the way of a call, text when Prometheus asks.
//!
//! Label values are words of ours, and names of trust domains that the operator federates with. A SPIFFE ID, or
//! anything else that a caller chooses, is never one.

mod scrape;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use portcullis_wire::metrics::Latency;

use crate::attest::AttestError;
use crate::authority::AuthorityError;
use crate::identities::IssueError;
use crate::store::AuthorityKind;

pub(crate) use self::scrape::text;
pub use self::table::{PREFIX, TABLE};

const KINDS: usize = AuthorityKind::ALL.len();

/// How the issuing of one SVID ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody has it.
    Issued,
    /// No entry matches the caller.
    NoIdentity,
    /// The caller has others.
    NotEntitled,
    /// What was asked for cannot be.
    Invalid,
    /// Not now.
    Unavailable,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Issued,
        Self::NoIdentity,
        Self::NotEntitled,
        Self::Invalid,
        Self::Unavailable,
    ];

    /// The word in labels and spans.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::NoIdentity => "no_identity",
            Self::NotEntitled => "not_entitled",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<&IssueError> for Outcome {
    fn from(error: &IssueError) -> Self {
        match error {
            IssueError::NoIdentity => Self::NoIdentity,
            IssueError::NotEntitled(_) => Self::NotEntitled,
            IssueError::InvalidArgument(_) => Self::Invalid,
            IssueError::Unavailable(_) => Self::Unavailable,
        }
    }
}

/// What a stream on the workload socket is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// FetchX509SVID.
    X509Svid,
    /// FetchX509Bundles.
    X509Bundles,
    /// FetchJWTBundles.
    JwtBundles,
    /// FetchWITSVID.
    WitSvid,
    /// FetchWITBundles.
    WitBundles,
    /// Envoy's StreamSecrets and DeltaSecrets.
    Sds,
}

impl Api {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::X509Svid,
        Self::X509Bundles,
        Self::JwtBundles,
        Self::WitSvid,
        Self::WitBundles,
        Self::Sds,
    ];

    /// The word in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X509Svid => "x509_svid",
            Self::X509Bundles => "x509_bundles",
            Self::JwtBundles => "jwt_bundles",
            Self::WitSvid => "wit_svid",
            Self::WitBundles => "wit_bundles",
            Self::Sds => "sds",
        }
    }
}

/// A step in the life of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Made, rehearsed, published.
    Prepare,
    /// Signs from now on; the one before retires.
    Activate,
    /// What it signed is issued anew.
    Taint,
    /// Taken out of the bundle.
    Revoke,
    /// Forgotten, long after its end.
    Prune,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Prepare,
        Self::Activate,
        Self::Taint,
        Self::Revoke,
        Self::Prune,
    ];

    /// The word in labels and spans.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Activate => "activate",
            Self::Taint => "taint",
            Self::Revoke => "revoke",
            Self::Prune => "prune",
        }
    }
}

/// Results of attestation, as labels.
const ATTESTED: [&str; 6] = [
    "attested",
    "ended",
    "invisible",
    "changed",
    "failed",
    "refused",
];
/// Results of a step, as labels.
const RESULTS: [&str; 2] = ["success", "failure"];

/// The counters of one certificate authority.
#[derive(Debug, Default)]
pub struct Metrics {
    svids: [[AtomicU64; Outcome::ALL.len()]; KINDS],
    issuing: [Latency; KINDS],
    bundle_refusals: AtomicU64,
    cached: AtomicU64,
    streams: [AtomicU64; Api::ALL.len()],
    updates: [AtomicU64; Api::ALL.len()],
    stalled: [AtomicU64; Api::ALL.len()],
    attestations: [AtomicU64; ATTESTED.len()],
    steps: [[AtomicU64; RESULTS.len()]; Step::ALL.len()],
    rotation_failing: AtomicBool,
}

impl Metrics {
    /// Counts SVIDs that were asked for together, and how long that took.
    pub(crate) fn issued<T>(
        &self,
        kind: AuthorityKind,
        asked: usize,
        issued: &Result<Vec<Result<T, IssueError>>, IssueError>,
        elapsed: Duration,
    ) {
        match issued {
            Ok(all) => {
                let outcome = |one: &Result<T, IssueError>| match one {
                    Ok(_) => Outcome::Issued,
                    Err(error) => error.into(),
                };
                for one in all {
                    self.ended(kind, outcome(one), 1);
                }
            }
            Err(error) => self.ended(kind, error.into(), asked as u64),
        }
        if let Some(latency) = self.issuing.get(kind as usize) {
            latency.observe(elapsed);
        }
    }

    /// Counts an SVID that was refused before anything was prepared.
    pub(crate) fn refused(&self, what: &str, error: &IssueError) {
        match what {
            "x509_svid" => self.ended(AuthorityKind::X509, error.into(), 1),
            "jwt_svid" => self.ended(AuthorityKind::Jwt, error.into(), 1),
            "wit_svid" => self.ended(AuthorityKind::Wit, error.into(), 1),
            _ => add(Some(&self.bundle_refusals), 1),
        }
    }

    fn ended(&self, kind: AuthorityKind, outcome: Outcome, count: u64) {
        let of_kind = self.svids.get(kind as usize);
        add(of_kind.and_then(|all| all.get(outcome as usize)), count);
    }

    /// Counts SVIDs that were served once more.
    pub(crate) fn served_again(&self, count: usize) {
        add(Some(&self.cached), count as u64);
    }

    /// Counts what attestation found out.
    pub(crate) fn attested<T>(&self, result: &Result<T, AttestError>) {
        let place = match result {
            Ok(_) => 0,
            Err(AttestError::Ended) => 1,
            Err(AttestError::Invisible) => 2,
            Err(AttestError::Changed(_)) => 3,
            Err(AttestError::Failed(_)) => 4,
            Err(AttestError::Refused(_)) => 5,
        };
        add(self.attestations.get(place), 1);
    }

    /// Counts a message that a stream was sent.
    pub(crate) fn update(&self, api: Api) {
        add(self.updates.get(api as usize), 1);
    }

    /// Counts a stream whose reader took nothing any more.
    pub(crate) fn stalled(&self, api: Api) {
        add(self.stalled.get(api as usize), 1);
    }

    /// Counts a step in the life of an authority.
    pub(crate) fn step<T>(&self, step: Step, result: &Result<T, AuthorityError>) {
        let of_step = self.steps.get(step as usize);
        let place = usize::from(result.is_err());
        add(of_step.and_then(|results| results.get(place)), 1);
    }

    /// Remembers whether the last look at the clock did what it had to.
    pub(crate) fn ticked<T>(&self, result: &Result<T, AuthorityError>) {
        self.rotation_failing
            .store(result.is_err(), Ordering::Relaxed);
    }
}

fn add(counter: Option<&AtomicU64>, count: u64) {
    if let Some(counter) = counter {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// A stream that is open as long as this lives.
#[derive(Debug)]
pub(crate) struct OpenStream {
    metrics: Arc<Metrics>,
    api: Api,
}

impl OpenStream {
    pub(crate) fn new(metrics: &Arc<Metrics>, api: Api) -> Self {
        add(metrics.streams.get(api as usize), 1);
        Self {
            metrics: Arc::clone(metrics),
            api,
        }
    }

    /// It was sent a message.
    pub(crate) fn update(&self) {
        self.metrics.update(self.api);
    }

    /// Its reader took nothing any more.
    pub(crate) fn stalled(&self) {
        self.metrics.stalled(self.api);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if let Some(open) = self.metrics.streams.get(self.api as usize) {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
