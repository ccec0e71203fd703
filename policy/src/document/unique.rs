//! Keys of an object must be unique: readers disagree on which of two wins.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::node::{Entry, Excerpt};
use crate::diagnostic::{Diagnostic, code};

/// Most duplicates reported of one file.
const REPORTED: usize = 100;

/// Adds a diagnostic for each key of `entries` that stood before.
pub(super) fn check(entries: &[Entry], file: &Arc<str>, diagnostics: &mut Vec<Diagnostic>) {
    // Below this, comparing all pairs is cheaper than hashing.
    const FEW: usize = 12;
    if entries.len() <= FEW {
        for (index, entry) in entries.iter().enumerate() {
            if let Some(first) = entries.iter().take(index).find(|e| e.key == entry.key) {
                report(first, entry, file, diagnostics);
            }
        }
        return;
    }
    let mut seen: FxHashMap<&str, &Entry> = FxHashMap::default();
    for entry in entries {
        match seen.get(entry.key.as_str()) {
            Some(first) => report(first, entry, file, diagnostics),
            None => {
                seen.insert(&entry.key, entry);
            }
        }
    }
}

fn report(first: &Entry, second: &Entry, file: &Arc<str>, diagnostics: &mut Vec<Diagnostic>) {
    if diagnostics.len() >= REPORTED {
        return;
    }
    diagnostics.push(
        code::DUPLICATE_KEY
            .at(
                second.key_at.in_file(file),
                format!(
                    "key `{}` stands here and on line {}, column {}",
                    Excerpt(&second.key),
                    first.key_at.line,
                    first.key_at.column
                ),
            )
            .with_hint("keep one of the two"),
    );
}
