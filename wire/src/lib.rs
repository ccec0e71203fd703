//! Unix sockets as the services listen on them: files that are placed and removed safely, and what gRPC
//! clients of every language need there and HTTP/2 in Rust does not give them.
//!
//! The services share this and nothing else: it knows octets, neither Envoy nor certificates.

mod authority;
mod hpack;
mod huffman;
mod socket;

pub use authority::AuthorityRepair;
pub use socket::{SocketFile, bind_unix};
