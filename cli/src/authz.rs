//! `portcullis authz`: one file per verb.

pub mod config;
pub mod serve;
