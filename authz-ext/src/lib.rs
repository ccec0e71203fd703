//! Envoy's ext_authz in front of the policy engine: the only crate of ours that knows Envoy.
//!
//! ```text
//! CheckRequest -> facts -> policy::request::Request -> Snapshot::decide -> Decision -> CheckResponse
//! ```
//!
//! [`check_request`] reads Envoy's request from protobuf JSON, [`facts`] turns it into the engine's,
//! [`decide`] asks the engine, [`respond`] turns the decision into Envoy's answer: the command line
//! and the server share these. [`files`] reads policies, [`reload`] keeps the snapshot in [`live`]
//! up to date, [`service`] speaks gRPC, and [`server`] wires them together.

pub mod check_request;
pub mod client;
pub mod decide;
pub mod descriptor;
pub mod endpoint;
pub mod facts;
pub mod files;
mod incoming;
pub mod live;
pub mod reload;
pub mod respond;
pub mod server;
pub mod service;
