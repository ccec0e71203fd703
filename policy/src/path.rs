//! Request paths: what Envoy makes of a raw one before RBAC sees it, and the templates matched on it.

pub mod normalise;
pub mod template;

pub use normalise::{InvalidPath, authority, is_stable, normalise, second_pass, without_query};
pub use template::{PathTemplate, TemplateError};
