//! One check, from the facts of a request to the answer: the one way of every listener, whatever it
//! speaks.
//!
//! ```text
//! CheckRequest (gRPC) --facts--\
//!                               request -> stages -> Snapshot::decide -> Answer -> CheckResponse or HTTP answer
//! HTTP, one of its dialects ---/
//! ```

mod stages;

use std::sync::Arc;
use std::time::Instant;

use portcullis_policy::decision::{Decision, Reason};
use portcullis_policy::request::Request;
use portcullis_policy::snapshot::Snapshot;
use tonic::codegen::http::HeaderMap;

use crate::custom;
use crate::facts;
use crate::live::Live;
use crate::observe::{Decided, Observer};

pub use self::stages::Stages;

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

impl HeaderChange {
    /// The header, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Set { name, .. } | Self::Remove { name } => name,
        }
    }
}

/// A denial in the words of a CUSTOM provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    /// HTTP status.
    pub status: u16,
    /// Headers for the client, names in lower case; one may be there several times.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
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
    /// Query parameters that are taken out of the request where it is allowed.
    pub removed_parameters: Vec<String>,
    /// Headers added to the workload's response where the request is allowed; names in lower case.
    pub response_headers: Vec<(String, String)>,
    /// What the client gets instead of our own denial.
    pub denied: Option<Denied>,
}

impl Answer {
    /// True for one that says nothing but its decision.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let Self {
            decision: _,
            request_headers,
            denied_headers,
            removed_parameters,
            response_headers,
            denied,
        } = self;
        denied.is_none()
            && request_headers.is_empty()
            && denied_headers.is_empty()
            && removed_parameters.is_empty()
            && response_headers.is_empty()
    }
}

impl From<Decision> for Answer {
    fn from(decision: Decision) -> Self {
        Self {
            decision,
            request_headers: Vec::new(),
            denied_headers: Vec::new(),
            removed_parameters: Vec::new(),
            response_headers: Vec::new(),
            denied: None,
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
    listener: Arc<str>,
    live: Live,
    stages: Stages,
    observer: Observer,
}

impl Checker {
    /// A checker for the listener that logs call `listener`, which decides by what `live` holds and
    /// leaves tokens to its proxy.
    #[must_use]
    pub fn new(listener: impl Into<String>, live: Live) -> Self {
        Self::with_stages(listener, live, Stages::default(), Observer::default())
    }

    /// A checker that finds out more by itself, and whose decisions `observer` hears of.
    #[must_use]
    pub fn with_stages(
        listener: impl Into<String>,
        live: Live,
        stages: Stages,
        observer: Observer,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                listener: listener.into().into(),
                live,
                stages,
                observer,
            }),
        }
    }

    /// Who hears of the decisions.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.inner.observer
    }

    /// The listener's name in logs.
    #[must_use]
    pub fn listener(&self) -> &str {
        &self.inner.listener
    }

    /// True where an answer may have to wait for others: an issuer's keys, a CUSTOM provider.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        let stages = &self.inner.stages;
        stages.tokens.is_some() || stages.providers.is_some()
    }

    /// True for a check that this server sent to a CUSTOM provider, which turned out to be itself.
    #[must_use]
    pub fn is_own_question(&self, headers: &HeaderMap) -> bool {
        self.inner.stages.providers.as_ref().is_some_and(|own| {
            let mut asked_by = headers.get_all(custom::ASKED_BY).iter();
            asked_by.any(|value| own.is_own(value.as_bytes()))
        })
    }

    /// Decides the request that `facts` reads; `headers` are those of the check itself. Whatever
    /// cannot be decided is a denial with its reason, never an error. The snapshot is the one in
    /// force now, to the end of the request.
    pub async fn check(
        &self,
        headers: &HeaderMap,
        facts: impl FnOnce(&Snapshot) -> Result<Request, Refusal>,
    ) -> Answer {
        let started = Instant::now();
        let inner = &*self.inner;
        let snapshot = inner.live.snapshot();
        let mut asked = None;
        let mut error = None;
        let answer: Answer = match &snapshot {
            None => Decision::closed(Reason::NoSnapshot, "").into(),
            Some(snapshot) => match facts(snapshot) {
                Ok(request) => {
                    let request = asked.insert(request);
                    stages::answer(&inner.stages, &inner.observer, snapshot, request).await
                }
                Err(refusal) => {
                    error = Some(refusal.words.clone());
                    refuse(snapshot, refusal).into()
                }
            },
        };
        let decision = &answer.decision;
        tracing::debug!(
            listener = &*inner.listener,
            allow = decision.is_allow(),
            reason = decision.reason.as_str(),
            policies = ?decision.policies,
            audit = ?decision.audit,
            snapshot = decision.snapshot,
            "decided"
        );
        inner.observer.decided(Decided {
            listener: &inner.listener,
            headers,
            request: asked,
            snapshot: snapshot.as_ref(),
            decision,
            error,
            started,
        });
        answer
    }

    /// Denies a check without reading it, as when there are too many.
    #[must_use]
    pub fn refuse(&self, headers: &HeaderMap, reason: Reason, started: Instant) -> Answer {
        let inner = &*self.inner;
        let snapshot = inner.live.snapshot();
        let revision = snapshot.as_ref().map_or("", |snapshot| snapshot.revision());
        let answer = Answer::from(Decision::closed(reason, revision));
        inner.observer.decided(Decided {
            listener: &inner.listener,
            headers,
            request: None,
            snapshot: snapshot.as_ref(),
            decision: &answer.decision,
            error: None,
            started,
        });
        answer
    }
}

/// Decides one request that was read, or refuses it as its facts say.
#[must_use]
pub fn decide(snapshot: &Arc<Snapshot>, request: Result<Request, Refusal>) -> Decision {
    match request {
        Ok(request) => stages::guarded(snapshot, || snapshot.decide(&request)),
        Err(refusal) => refuse(snapshot, refusal),
    }
}

fn refuse(snapshot: &Snapshot, Refusal { reason, words }: Refusal) -> Decision {
    tracing::warn!(
        reason = reason.as_str(),
        words,
        "request denied: it cannot be decided"
    );
    Decision::closed(reason, snapshot.revision())
}
