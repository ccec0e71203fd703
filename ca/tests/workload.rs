//! The workload socket end to end, before identities that the tests arrange.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod workload {
    mod attestation;
    mod delivery;
    pub mod fake;
    mod reuse;
    mod secrets;
    pub mod server;
    mod statuses;
    mod streams;
}
