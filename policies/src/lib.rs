//! Data that ships with Portcullis: the Cedar schema, example manifests and their decision cases.

pub mod examples;

/// The Cedar schema, in Cedar's own syntax.
pub const SCHEMA: &str = include_str!("../schema.cedarschema");
