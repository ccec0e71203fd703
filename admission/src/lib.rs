//! The validating webhook: the engine's own compiler behind an AdmissionReview.
//!
//! ```text
//! AdmissionReview -> request -> the set in force, with the change -> diagnostics, flipped cases
//!                                                   -> enforcement -> verdict -> AdmissionReview
//! ```
//!
//! What it accepts the engine runs: the verdict is that of [`portcullis_policy::live::Store::propose`]. Deciding asks no
//! clock, and nobody but [`in_force::InForce`].

pub mod break_glass;
pub mod cases;
#[cfg(feature = "serve")]
pub mod certificate;
pub mod decide;
pub mod enforcement;
#[cfg(feature = "serve")]
pub mod follow;
pub mod in_force;
pub mod judge;
#[cfg(feature = "serve")]
pub mod metrics;
pub mod object;
pub mod review;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "serve")]
pub mod server;
pub mod tell;
pub mod verdict;
pub mod webhook;
