//! How callers reach us: gRPC on a unix socket.
//!
//! ```text
//! connect -> accept: who is it, within its limits? -> repair of `:authority` -> HTTP/2, gRPC
//!         -> front: security header -> services
//! ```

mod connection;
pub(crate) mod latest;
mod layer;
mod server;
mod session;
mod socket;
pub(crate) mod status;

pub use server::{ServeError, WorkloadServer, WorkloadServerOptions};
pub use session::Limits;
pub use socket::Socket;

pub(crate) use layer::OnFlush;
pub(crate) use session::{Call, Session};
