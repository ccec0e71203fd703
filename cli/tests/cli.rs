//! The command line as its user meets it: exit codes, standard output, standard error.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "cli/check.rs"]
mod check;
#[path = "cli/config.rs"]
mod config;
#[path = "cli/decide.rs"]
mod decide;
#[path = "cli/dev.rs"]
mod dev;
#[path = "cli/explain.rs"]
mod explain;
#[path = "cli/federation.rs"]
mod federation;
#[path = "cli/follow.rs"]
mod follow;
#[path = "cli/proxy_config.rs"]
mod proxy_config;
#[path = "cli/reference.rs"]
mod reference;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/serve.rs"]
mod serve;
#[path = "cli/storage.rs"]
mod storage;
#[path = "cli/supervised.rs"]
mod supervised;
#[path = "cli/svid.rs"]
mod svid;
#[path = "cli/templates.rs"]
mod templates;
#[path = "cli/usage.rs"]
mod usage;
