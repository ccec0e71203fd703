//! External authorization over plain HTTP/1, for every proxy that does not speak ext_authz over gRPC.
//!
//! ```text
//! check request -> dialect: method, target, host of the original request
//!               -> identity, from the one source that the listener names and the peers it trusts
//!               -> policy::request::Request -> check -> 200, 401 or 403
//! ```
//!
//! A listener speaks one dialect, named in the configuration and never guessed: what the headers of
//! another dialect say is not believed. 200 is an allow, and nothing else is.

mod answer;
mod client;
pub(crate) mod connection;
pub mod dialect;
mod facts;
mod header;
pub(crate) mod hop;
pub mod identity;
pub mod peer;
mod serve;
mod stated;

use std::time::Duration;

use portcullis_policy::request::{PathForm, Target};

pub use self::dialect::Dialect;
pub use self::facts::request;
pub use self::identity::IdentitySource;
pub use self::peer::{Peer, TrustList};
pub(crate) use self::serve::serve;
pub use self::stated::StatedFact;

/// What an HTTP listener knows about every request that it receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How the proxy hands over the original request.
    pub dialect: Dialect,
    /// Envoy: what it puts before the path of the original request; empty for nothing.
    pub path_prefix: String,
    /// How paths arrive.
    pub path_form: PathForm,
    /// Target; `None` is `auto`.
    pub target: Option<Target>,
    /// Destination of every request, where the proxy states none: `namespace/name` or
    /// `kind/namespace/name`.
    pub workload: Option<String>,
    /// Port of the destination, which `ports` matches.
    pub port: Option<u16>,
    /// Where the client's identity comes from; `None` for nowhere.
    pub identity: Option<identity::Options>,
    /// Peers whose identity headers and stated facts are believed.
    pub trusted: TrustList,
    /// Facts that trusted peers state as `x-portcullis-*`; others of that name are not read.
    pub stated: Vec<StatedFact>,
    /// Bounds of a connection.
    pub limits: Limits,
}

impl Options {
    /// A listener that speaks `dialect`, trusts nobody and knows nothing.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            path_prefix: String::new(),
            path_form: dialect.path_form(),
            target: None,
            workload: None,
            port: None,
            identity: None,
            trusted: TrustList::default(),
            stated: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// Bounds of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request line with headers, in bytes; a longer one is answered with 431 or 414.
    pub header_bytes: usize,
    /// Longest time in which the headers of one request must have arrived, and in which a client
    /// must take an answer.
    pub header_timeout: Duration,
    /// Longest time without a request. Longer than proxies keep connections open, so that it is they
    /// who close them: a request that meets a closing connection is denied by its proxy.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
        }
    }
}

#[cfg(test)]
mod tests;
