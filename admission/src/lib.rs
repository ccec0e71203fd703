//! The validating webhook: the engine's own compiler behind an AdmissionReview.
//!
//! ```text
//! AdmissionReview -> request -> the set in force, with the change -> diagnostics, flipped cases
//!                                                   -> enforcement -> verdict -> AdmissionReview
//! ```
//!
//! What it accepts the engine runs: the verdict is that of [`portcullis_policy::live::Store::propose`]. Deciding does no
//! I/O and asks no clock.

pub mod break_glass;
pub mod cases;
pub mod certificate;
pub mod decide;
pub mod enforcement;
pub mod in_force;
pub mod judge;
pub mod metrics;
pub mod object;
pub mod review;
pub mod server;
pub mod tell;
pub mod verdict;
pub mod webhook;
