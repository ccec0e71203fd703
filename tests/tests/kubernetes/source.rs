//! The live source: what is applied to an API server decides, whatever happens to the server meanwhile.

#[path = "source/compacted.rs"]
mod compacted;
#[path = "source/counts.rs"]
mod counts;
#[path = "source/cut.rs"]
mod cut;
#[path = "source/followed.rs"]
pub mod followed;
#[path = "source/holds.rs"]
mod holds;
#[path = "source/hostile.rs"]
mod hostile;
#[path = "source/kinds.rs"]
mod kinds;
#[path = "source/leaders.rs"]
mod leaders;
#[path = "source/rights.rs"]
mod rights;
#[path = "source/robust.rs"]
mod robust;
#[path = "source/served.rs"]
mod served;
#[path = "source/statuses.rs"]
mod statuses;
