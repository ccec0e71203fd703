//! Mutual TLS between workloads: `rustls` configurations that follow the SPIFFE Workload API.
//!
//! ```no_run
//! use portcullis_mtls::{Identity, exact};
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! // From the socket that SPIFFE_ENDPOINT_SOCKET names.
//! let identity = Identity::connect().await?;
//! let server = identity.server(exact(["spiffe://example.org/cart"])?)?;
//! let client = identity.client(exact(["spiffe://example.org/web"])?)?;
//! # Ok(())
//! # }
//! ```
//!
//! - Each handshake takes the SVID and the bundles of its own moment, straight from the stream of the Workload API:
//!   a rotation needs no restart, and no handshake falls into a gap between an update and its use.
//! - Who may be at the other end is said by SPIFFE ID, in the vocabulary of `spiffe-rustls`: [`exact`] IDs,
//!   [`trust_domains`], [`any`] authenticated workload, or a closure `Fn(&SpiffeId) -> bool`. There is no default.
//! - A peer is verified by the bundle of the trust domain that its SPIFFE ID names, and by no other.
//! - Sessions are never resumed: that would skip a change of the bundles.
//! - ring is the only cryptography; no provider has to be installed in the process.
//!
//! Connections that are open stay open when authorities change; close them after a time of your choice.

mod identity;
mod material;
mod peer;
mod verifier;

pub use self::identity::{Error, Identity, IdentityBuilder};
pub use self::peer::{NotAnSvid, peer_id};
pub use spiffe::{SpiffeId, TrustDomain};
pub use spiffe_rustls::{Authorizer, any, exact, trust_domains};
