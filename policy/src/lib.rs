//! Portcullis's policy engine: manifests in, a verdict with its reasons out.
//!
//! ```text
//! document -> resource -> rule -> Cedar policy -> snapshot -> decision
//! ```
//!
//! [`compile`](compile::compile) is the only doorway: command line, webhook and reload all call it,
//! so what one accepts is what the others run. The engine does no I/O and knows no wire format.

pub mod attachment;
pub mod cedar;
pub mod closing;
pub mod compile;
pub mod decide;
pub mod decision;
pub mod diagnostic;
pub mod document;
pub mod explain;
pub mod facts;
pub mod index;
pub mod inventory;
pub mod lint;
pub mod live;
pub mod lower;
pub mod mesh;
pub mod model;
pub mod order;
mod parted;
pub mod path;
pub mod peer_authentication;
pub mod policy_set;
pub mod reads;
pub mod reference;
pub mod request;
pub mod request_authentication;
pub mod resource;
pub mod settings;
pub mod slice;
pub mod slices;
pub mod snapshot;
pub mod text;
pub mod user;
pub mod worker;
