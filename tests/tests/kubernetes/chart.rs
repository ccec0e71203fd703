//! The Helm chart: what it renders is well formed, complete, and taken by a real API server as shipped.

#[path = "chart/applied.rs"]
mod applied;
#[path = "chart/audited.rs"]
mod audited;
#[path = "chart/conform.rs"]
mod conform;
#[path = "chart/helm.rs"]
mod helm;
#[path = "chart/image.rs"]
mod image;
#[path = "chart/installed.rs"]
mod installed;
#[path = "chart/matrix.rs"]
mod matrix;
#[path = "chart/platform.rs"]
mod platform;
#[path = "chart/pods.rs"]
mod pods;
#[path = "chart/rights.rs"]
mod rights;
#[path = "chart/shipped.rs"]
mod shipped;
#[path = "chart/values.rs"]
mod values;
#[path = "chart/walkthroughs.rs"]
mod walkthroughs;
#[path = "chart/webhook.rs"]
mod webhook;
