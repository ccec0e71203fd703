//! Envoy's ext_authz in front of the policy engine: the only crate of ours that knows Envoy.
//!
//! ```text
//! CheckRequest -> facts -> policy::request::Request -> check -> Answer -> CheckResponse
//! ```
//!
//! [`check_request`] reads Envoy's request from protobuf JSON, [`facts`] turns it into the engine's,
//! [`check`] decides it (every listener does so there, and nowhere else), [`respond`] turns the answer
//! into Envoy's; [`decide`] is the way of the command line. [`files`] reads policies, [`reload`] keeps the snapshot in [`live`]
//! up to date, [`grpc`] speaks gRPC, [`http`] the HTTP dialects of
//! other proxies, [`feed`] takes snapshots that others make, [`observe`] tells others of every decision, [`management`] shows it to operators,
//! and [`server`] wires them together.

pub mod check;
pub mod check_request;
pub mod client;
pub mod custom;
pub mod decide;
pub mod descriptor;
pub mod endpoint;
pub mod facts;
pub mod feed;
pub mod files;
pub mod grpc;
pub mod health;
pub mod http;
mod incoming;
pub mod limits;
pub mod live;
pub mod management;
pub mod observe;
pub mod policy_test;
pub mod reload;
pub mod respond;
pub mod server;
pub mod tls;
pub mod token;
