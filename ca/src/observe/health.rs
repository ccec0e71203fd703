//! Whether the certificate authority can do what it is there for, and why not.

use serde_json::{Value, json};

use crate::ca::Ca;
use crate::journal::rfc3339;
use crate::observe::cluster::ClusterStatus;

/// Every reason for which nothing can be issued now, or nothing to pods; none is good.
#[must_use]
pub fn reasons(ca: &Ca) -> Vec<String> {
    let mut reasons = Vec::new();
    let (set, now) = (ca.authorities(), ca.clock().now());
    for kind in ca.kinds() {
        let active = set.active(kind);
        if active.is_some_and(|authority| authority.can_sign(now)) {
            continue;
        }
        reasons.push(match active {
            None => format!("there is no active {kind} authority"),
            Some(active) if active.key.is_none() => {
                format!("the private key of the active {kind} authority is gone")
            }
            Some(active) => format!(
                "the active {kind} authority is valid from {} to {}, and it is {}",
                rfc3339(active.row.not_before),
                rfc3339(active.row.not_after),
                rfc3339(now)
            ),
        });
    }
    if let Some(cause) = ca.journal().stats().failing() {
        reasons.push(format!(
            "the audit journal cannot be written, and nothing is issued without it: {cause}"
        ));
    }
    let cluster = ca.observer().cluster();
    reasons.extend(cluster.iter().flat_map(ClusterStatus::reasons));
    reasons
}

/// What an operator has to look at, while everything works.
#[must_use]
pub fn alarms(ca: &Ca) -> Vec<String> {
    let cluster = ca.observer().cluster();
    let of_cluster = cluster.iter().flat_map(ClusterStatus::alarms);
    let past = ca.journal().past().alarm().into_iter();
    past.chain(of_cluster).collect()
}

/// What `/readyz` says: whether it is ready, and why not.
pub(crate) fn ready(ca: &Ca) -> (bool, Value) {
    let reasons = reasons(ca);
    let page = json!({
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "alarms": alarms(ca),
        "trust_domain": ca.trust_domain().as_str(),
        "bundle_sequence": ca.bundle().sequence,
        "entries": ca.registry().index().len(),
    });
    (reasons.is_empty(), page)
}
