//! A real Envoy in front: what it asks, and what becomes of the answers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what is wrong by failing"
)]

#[path = "envoy/facts.rs"]
mod facts;
#[path = "envoy/setting.rs"]
mod setting;
