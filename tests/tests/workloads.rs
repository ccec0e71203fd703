//! Real workloads before the certificate authority: SPIFFE libraries of four languages, and Envoy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod workloads {
    mod chains;
    mod discovery;
    mod envoy;
    mod jwt_identity;
    mod mtls;
    mod rotation;
    mod soak;
    mod spire;
    mod streams;
}
