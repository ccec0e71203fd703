//! Envoy's ext_authz in front of the policy engine: the only crate of ours that knows Envoy.
//!
//! ```text
//! CheckRequest -> facts -> policy::request::Request -> Snapshot::decide -> Decision -> CheckResponse
//! ```
//!
//! [`check_request`] reads Envoy's request from protobuf JSON, [`facts`] turns it into the engine's,
//! [`respond`] turns the decision into Envoy's answer. [`files`] reads policies for the server and
//! for the command line alike.

pub mod check_request;
pub mod descriptor;
pub mod facts;
pub mod files;
pub mod respond;
