//! The live source: what is applied to an API server decides, whatever happens to the server meanwhile.

#[path = "source/cut.rs"]
mod cut;
#[path = "source/followed.rs"]
mod followed;
#[path = "source/kinds.rs"]
mod kinds;
#[path = "source/rights.rs"]
mod rights;
#[path = "source/robust.rs"]
mod robust;
#[path = "source/served.rs"]
mod served;
#[path = "source/statuses.rs"]
mod statuses;
