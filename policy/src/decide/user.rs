//! User policies at a destination, under everything that the request could mean.
//!
//! A user policy reads plain values: it cannot ask what is possible. So where a header was merged on
//! the way, or the client stands behind proxies nobody counted, the policies are evaluated for each
//! reading, the one that leaves the fact open among them. A permit must hold in all, a forbid in one.

use std::borrow::Cow;
use std::net::IpAddr;

use super::Located;
use crate::facts::{Facts, header};
use crate::model::Role;
use crate::reads::Reads;
use crate::request::{RemoteAddress, Request};
use crate::snapshot::Snapshot;
use crate::user::UserPolicy;
use crate::worker::{Answer, Worker};

/// More addresses than this in X-Forwarded-For are not tried: what hangs on them is then decided
/// against the request.
const MOST_ADDRESSES: usize = 8;

/// What each user policy of the slice came to.
pub fn answers(
    snapshot: &Snapshot,
    worker: &mut Worker,
    located: &Located,
    facts: &Facts<'_>,
) -> Vec<Answer> {
    let (policies, request) = (&located.slice.user, facts.request);
    let destination = snapshot.inventory().workload(located.resolved.workload);
    let (false, Some(destination)) = (policies.is_empty(), destination) else {
        return Vec::new();
    };
    let mut evaluate = |facts: &Facts<'_>| {
        worker.evaluate_user(
            facts,
            located.resolved.target,
            policies,
            destination,
            snapshot.uids(),
        )
    };
    let readings = readings(facts, located.slice.user_reads);
    let path = facts.http.as_ref().map(|http| Cow::Borrowed(http.path()));
    let all: Vec<Vec<Answer>> = match readings.requests.as_slice() {
        [_as_it_is] => vec![evaluate(facts)],
        several => several
            .iter()
            .map(|request| {
                let facts = super::facts(request, located.dialect, path.clone(), facts.view);
                evaluate(&facts)
            })
            .collect(),
    };
    policies
        .iter()
        .enumerate()
        .map(|(place, policy)| {
            let of = || all.iter().filter_map(|answers| answers.get(place));
            if of().any(|a| *a == Answer::Error) {
                return Answer::Error;
            }
            let every = (policy.rule.role == Role::Allow) != facts.view.favourable;
            let complete = readings.complete && !leaves_out(request, policy);
            let satisfied = if every {
                complete && of().all(|a| *a == Answer::Satisfied)
            } else {
                !complete || of().any(|a| *a == Answer::Satisfied)
            };
            if satisfied {
                Answer::Satisfied
            } else {
                Answer::Not
            }
        })
        .collect()
}

/// What a request could mean.
struct Readings {
    requests: Vec<Request>,
    /// Nothing was left out.
    complete: bool,
}

/// True when the policy looks at a header of which no reading tells all: the way here does not carry it,
/// or there are too many ways to take it apart.
fn leaves_out(request: &Request, policy: &UserPolicy) -> bool {
    let headers = request.http.as_ref().map(|http| &http.headers);
    headers.is_some_and(|headers| {
        policy.reads.any_of(Reads::HEADERS)
            && header::not_told(headers).any(|name| policy.looks_at_header(name))
    })
}

/// The readings that differ in what `reads` looks at.
fn readings(facts: &Facts<'_>, reads: Reads) -> Readings {
    let request = facts.request;
    let remote_unknown =
        request.remote == RemoteAddress::Unknown && reads.any_of(Reads::REMOTE_ADDRESS);
    let joined = reads.any_of(Reads::HEADERS) && facts.has_joined_headers();
    let mut complete = true;
    let mut requests = vec![request.clone()];
    if remote_unknown {
        let clients = clients(request);
        complete = clients.len() <= MOST_ADDRESSES;
        let known = clients
            .into_iter()
            .take(MOST_ADDRESSES)
            .map(|client| Request {
                remote: RemoteAddress::Known(client),
                ..request.clone()
            });
        requests.extend(known);
    }
    if joined {
        let cut = |how: fn(&mut crate::request::Headers)| {
            requests.iter().map(move |request| {
                let mut request = request.clone();
                if let Some(http) = &mut request.http {
                    how(&mut http.headers);
                }
                request
            })
        };
        requests = cut(|_| ())
            .chain(cut(header::cut_everywhere))
            .chain(cut(header::cut_in_every_way))
            .collect();
    }
    Readings { requests, complete }
}

/// Addresses that the client could have: the peer's, and each that X-Forwarded-For names.
fn clients(request: &Request) -> Vec<IpAddr> {
    let headers = request.http.iter().flat_map(|http| &http.headers.entries);
    let forwarded = headers
        .filter(|(name, _)| name == "x-forwarded-for")
        .flat_map(|(_, value)| value.split(','))
        .filter_map(|entry| entry.trim().parse().ok());
    let mut clients: Vec<IpAddr> = request
        .source
        .address
        .into_iter()
        .chain(forwarded)
        .collect();
    clients.sort();
    clients.dedup();
    clients
}
