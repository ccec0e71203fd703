//! `portcullis authz`: one file per verb.

pub mod config;
pub mod management;
pub mod serve;
pub mod tail;
pub mod top;
