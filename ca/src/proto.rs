//! Protocol buffers that we serve, generated from the files below `ca/proto`.
//!
//! Those are written afresh from the published names and field numbers, so that any client of the
//! original can talk to us.

/// `FileDescriptorSet` of everything below `ca/proto`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ca.binpb"));

/// `spire.api.types`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::indexing_slicing,
    reason = "generated; the .proto files have the comments"
)]
pub mod types {
    include!(concat!(env!("OUT_DIR"), "/spire.api.types.rs"));
}
