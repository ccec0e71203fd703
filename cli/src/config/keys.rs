//! Every key of `portcullis.yaml`: the reader refuses what is not here, and the reference
//! documents what is.

mod admission;
mod ca;
mod engine;
mod kubernetes;
mod listeners;
mod seeing;
mod tokens;

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Path, `[]` for each entry of a list, `{}` for each entry of a mapping with free names.
    pub path: &'static str,
    /// Type of the value, in words.
    pub kind: &'static str,
    /// What holds when the key is absent.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn key(
    path: &'static str,
    kind: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        path,
        kind,
        default,
        meaning,
    }
}

/// The keys, section by section, parents before children.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    [
        engine::KEYS,
        kubernetes::KEYS,
        listeners::KEYS,
        tokens::KEYS,
        ca::KEYS,
        admission::KEYS,
        seeing::KEYS,
    ]
    .into_iter()
    .flatten()
}
