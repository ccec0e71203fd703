//! The harness behind the end-to-end scenarios: real components, the proxy in front, the clients before it.
//!
//! Nothing here is installed into the system: components are unpacked under the target folder, pinned by digest,
//! and every program that is started has a time limit and is ended by its process id.

pub mod authority;
pub mod cargo;
pub mod client;
pub mod component;
pub mod convert;
pub mod corpus;
pub mod echo;
pub mod envoy;
pub mod generate;
pub mod kube_api;
pub mod naive;
pub mod portcullis;
pub mod ports;
pub mod process;
pub mod stub;
pub mod token;
pub mod workload;
