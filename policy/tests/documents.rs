//! Documents, resources and diagnostics, as `policy check` shows them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

#[path = "documents/hostile.rs"]
mod hostile;
#[path = "documents/kinds.rs"]
mod kinds;
#[path = "documents/pages.rs"]
mod pages;
#[path = "documents/parity.rs"]
mod parity;
#[path = "documents/places.rs"]
mod places;
#[path = "documents/tables.rs"]
mod tables;
#[path = "documents/together.rs"]
mod together;

use std::path::PathBuf;

use portcullis_policy::document::SourceText;

/// A source text as if read from `file`.
fn source(file: &str, text: &[u8]) -> SourceText {
    SourceText {
        file: file.into(),
        bytes: text.into(),
    }
}

/// A file of the workspace.
fn workspace(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
}
