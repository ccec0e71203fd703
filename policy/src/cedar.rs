//! Rules to Cedar: the public syntax tree of each policy, and what evaluating it reads.

pub mod context;
pub mod emit;
pub mod fact;
pub mod program;
pub mod schema;
pub mod translate;
