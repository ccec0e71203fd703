//! Documents that come and go: last good versions, what is closed, proposals.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a panic is a failed test"
)]

mod cedar;
mod closed;
mod cluster;
mod files;
mod objects;
mod openness;
mod proposals;
mod random;
mod versions;
