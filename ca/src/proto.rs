//! Protocol buffers that we serve, generated from the files below `ca/proto`.
//!
//! Those are written afresh from the published names and field numbers, so that any client of the
//! original can talk to us.

/// `FileDescriptorSet` of everything below `ca/proto`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ca.binpb"));

/// SPIRE's server API and our own beside it, by their packages: generated code refers to its neighbours.
#[allow(
    missing_docs,
    clippy::all,
    clippy::indexing_slicing,
    clippy::allow_attributes_without_reason,
    reason = "generated; the .proto files have the comments"
)]
pub mod spire {
    pub mod api {
        pub mod types {
            include!(concat!(env!("OUT_DIR"), "/spire.api.types.rs"));
        }
        pub mod server {
            pub mod entry {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.entry.v1.rs"));
                }
            }
            pub mod bundle {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.bundle.v1.rs"));
                }
            }
            pub mod svid {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/spire.api.server.svid.v1.rs"));
                }
            }
            pub mod trustdomain {
                pub mod v1 {
                    include!(concat!(
                        env!("OUT_DIR"),
                        "/spire.api.server.trustdomain.v1.rs"
                    ));
                }
            }
            pub mod localauthority {
                pub mod v1 {
                    include!(concat!(
                        env!("OUT_DIR"),
                        "/spire.api.server.localauthority.v1.rs"
                    ));
                }
            }
        }
    }
}

pub use spire::api::types;

/// Our own status service.
#[allow(
    missing_docs,
    clippy::all,
    clippy::indexing_slicing,
    clippy::allow_attributes_without_reason,
    reason = "generated; the .proto files have the comments"
)]
pub mod status {
    include!(concat!(env!("OUT_DIR"), "/portcullis.ca.v1.rs"));
}

/// The SPIFFE Workload API; its protocol has no package.
#[allow(
    missing_docs,
    clippy::all,
    clippy::indexing_slicing,
    clippy::allow_attributes_without_reason,
    reason = "generated; the .proto files have the comments"
)]
pub mod workload {
    include!(concat!(env!("OUT_DIR"), "/_.rs"));
}

/// The parts of Envoy's protocol that SDS needs, by their packages: generated code refers to its neighbours.
#[allow(
    missing_docs,
    clippy::all,
    clippy::indexing_slicing,
    clippy::allow_attributes_without_reason,
    reason = "generated; the .proto files have the comments"
)]
pub(crate) mod envoy_packages {
    pub mod google {
        pub mod rpc {
            include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
        }
    }
    pub mod envoy {
        pub mod config {
            pub mod core {
                pub mod v3 {
                    include!(concat!(env!("OUT_DIR"), "/envoy.config.core.v3.rs"));
                }
            }
        }
        pub mod extensions {
            pub mod transport_sockets {
                pub mod tls {
                    pub mod v3 {
                        include!(concat!(
                            env!("OUT_DIR"),
                            "/envoy.extensions.transport_sockets.tls.v3.rs"
                        ));
                    }
                }
            }
        }
        pub mod service {
            pub mod discovery {
                pub mod v3 {
                    include!(concat!(env!("OUT_DIR"), "/envoy.service.discovery.v3.rs"));
                }
            }
            pub mod secret {
                pub mod v3 {
                    include!(concat!(env!("OUT_DIR"), "/envoy.service.secret.v3.rs"));
                }
            }
        }
    }
}

/// What SDS reads and writes.
pub mod sds {
    pub use super::envoy_packages::envoy::config::core::v3::*;
    pub use super::envoy_packages::envoy::extensions::transport_sockets::tls::v3::*;
    pub use super::envoy_packages::envoy::service::discovery::v3::*;
    pub use super::envoy_packages::envoy::service::secret::v3::*;
    pub use super::envoy_packages::google::rpc::Status;
}
