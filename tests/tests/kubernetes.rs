//! What Portcullis does in a cluster, against a real Kubernetes API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what is wrong by failing"
)]

#[path = "kubernetes/admission.rs"]
mod admission;
#[path = "kubernetes/api_server.rs"]
mod api_server;
#[path = "kubernetes/chart.rs"]
mod chart;
#[path = "kubernetes/cluster.rs"]
mod cluster;
#[path = "kubernetes/identity.rs"]
mod identity;
#[path = "kubernetes/kinds.rs"]
mod kinds;
#[expect(dead_code, reason = "what other scenarios need of it")]
#[path = "envoy/setting.rs"]
mod setting;
#[path = "kubernetes/source.rs"]
mod source;
