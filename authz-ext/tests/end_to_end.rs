//! The server as a proxy sees it: over TCP and unix sockets, with files that change beneath it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod end_to_end {
    mod bad_input;
    mod custom;
    mod custom_behind_http;
    mod custom_http;
    mod custom_provider;
    mod decision_log;
    mod drain;
    mod frames;
    mod limits;
    mod management;
    mod otlp;
    mod otlp_secured;
    mod ready;
    mod reload;
    mod serve;
    mod streams;
    pub mod support;
    pub mod tls;
    pub mod tokens;
}
