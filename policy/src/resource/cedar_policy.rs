//! portcullis.dev CedarPolicy: user-written Cedar in a manifest, attached as an AuthorizationPolicy is.

use std::sync::Arc;

use super::attachment::Attachment;
use super::path::Path;
use super::reader::Reader;
use super::{DRY_RUN, Metadata, Selector, TargetRef, annotations, parse_bool};
use crate::diagnostic::{Location, code};
use crate::document::{Node, Style, Value};

const SPEC: &[&str] = &["selector", "targetRefs", "policies"];

/// Longest `spec.policies`, in characters; the schema of the kind has the same bound.
pub const MAX_CEDAR: usize = 65_536;

/// portcullis.dev CedarPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CedarPolicy {
    /// Name, namespace, annotations.
    pub meta: Metadata,
    /// `spec.selector`.
    pub selector: Option<Selector>,
    /// `spec.targetRefs`.
    pub target_refs: Vec<TargetRef>,
    /// `spec.policies`.
    pub policies: CedarText,
    /// Value of the annotation `istio.io/dry-run`, as on an AuthorizationPolicy.
    pub dry_run: Option<bool>,
}

/// Cedar inside a manifest, and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CedarText {
    /// The text.
    pub text: Arc<str>,
    /// Where the value starts.
    pub at: Location,
    /// How it was written: in a literal block every line of it is a line of the file.
    pub style: Style,
}

impl CedarText {
    /// The place of a line and column of the text (from 1) in the file; `None` where the file has the text
    /// in another form, such as a quoted string with escapes.
    #[must_use]
    pub fn place(&self, line: u32, column: u32) -> Option<Location> {
        match self.style {
            Style::Inline => None,
            Style::Literal {
                line: first,
                indent,
            } => Some(Location {
                file: Arc::clone(&self.at.file),
                line: first.saturating_add(line).saturating_sub(1),
                column: indent.saturating_add(column),
            }),
        }
    }
}

/// Reads the document; `None` when no faithful typed form exists, which is reported.
pub(super) fn read(root: &Node, meta: Metadata, reader: &mut Reader<'_>) -> Option<CedarPolicy> {
    let parent = Path::Root;
    let path = parent.key("spec");
    annotations::check(&meta, Some(super::Action::Allow), reader);
    let mut attachment = Attachment::default();
    let mut policies = None;
    let entries = match root.get("spec") {
        None => &[],
        Some(spec) => reader.object(spec, &path)?,
    };
    for entry in entries {
        let (node, field) = (&entry.value, path.key(&entry.key));
        if node.is_null() && SPEC.contains(&entry.key.as_str()) {
            continue;
        }
        match entry.key.as_str() {
            "selector" | "targetRefs" => {
                let key_at = reader.location(entry.key_at);
                attachment.take(&entry.key, key_at, node, &field, reader);
            }
            "policies" => policies = Some(text(node, &field, reader)?),
            _ => reader.unknown_field(entry, &path, SPEC),
        }
    }
    attachment.check(&path, reader);
    let Some(policies) = policies else {
        let at = root.get("spec").map_or(root.at, |spec| spec.at);
        reader.report(
            &code::MISSING_FIELD,
            reader.location(at),
            &path.key("policies"),
            "`spec.policies` is missing",
            "write the Cedar policies there, as a block: `policies: |`",
        );
        return None;
    };
    let dry_run = meta
        .annotations
        .get(DRY_RUN)
        .map(|value| parse_bool(&value.value).unwrap_or(false));
    (!reader.is_unreadable()).then_some(CedarPolicy {
        meta,
        selector: attachment.selector,
        target_refs: attachment.target_refs,
        policies,
        dry_run,
    })
}

fn text(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<CedarText> {
    let Value::String(text, style) = &node.value else {
        reader.wrong_type(node, path, "a string");
        return None;
    };
    let at = reader.location(node.at);
    if text.is_empty() {
        reader.report(
            &code::EMPTY_VALUE,
            at.clone(),
            path,
            "no Cedar at all",
            "write a policy, or delete the object",
        );
    }
    let length = text.chars().count();
    if length > MAX_CEDAR {
        reader.report(
            &code::OUT_OF_BOUNDS,
            at.clone(),
            path,
            format!("{length} characters of Cedar, more than {MAX_CEDAR}"),
            "split it into several objects",
        );
        return None;
    }
    Some(CedarText {
        text: Arc::from(text.as_str()),
        at,
        style: *style,
    })
}
