//! The path of a field, such as `spec.rules[0].from[1].source.ipBlocks[0]`: built for nothing until
//! somebody reads it.

use std::fmt;

/// A step below a parent; lives on the stack of whoever walks the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path<'a> {
    /// The document itself.
    Root,
    /// A key of an object.
    Key(&'a Path<'a>, &'a str),
    /// An entry of a list.
    Index(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    pub(crate) fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }

    pub(crate) fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    /// The last key; empty at the root and in a list.
    pub(crate) fn last(&self) -> &str {
        match self {
            Path::Key(_, key) => key,
            Path::Root | Path::Index(..) => "",
        }
    }

    /// The path of what holds this one.
    pub(crate) fn parent(&'a self) -> &'a Path<'a> {
        match self {
            Path::Key(parent, _) | Path::Index(parent, _) => parent,
            Path::Root => self,
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(parent, key) => {
                parent.fmt(f)?;
                let plain = !key.is_empty()
                    && key.len() <= 80
                    && key
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
                match (plain, parent) {
                    (true, Path::Root) => f.write_str(key),
                    (true, _) => write!(f, ".{key}"),
                    (false, _) => write!(f, "[{}]", crate::document::Excerpt(key)),
                }
            }
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
