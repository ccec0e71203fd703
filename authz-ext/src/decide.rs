//! From a `CheckRequest` to a decision, as the server reads and decides it.

use std::sync::Arc;

use envoy_types::ext_authz::v3::pb::CheckRequest;
use portcullis_policy::decision::Decision;
use portcullis_policy::request::Request;
use portcullis_policy::snapshot::Snapshot;
use tonic::metadata::MetadataMap;

use crate::check::{self, Refusal};
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
    check::decide(snapshot, request(snapshot, check, metadata, options))
}

/// Reads the facts of one request; what the listener does not say of the mesh, the snapshot says.
///
/// # Errors
/// [`Refusal`] as [`facts::request`].
pub fn request(
    snapshot: &Snapshot,
    check: CheckRequest,
    metadata: &MetadataMap,
    options: &facts::Options,
) -> Result<Request, Refusal> {
    let options = facts::Options {
        num_trusted_proxies: options
            .num_trusted_proxies
            .or(snapshot.mesh().num_trusted_proxies),
        ..*options
    };
    Ok(facts::request(check, metadata, &options)?)
}
