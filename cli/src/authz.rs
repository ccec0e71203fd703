//! `portcullis authz`: one file per verb.

pub mod serve;
