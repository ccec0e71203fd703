//! The certificate authority: SPIFFE identities that rotate by themselves.
//!
//! ```text
//! caller -> selectors -> registry: entries -> issuing: profile, journal, sign, conform -> SVID
//!                                              authorities -> bundle
//! ```
//!
//! [`identities`] is the seam: the Workload API and SDS stand before it and know no entry, authority
//! or table; what issues stands behind it and knows no socket.

pub mod admin;
pub mod attest;
pub mod authority;
pub mod bundle;
pub mod ca;
pub mod caller;
pub mod clock;
pub mod codec;
pub mod delivery;
mod der;
pub mod dns_name;
pub mod entry;
mod fail;
pub mod federation;
pub mod identities;
pub mod inspect;
pub mod journal;
mod json;
pub mod jwt_svid;
pub mod key;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod observe;
pub mod proto;
pub mod registry;
pub mod sds;
pub mod selector;
pub mod server;
pub mod spiffe_id;
pub mod store;
pub mod template;
pub mod trust_domain;
pub mod web;
pub mod wire;
pub mod wit_svid;
pub mod workload_api;
pub mod x509;
