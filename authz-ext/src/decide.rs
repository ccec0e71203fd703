//! From a `CheckRequest` to a decision: the one way, for server and command line.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use envoy_types::ext_authz::v3::pb::CheckRequest;
use portcullis_policy::decision::{Decision, Reason};
use portcullis_policy::snapshot::Snapshot;
use tonic::metadata::MetadataMap;

use crate::facts;

/// Decides one request. Whatever cannot be decided is a denial with its reason, never an error.
///
/// `metadata` are the gRPC request's own headers; empty off-line.
#[must_use]
pub fn decide(
    snapshot: &Arc<Snapshot>,
    check: CheckRequest,
    metadata: &MetadataMap,
    options: &facts::Options,
) -> Decision {
    let options = facts::Options {
        num_trusted_proxies: options
            .num_trusted_proxies
            .or(snapshot.mesh().num_trusted_proxies),
        ..*options
    };
    let request = match facts::request(check, metadata, &options) {
        Ok(request) => request,
        Err(invalid) => {
            tracing::warn!(reason = %invalid, "request denied: it cannot be read");
            return Decision::closed(Reason::InvalidRequest, snapshot.revision());
        }
    };
    // The engine does not panic. Should it ever, one request is denied and the others go on: a
    // reset stream would leave the answer to the proxy's failure mode.
    catch_unwind(AssertUnwindSafe(|| snapshot.decide(&request))).unwrap_or_else(|_| {
        tracing::error!("request denied: the engine panicked");
        Decision::closed(Reason::EvaluationError, snapshot.revision())
    })
}
