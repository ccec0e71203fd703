//! What gRPC clients of every language need on unix sockets, and HTTP/2 in Rust does not give them.
//!
//! The services share this and nothing else: it knows octets, neither Envoy nor certificates.

mod authority;
mod hpack;
mod huffman;

pub use authority::AuthorityRepair;
