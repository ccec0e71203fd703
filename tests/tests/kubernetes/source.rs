//! The live source: what is applied to an API server decides, whatever happens to the server meanwhile.

#[path = "source/followed.rs"]
mod followed;
#[path = "source/kinds.rs"]
mod kinds;
