//! Every other proxy in front, real and with the snippet that we ship: what gets through, and what does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what is wrong by failing"
)]

#[path = "proxies/bad_input.rs"]
mod bad_input;
#[path = "proxies/dialects.rs"]
mod dialects;
#[path = "proxies/outage.rs"]
mod outage;
#[path = "proxies/paths.rs"]
mod paths;
#[path = "proxies/proxy.rs"]
mod proxy;
#[path = "proxies/shipped.rs"]
mod shipped;
#[path = "proxies/stage.rs"]
mod stage;
#[path = "proxies/verdicts.rs"]
mod verdicts;
