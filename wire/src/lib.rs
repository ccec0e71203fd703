//! Unix sockets as the services listen on them: files that are placed and removed safely, and what gRPC
//! clients of every language need there and HTTP/2 in Rust does not give them. And what both
//! tell operators with: the way to a collector, and metrics. With the feature `kube`, the way to a
//! Kubernetes API server.
//!
//! The services share this and nothing else: it knows octets and connections, neither Envoy nor SVIDs.

mod authority;
pub mod collector;
mod hpack;
mod huffman;
#[cfg(feature = "kube")]
pub mod kube;
pub mod metrics;
mod prompt;
mod socket;

pub use authority::AuthorityRepair;
pub use prompt::Prompt;
pub use socket::{SocketFile, bind_unix};
