//! Facts that a trusted proxy states as `x-portcullis-*` headers, under the names that they have as
//! gRPC metadata.

use portcullis_policy::decision::Reason;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataMap;

use super::Options;
use super::peer::Peer;
use crate::check::Refusal;

/// Headers whose names begin so are ours: no rule sees them.
pub(super) const PREFIX: &str = "x-portcullis-";

/// A fact that a proxy may state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatedFact {
    /// `x-portcullis-workload`: who is asked.
    Workload,
    /// `x-portcullis-target`: which kind of proxy asks.
    Target,
    /// `x-portcullis-service`: the service that a waypoint serves.
    Service,
    /// `x-portcullis-remote-address`: the client behind proxies.
    RemoteAddress,
    /// `x-portcullis-direct-address`: the proxy's own peer.
    DirectAddress,
}

impl StatedFact {
    /// Every fact.
    pub const ALL: [Self; 5] = [
        Self::Workload,
        Self::Target,
        Self::Service,
        Self::RemoteAddress,
        Self::DirectAddress,
    ];

    /// The word used in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Target => "target",
            Self::Service => "service",
            Self::RemoteAddress => "remote_address",
            Self::DirectAddress => "direct_address",
        }
    }

    /// The header that states it.
    #[must_use]
    pub fn header(self) -> &'static str {
        match self {
            Self::Workload => "x-portcullis-workload",
            Self::Target => "x-portcullis-target",
            Self::Service => "x-portcullis-service",
            Self::RemoteAddress => "x-portcullis-remote-address",
            Self::DirectAddress => "x-portcullis-direct-address",
        }
    }
}

/// The facts that the listener reads, as if they were gRPC metadata.
pub(super) fn read(
    headers: &HeaderMap,
    options: &Options,
    peer: &Peer,
) -> Result<MetadataMap, Refusal> {
    let mut stated = HeaderMap::new();
    for fact in &options.stated {
        let name = fact.header();
        for value in headers.get_all(name) {
            // What a proxy has nothing to say about it may leave empty.
            if !value.is_empty() {
                stated.append(name, value.clone());
            }
        }
    }
    if !stated.is_empty() && !options.trusted.holds(peer) {
        return Err(Refusal::new(
            Reason::UntrustedIdentitySource,
            "a peer that is not on the listener's trust list states `x-portcullis-*` facts",
        ));
    }
    Ok(MetadataMap::from_headers(stated))
}
