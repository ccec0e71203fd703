//! Denials that hang on something unknown: the client's address behind proxies nobody counted.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Located, Outcome, Satisfied, Trial};
use crate::decision::{Reason, Verdict};
use crate::facts::{Facts, View};
use crate::model::Rule;
use crate::request::{RemoteAddress, Request};
use crate::snapshot::Snapshot;
use crate::worker::{Answer, Worker};

/// A denial that would be an allow if the client's address were the right one says so.
pub(super) fn hanging(
    outcome: Outcome,
    request: &Request,
    favourable: impl FnOnce() -> Reason,
) -> Outcome {
    let unknown = request.remote == RemoteAddress::Unknown;
    if unknown
        && outcome.reason.verdict() == Verdict::Deny
        && favourable().verdict() == Verdict::Allow
    {
        return Outcome {
            reason: Reason::RemoteAddressUnknown,
            ..outcome
        };
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
    super::user(
        snapshot,
        worker,
        located,
        &facts,
        &mut matching,
        &mut answers,
    );
    let satisfied = Satisfied::new(&matching, &answers);
    super::combine(snapshot, request, slice, &satisfied, trial).reason
}
