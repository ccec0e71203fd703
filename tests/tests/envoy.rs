//! A real Envoy in front: what it asks, and what becomes of the answers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what is wrong by failing"
)]

#[path = "envoy/dev.rs"]
mod dev;
#[path = "envoy/facts.rs"]
mod facts;
#[path = "envoy/grpc.rs"]
mod grpc;
#[path = "envoy/http.rs"]
mod http;
#[path = "envoy/outage.rs"]
mod outage;
#[path = "envoy/rbac.rs"]
mod rbac;
#[path = "envoy/reload.rs"]
mod reload;
#[path = "envoy/setting.rs"]
mod setting;
#[path = "envoy/shipped.rs"]
mod shipped;
#[path = "envoy/tcp.rs"]
mod tcp;
#[path = "envoy/tokens.rs"]
mod tokens;
#[path = "envoy/tracing.rs"]
mod tracing;
