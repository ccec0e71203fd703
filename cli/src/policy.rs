//! `portcullis policy`: one file per verb.

pub mod check;
pub mod decide;
pub mod explain;
pub mod explain_code;
pub mod test;
pub mod translate;
