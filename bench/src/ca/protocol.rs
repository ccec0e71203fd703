//! The messages that callers send and read, by their published field numbers: nothing of the server's own code takes part.

use prost::Message;
use prost::bytes::Bytes;

/// Path of a method of the Workload API, which has no package.
pub const FETCH_X509: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
/// FetchJWTSVID of the Workload API.
pub const FETCH_JWT: &str = "/SpiffeWorkloadAPI/FetchJWTSVID";
/// MintX509SVID of SPIRE's server API.
pub const MINT_X509: &str = "/spire.api.server.svid.v1.SVID/MintX509SVID";
/// BatchNewX509SVID of SPIRE's server API.
pub const BATCH_X509: &str = "/spire.api.server.svid.v1.SVID/BatchNewX509SVID";
/// MintJWTSVID of SPIRE's server API.
pub const MINT_JWT: &str = "/spire.api.server.svid.v1.SVID/MintJWTSVID";
/// NewJWTSVID of SPIRE's server API.
pub const NEW_JWT: &str = "/spire.api.server.svid.v1.SVID/NewJWTSVID";
/// BatchCreateEntry of SPIRE's server API.
pub const CREATE: &str = "/spire.api.server.entry.v1.Entry/BatchCreateEntry";
/// BatchDeleteEntry of SPIRE's server API.
pub const DELETE: &str = "/spire.api.server.entry.v1.Entry/BatchDeleteEntry";
/// GetX509AuthorityState of SPIRE's server API.
pub const AUTHORITIES: &str =
    "/spire.api.server.localauthority.v1.LocalAuthority/GetX509AuthorityState";
/// PrepareX509Authority of SPIRE's server API.
pub const PREPARE: &str = "/spire.api.server.localauthority.v1.LocalAuthority/PrepareX509Authority";
/// ActivateX509Authority of SPIRE's server API.
pub const ACTIVATE: &str =
    "/spire.api.server.localauthority.v1.LocalAuthority/ActivateX509Authority";
/// TaintX509Authority of SPIRE's server API.
pub const TAINT: &str = "/spire.api.server.localauthority.v1.LocalAuthority/TaintX509Authority";

/// A request without fields, or an answer whose fields do not matter.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

/// X509SVIDResponse.
#[derive(Clone, PartialEq, Message)]
pub struct X509Answer {
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<WorkloadSvid>,
}

/// X509SVID of the Workload API.
#[derive(Clone, PartialEq, Message)]
pub struct WorkloadSvid {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub chain: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub bundle: Bytes,
}

/// JWTSVIDRequest.
#[derive(Clone, PartialEq, Message)]
pub struct JwtQuestion {
    #[prost(string, repeated, tag = "1")]
    pub audience: Vec<String>,
}

/// JWTSVIDResponse.
#[derive(Clone, PartialEq, Message)]
pub struct JwtAnswer {
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<WorkloadJwt>,
}

/// JWTSVID of the Workload API.
#[derive(Clone, PartialEq, Message)]
pub struct WorkloadJwt {
    #[prost(string, tag = "2")]
    pub svid: String,
}

/// SPIFFEID.
#[derive(Clone, PartialEq, Message)]
pub struct Id {
    #[prost(string, tag = "1")]
    pub trust_domain: String,
    #[prost(string, tag = "2")]
    pub path: String,
}

/// MintX509SVIDRequest.
#[derive(Clone, PartialEq, Message)]
pub struct MintX509 {
    #[prost(bytes = "bytes", tag = "1")]
    pub csr: Bytes,
}

/// MintX509SVIDResponse.
#[derive(Clone, PartialEq, Message)]
pub struct MintedX509 {
    #[prost(message, optional, tag = "1")]
    pub svid: Option<Svid>,
}

/// X509SVID of the server API.
#[derive(Clone, PartialEq, Message)]
pub struct Svid {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub chain: Vec<Bytes>,
}

/// BatchNewX509SVIDRequest.
#[derive(Clone, PartialEq, Message)]
pub struct BatchX509 {
    #[prost(message, repeated, tag = "1")]
    pub params: Vec<NewX509>,
}

/// NewX509SVIDParams.
#[derive(Clone, PartialEq, Message)]
pub struct NewX509 {
    #[prost(string, tag = "1")]
    pub entry_id: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub csr: Bytes,
}

/// BatchNewX509SVIDResponse.
#[derive(Clone, PartialEq, Message)]
pub struct BatchedX509 {
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<MaybeSvid>,
}

/// Result within it.
#[derive(Clone, PartialEq, Message)]
pub struct MaybeSvid {
    #[prost(message, optional, tag = "2")]
    pub svid: Option<Svid>,
}

/// MintJWTSVIDRequest.
#[derive(Clone, PartialEq, Message)]
pub struct MintJwt {
    #[prost(message, optional, tag = "1")]
    pub id: Option<Id>,
    #[prost(string, repeated, tag = "2")]
    pub audience: Vec<String>,
}

/// NewJWTSVIDRequest.
#[derive(Clone, PartialEq, Message)]
pub struct NewJwt {
    #[prost(string, tag = "1")]
    pub entry_id: String,
    #[prost(string, repeated, tag = "2")]
    pub audience: Vec<String>,
}

/// MintJWTSVIDResponse and NewJWTSVIDResponse.
#[derive(Clone, PartialEq, Message)]
pub struct MintedJwt {
    #[prost(message, optional, tag = "1")]
    pub svid: Option<Jwt>,
}

/// JWTSVID of the server API.
#[derive(Clone, PartialEq, Message)]
pub struct Jwt {
    #[prost(string, tag = "1")]
    pub token: String,
}

/// BatchCreateEntryRequest.
#[derive(Clone, PartialEq, Message)]
pub struct CreateEntries {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
}

/// Entry.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub spiffe_id: Option<Id>,
    #[prost(message, repeated, tag = "4")]
    pub selectors: Vec<Selector>,
}

/// Selector.
#[derive(Clone, PartialEq, Message)]
pub struct Selector {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// BatchCreateEntryResponse, and BatchDeleteEntryResponse as far as both are alike.
#[derive(Clone, PartialEq, Message)]
pub struct Results {
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<Outcome>,
}

/// Result within it.
#[derive(Clone, PartialEq, Message)]
pub struct Outcome {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
}

/// Status.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// BatchDeleteEntryRequest.
#[derive(Clone, PartialEq, Message)]
pub struct DeleteEntries {
    #[prost(string, repeated, tag = "1")]
    pub ids: Vec<String>,
}

/// GetX509AuthorityStateResponse.
#[derive(Clone, PartialEq, Message)]
pub struct Authorities {
    #[prost(message, optional, tag = "1")]
    pub active: Option<Authority>,
}

/// The one authority of a request or an answer about one.
#[derive(Clone, PartialEq, Message)]
pub struct OneAuthority {
    #[prost(message, optional, tag = "1")]
    pub authority: Option<Authority>,
}

/// AuthorityState.
#[derive(Clone, PartialEq, Message)]
pub struct Authority {
    #[prost(string, tag = "1")]
    pub id: String,
}

/// A request that names an authority.
#[derive(Clone, PartialEq, Message)]
pub struct Name {
    #[prost(string, tag = "1")]
    pub authority_id: String,
}

impl Entry {
    /// An entry for callers with all of `selectors`.
    pub fn new(id: &str, path: &str, selectors: &[(&str, &str)]) -> Self {
        let selector = |(kind, value): &(&str, &str)| Selector {
            kind: (*kind).to_owned(),
            value: (*value).to_owned(),
        };
        Self {
            id: id.to_owned(),
            spiffe_id: Some(Id {
                trust_domain: super::TRUST_DOMAIN.to_owned(),
                path: path.to_owned(),
            }),
            selectors: selectors.iter().map(selector).collect(),
        }
    }
}
