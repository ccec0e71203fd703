//! `authz serve` in production: certificates that rotate under load, identities from a Workload API, a soak.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what is wrong by failing"
)]

/// The command line as this build made it.
const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");

mod serving {
    mod mtls;
    mod soak;
    mod svid;
    mod units;
}
