//! One check, from the facts of a request to the answer: the one way of every listener, whatever it
//! speaks.
//!
//! ```text
//! CheckRequest (gRPC) --facts--\
//!                               request -> Snapshot::decide -> Answer -> CheckResponse or HTTP answer
//! HTTP, one of its dialects ---/
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use portcullis_policy::decision::{Decision, Reason};
use portcullis_policy::request::Request;
use portcullis_policy::snapshot::Snapshot;

use crate::facts;
use crate::live::Live;

/// A request that cannot be decided, and the closed state that it is answered with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct Refusal {
    /// The reason of the denial.
    pub reason: Reason,
    /// What is wrong, for the log.
    pub words: String,
}

impl Refusal {
    /// A refusal that says why.
    #[must_use]
    pub fn new(reason: Reason, words: impl Into<String>) -> Self {
        Self {
            reason,
            words: words.into(),
        }
    }
}

impl From<facts::Invalid> for Refusal {
    fn from(invalid: facts::Invalid) -> Self {
        Self::new(Reason::InvalidRequest, invalid.0)
    }
}

/// What the proxy does to the request that goes on to the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderChange {
    /// The header has this one value, whatever it had.
    Set {
        /// Name, lower case.
        name: String,
        /// Value.
        value: String,
    },
    /// The header is gone.
    Remove {
        /// Name, lower case.
        name: String,
    },
}

/// The answer to one check, before it is put in a proxy's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Allow or deny, and why.
    pub decision: Decision,
    /// Changes to the request, made where it is allowed.
    pub request_headers: Vec<HeaderChange>,
    /// Headers for the client where it is denied, such as `www-authenticate`; names in lower case.
    pub denied_headers: Vec<(String, String)>,
}

impl From<Decision> for Answer {
    fn from(decision: Decision) -> Self {
        Self {
            decision,
            request_headers: Vec::new(),
            denied_headers: Vec::new(),
        }
    }
}

/// What one listener decides with.
#[derive(Clone, Debug)]
pub struct Checker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    listener: String,
    live: Live,
}

impl Checker {
    /// A checker for the listener that logs call `listener`, which decides by what `live` holds.
    #[must_use]
    pub fn new(listener: impl Into<String>, live: Live) -> Self {
        Self {
            inner: Arc::new(Inner {
                listener: listener.into(),
                live,
            }),
        }
    }

    /// The listener's name in logs.
    #[must_use]
    pub fn listener(&self) -> &str {
        &self.inner.listener
    }

    /// Decides the request that `facts` reads. Whatever cannot be decided is a denial with its
    /// reason, never an error. The snapshot is the one in force now, to the end of the request.
    pub async fn check(&self, facts: impl FnOnce(&Snapshot) -> Result<Request, Refusal>) -> Answer {
        let answer: Answer = match self.inner.live.snapshot() {
            None => Decision::closed(Reason::NoSnapshot, "").into(),
            Some(snapshot) => {
                let request = facts(&snapshot);
                decide(&snapshot, request).into()
            }
        };
        let decision = &answer.decision;
        tracing::debug!(
            listener = self.inner.listener,
            allow = decision.is_allow(),
            reason = decision.reason.as_str(),
            policies = ?decision.policies,
            audit = ?decision.audit,
            snapshot = decision.snapshot,
            "decided"
        );
        answer
    }
}

/// Decides one request that was read, or refuses it as its facts say.
#[must_use]
pub fn decide(snapshot: &Arc<Snapshot>, request: Result<Request, Refusal>) -> Decision {
    let request = match request {
        Ok(request) => request,
        Err(Refusal { reason, words }) => {
            tracing::warn!(
                reason = reason.as_str(),
                words,
                "request denied: it cannot be decided"
            );
            return Decision::closed(reason, snapshot.revision());
        }
    };
    // The engine does not panic. Should it ever, one request is denied and the others go on: a
    // reset stream would leave the answer to the proxy's failure mode.
    catch_unwind(AssertUnwindSafe(|| snapshot.decide(&request))).unwrap_or_else(|_| {
        tracing::error!("request denied: the engine panicked");
        Decision::closed(Reason::EvaluationError, snapshot.revision())
    })
}
