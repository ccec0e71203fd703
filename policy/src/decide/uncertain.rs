//! What is not known about a request: when it closes the decision, and when a denial hangs on it.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Located, Outcome, Satisfied, Trial};
use crate::decision::{Reason, Verdict};
use crate::facts::{Facts, View};
use crate::model::{Dialect, Rule};
use crate::reads::Reads;
use crate::request::{Http, IdentityKind, RemoteAddress, Request};
use crate::slice::Slice;
use crate::snapshot::Snapshot;
use crate::worker::{Answer, Worker};

/// Why a request is not decided at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// Some policy looks at what the request does not carry.
    #[error("the request carries no {0}, and a policy for this workload looks at it")]
    Missing(&'static str),
    /// Where identities must be SVIDs, a certificate with two is none.
    #[error(
        "the peer's certificate has more than one URI SAN, and `identity.require_svid` wants one"
    )]
    TwoIdentities,
}

impl Closed {
    /// The word for it.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Missing(_) => Reason::InvalidRequest,
            Self::TwoIdentities => Reason::AmbiguousIdentity,
        }
    }
}

/// What every proxy sends, is not there, and cannot be weighed as possible: Cedar reads these as
/// attributes, and user policies read everything so.
#[must_use]
pub fn closed(snapshot: &Snapshot, located: &Located, request: &Request) -> Option<Closed> {
    let slice = &located.slice;
    let uris = request.source.identities.iter();
    if snapshot.requires_svid() && uris.filter(|i| i.kind == IdentityKind::Uri).count() > 1 {
        return Some(Closed::TwoIdentities);
    }
    let (missing, both) = (request.missing, slice.rules_read.and(slice.user_reads));
    let http = request
        .http
        .as_ref()
        .filter(|_| located.dialect == Dialect::Http);
    let lacks = |is: fn(&Http) -> bool| http.is_some_and(is);
    let user = slice.user_reads;
    [
        (
            lacks(|h| h.method.is_empty()),
            both.any_of(Reads::METHOD),
            "method",
        ),
        (
            // A CONNECT request has none.
            lacks(|h| h.path.is_empty() && h.method != "CONNECT"),
            both.any_of(Reads::PATH),
            "path",
        ),
        (
            lacks(|h| h.host.is_empty()),
            both.any_of(Reads::HOST),
            "host",
        ),
        (
            missing.source_address,
            user.any_of(Reads::SOURCE_ADDRESS),
            "source address",
        ),
        (
            missing.source_address && request.remote == RemoteAddress::Unknown,
            user.any_of(Reads::REMOTE_ADDRESS),
            "source address",
        ),
        (
            missing.destination_address,
            user.any_of(Reads::DESTINATION_ADDRESS),
            "destination address",
        ),
        (
            missing.destination_port,
            user.any_of(Reads::DESTINATION_PORT),
            "destination port",
        ),
    ]
    .into_iter()
    .find(|(lacks, reads, _)| *lacks && *reads)
    .map(|(_, _, what)| Closed::Missing(what))
}

/// A denial that would be an allow if what is unknown were the right thing says so.
pub(super) fn hanging(
    outcome: Outcome,
    request: &Request,
    slice: &Slice,
    favourable: impl FnOnce() -> Reason,
) -> Outcome {
    let read = slice.rules_read.and(slice.user_reads);
    let reason = if request.remote == RemoteAddress::Unknown && read.any_of(Reads::REMOTE_ADDRESS) {
        Reason::RemoteAddressUnknown
    } else if request.missing.any() {
        Reason::InvalidRequest
    } else {
        return outcome;
    };
    if outcome.reason.verdict() == Verdict::Deny && favourable().verdict() == Verdict::Allow {
        return Outcome { reason, ..outcome };
    }
    outcome
}

/// The reason if every uncertainty were read in the request's favour: it never turns a denial into an
/// allow, it only gives it a better name. Rules of manifests are matched natively alone.
pub(super) fn favourable(
    snapshot: &Snapshot,
    worker: &mut Worker,
    located: &Located,
    request: &Request,
    facts: &Facts<'_>,
    trial: Trial,
) -> Reason {
    let slice = &located.slice;
    let path = facts.http.as_ref().map(|http| Cow::Borrowed(http.path()));
    let view = View {
        favourable: true,
        ..facts.view
    };
    let facts = super::facts(request, located.dialect, path, view);
    let mut matching: Vec<&Arc<Rule>> = super::synthetic(slice, request)
        .chain(&slice.rules)
        .filter(|rule| facts.rule(rule))
        .collect();
    let mut answers = vec![Answer::Satisfied; matching.len()];
    answers.extend(super::user::answers(snapshot, worker, located, &facts));
    matching.extend(slice.user.iter().map(|user| &user.rule));
    let satisfied = Satisfied::new(&matching, &answers);
    super::combine(snapshot, request, slice, &satisfied, trial).reason
}
