//! Annotations that Istio's webhook looks at, on every kind it validates.

use super::path::Path;
use super::reader::{Reader, nearest};
use super::{Action, Metadata};
use crate::diagnostic::code;
use crate::document::Excerpt;

/// Annotation that puts an AuthorizationPolicy or a CedarPolicy on trial.
pub(crate) const DRY_RUN: &str = "istio.io/dry-run";

/// A boolean word as Go's `strconv.ParseBool` takes it.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Istio's own annotations, refused on objects of users.
const RESERVED: &[&str] = &[
    "internal.istio.io/parents",
    "internal.istio.io/parent-namespace",
    "internal.istio.io/webhook-always-reject",
];

/// Checks the annotations of a policy; `action` is that of an AuthorizationPolicy.
pub(super) fn check(meta: &Metadata, action: Option<Action>, reader: &mut Reader<'_>) {
    if meta.labels.contains_key(DRY_RUN) {
        let root = Path::Root;
        let metadata = root.key("metadata");
        reader.report(
            &code::DRY_RUN_LOOKALIKE,
            meta.at.clone(),
            &metadata.key("labels").key(DRY_RUN),
            format!("`{DRY_RUN}` is a label here: the policy is enforced"),
            "make it an annotation",
        );
    }
    if meta.annotations.is_empty() {
        return;
    }
    let root = Path::Root;
    let metadata = root.key("metadata");
    let path = metadata.key("annotations");
    for name in RESERVED {
        if let Some(value) = meta.annotations.get(*name) {
            reader.report(
                &code::RESERVED_ANNOTATION,
                value.at.clone(),
                &path.key(name),
                format!("the annotation `{name}` is Istio's own"),
                "remove it",
            );
        }
    }
    let Some(value) = meta.annotations.get(DRY_RUN) else {
        lookalike(meta, &path, reader);
        return;
    };
    let path = path.key(DRY_RUN);
    match action {
        Some(Action::Allow | Action::Deny) => {
            if parse_bool(&value.value).is_none() {
                reader.report(
                    &code::DRY_RUN_VALUE,
                    value.at.clone(),
                    &path,
                    format!(
                        "`{}` is not a boolean for `{DRY_RUN}`",
                        Excerpt(&value.value)
                    ),
                    "write `\"true\"` or `\"false\"`",
                );
            }
        }
        Some(Action::Audit | Action::Custom) => reader.report(
            &code::DRY_RUN_UNSUPPORTED,
            value.at.clone(),
            &path,
            format!("`{DRY_RUN}` on a policy that is neither ALLOW nor DENY"),
            "remove the annotation",
        ),
        None => reader.report(
            &code::DRY_RUN_UNSUPPORTED,
            value.at.clone(),
            &path,
            format!("`{DRY_RUN}` on a kind that has no dry-run"),
            "remove the annotation: only AuthorizationPolicy and CedarPolicy have a dry-run",
        ),
    }
}

/// A misspelt dry-run annotation leaves the policy enforced.
fn lookalike(meta: &Metadata, path: &Path<'_>, reader: &mut Reader<'_>) {
    for (name, value) in &meta.annotations {
        let istio = name.strip_prefix("istio.io/").unwrap_or_default();
        if nearest(istio, &["dry-run"]).is_some() {
            reader.report(
                &code::DRY_RUN_LOOKALIKE,
                value.at.clone(),
                &path.key(name),
                format!(
                    "`{}` is not the dry-run annotation: the policy is enforced",
                    Excerpt(name)
                ),
                format!("write `{DRY_RUN}`"),
            );
        }
    }
}
