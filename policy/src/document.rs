//! Documents: text in, trees that remember where every value stood out.

use std::sync::Arc;

/// One input file, or standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// Path as the user gave it; `<stdin>`.
    pub file: Arc<str>,
    /// Its bytes: not necessarily UTF-8, not necessarily YAML.
    pub bytes: Arc<[u8]>,
}
