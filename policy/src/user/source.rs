//! Cedar text and whose it is: a file's, or a manifest's.

use std::sync::Arc;

use crate::diagnostic::code::Code;
use crate::diagnostic::{Diagnostic, Location};
use crate::document::Lines;
use crate::resource::{CedarFile, CedarPolicy};

/// Text that holds policies.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) owner: Owner<'a>,
    pub(super) root_namespace: &'a str,
    lines: Lines<'a>,
}

/// Whose text it is.
#[derive(Clone, Copy)]
pub(super) enum Owner<'a> {
    /// A file's: each policy says by annotation where it lives and what it selects.
    File(&'a CedarFile),
    /// A manifest's, which says so for all of them.
    Manifest(&'a CedarPolicy),
}

impl<'a> Source<'a> {
    pub(super) fn of_file(file: &'a CedarFile, root_namespace: &'a str) -> Self {
        Self {
            text: &file.text,
            owner: Owner::File(file),
            root_namespace,
            lines: Lines::new(&file.text),
        }
    }

    pub(super) fn of_manifest(policy: &'a CedarPolicy, root_namespace: &'a str) -> Self {
        Self {
            text: &policy.policies.text,
            owner: Owner::Manifest(policy),
            root_namespace,
            lines: Lines::new(&policy.policies.text),
        }
    }

    /// The manifest, where there is one.
    pub(super) fn manifest(&self) -> Option<&'a CedarPolicy> {
        match self.owner {
            Owner::File(_) => None,
            Owner::Manifest(policy) => Some(policy),
        }
    }

    /// The place of an offset of the text, and whether it is exactly that.
    fn place(&self, offset: usize) -> (Location, bool) {
        let mark = self.lines.mark(offset);
        match self.owner {
            Owner::File(file) => (mark.in_file(&file.file), true),
            Owner::Manifest(policy) => {
                let place = policy.policies.place(mark.line, mark.column);
                let exact = place.is_some();
                (place.unwrap_or_else(|| policy.policies.at.clone()), exact)
            }
        }
    }

    /// The place of an offset of the text, as near as it can be told.
    pub(super) fn location(&self, offset: usize) -> Location {
        self.place(offset).0
    }

    /// A diagnostic about what stands at an offset of the text.
    pub(super) fn report(
        &self,
        code: &Code,
        offset: usize,
        message: impl Into<String>,
    ) -> Diagnostic {
        let (at, exact) = self.place(offset);
        let mut message = message.into();
        if !exact && !self.text.is_empty() {
            let mark = self.lines.mark(offset);
            message = format!("line {}, column {}: {message}", mark.line, mark.column);
        }
        let found = code.at(at, message);
        match self.owner {
            Owner::File(_) => found,
            Owner::Manifest(policy) => found
                .with_resource(format!(
                    "CedarPolicy/{}/{}",
                    policy.meta.namespace, policy.meta.name
                ))
                .with_field("spec.policies"),
        }
    }

    /// What policies without an `@id` are called by, with their place in the text.
    pub(super) fn name(&self, id: Option<&str>, index: usize) -> String {
        match (self.owner, id) {
            (Owner::File(_), Some(id)) => id.to_owned(),
            (Owner::File(file), None) => format!("{}:policy{index}", stem(&file.file)),
            (Owner::Manifest(policy), Some(id)) => format!("{}#{id}", policy.meta.name),
            (Owner::Manifest(policy), None) => format!("{}#policy[{index}]", policy.meta.name),
        }
    }
}

impl Source<'_> {
    /// The namespace that the owner gives to policies.
    pub(super) fn namespace(&self) -> Option<&str> {
        match self.owner {
            Owner::File(file) => file.namespace.as_deref(),
            Owner::Manifest(policy) => Some(policy.meta.namespace.as_str()),
        }
    }
}

fn stem(file: &Arc<str>) -> &str {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    name.strip_suffix(".cedar").unwrap_or(name)
}

/// Where the text goes beyond what Cedar's recursive parser and evaluator can walk on the stack of any
/// thread. Brackets nest; operators and member accesses chain until the policy ends.
pub(super) fn too_deep(text: &str) -> Option<usize> {
    const DEEPEST: usize = 40;
    const LONGEST: usize = 250;
    let (mut depth, mut chain) = (0usize, 0usize);
    let (mut quoted, mut escaped, mut comment) = (false, false, false);
    for (at, c) in text.char_indices() {
        if comment {
            comment = c != '\n';
            continue;
        }
        if quoted {
            (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            '"' => quoted = true,
            '/' => comment = text.get(at..).is_some_and(|t| t.starts_with("//")),
            '(' | '[' | '{' => depth = depth.saturating_add(1),
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ';' => (depth, chain) = (0, 0),
            '&' | '|' | '.' | '!' | '-' | '+' | '*' | '?' => chain = chain.saturating_add(1),
            // `if … then … else` nests without brackets.
            'i' if text.get(at..).is_some_and(|t| t.starts_with("if ")) => {
                depth = depth.saturating_add(1);
            }
            _ => {}
        }
        if depth > DEEPEST || chain > LONGEST {
            return Some(at);
        }
    }
    None
}
