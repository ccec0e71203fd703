//! What a policy attaches to: `selector`, `targetRefs` and the old singular `targetRef`.

use std::sync::Arc;

use super::path::Path;
use super::reader::Reader;
use super::{Selector, TargetRef};
use crate::diagnostic::{Diagnostic, Location, code};
use crate::document::{Excerpt, Node, Value};

/// Longest label value.
const LABEL_VALUE: usize = 63;

/// The three ways to attach, at most one of which may be there.
#[derive(Default)]
pub(super) struct Attachment {
    pub(super) selector: Option<Selector>,
    pub(super) target_refs: Vec<TargetRef>,
    /// Field names seen, with the place of their keys.
    present: Vec<(&'static str, Location)>,
}

impl Attachment {
    /// Takes the entry `name` of `spec` if it is one of the three.
    pub(super) fn take(
        &mut self,
        name: &str,
        key_at: Location,
        node: &Node,
        path: &Path<'_>,
        reader: &mut Reader<'_>,
    ) -> bool {
        match name {
            "selector" => {
                self.present.push(("selector", key_at));
                self.selector = selector(node, path, reader);
            }
            "targetRef" => {
                self.present.push(("targetRef", key_at));
                self.target_refs.extend(target_ref(node, path, reader));
            }
            "targetRefs" => {
                self.present.push(("targetRefs", key_at));
                let nodes = reader.list(node, path).unwrap_or_default();
                if nodes.is_empty() && matches!(node.value, Value::Sequence(_)) {
                    reader.report(
                        &code::EMPTY_LIST,
                        reader.location(node.at),
                        path,
                        "`targetRefs: []` reads as not set: the policy applies to the whole namespace",
                        "name a target, or remove the field",
                    );
                }
                if nodes.len() > 16 {
                    reader.report(
                        &code::OUT_OF_BOUNDS,
                        reader.location(node.at),
                        path,
                        format!("{} targets, more than 16", nodes.len()),
                        "split the policy",
                    );
                }
                for (index, node) in nodes.iter().enumerate() {
                    self.target_refs
                        .extend(target_ref(node, &path.index(index), reader));
                }
            }
            _ => return false,
        }
        true
    }

    /// Refuses more than one way to attach.
    pub(super) fn check(&self, path: &Path<'_>, reader: &mut Reader<'_>) {
        let [(first, _), rest @ ..] = self.present.as_slice() else {
            return;
        };
        for (second, at) in rest {
            reader.report(
                &code::TWO_ATTACHMENTS,
                at.clone(),
                &path.key(second),
                format!("both `{first}` and `{second}` are set"),
                "keep one of them: a policy attaches by labels or by targets, not both",
            );
        }
    }
}

/// Selector and targetRefs of a `spec` that is refused for something else; `None` where they cannot be
/// read themselves, or not as what they say.
pub(crate) fn attachment_of(
    spec: Option<&Node>,
    file: &Arc<str>,
) -> Option<(Option<Selector>, Vec<TargetRef>)> {
    let mut attachment = Attachment::default();
    let Some(spec) = spec.filter(|spec| !spec.is_null()) else {
        return Some((None, Vec::new()));
    };
    let mut reader = Reader::new(file);
    let path = Path::Root;
    for entry in spec.as_mapping()?.iter().filter(|e| !e.value.is_null()) {
        let key_at = reader.location(entry.key_at);
        let path = path.key(&entry.key);
        attachment.take(&entry.key, key_at, &entry.value, &path, &mut reader);
    }
    let errors = reader.finish().iter().any(Diagnostic::is_error);
    (!errors).then_some((attachment.selector, attachment.target_refs))
}

fn selector(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<Selector> {
    let mut selector = Selector {
        match_labels: std::collections::BTreeMap::new(),
        at: reader.location(node.at),
    };
    for entry in reader.object(node, path)? {
        let path = path.key(&entry.key);
        match entry.key.as_str() {
            "matchLabels" if entry.value.is_null() => {}
            "matchLabels" => {
                selector.match_labels = reader.string_map(&entry.value, &path);
                labels(&entry.value, &path, reader);
            }
            _ => {
                let hint = if entry.key == "matchExpressions" {
                    "Istio's selectors have `matchLabels` only"
                } else {
                    "did you mean `matchLabels`?"
                };
                reader.report(
                    &code::UNKNOWN_FIELD,
                    reader.location(entry.key_at),
                    &path,
                    format!("unknown field `{}`", Excerpt(&entry.key)),
                    hint,
                );
            }
        }
    }
    if selector.match_labels.is_empty() {
        reader.report(
            &code::EMPTY_SELECTOR,
            selector.at.clone(),
            path,
            "a selector without labels selects every workload of the namespace",
            "name the labels, or remove the selector",
        );
    }
    Some(selector)
}

/// Labels of a selector as schema and webhook check them.
fn labels(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) {
    let entries = node.as_mapping().unwrap_or_default();
    if entries.len() > 4096 {
        reader.report(
            &code::OUT_OF_BOUNDS,
            reader.location(node.at),
            path,
            format!("{} labels, more than 4096", entries.len()),
            "keep the labels that tell the workloads apart",
        );
    }
    for entry in entries {
        let value = entry.value.as_str().unwrap_or_default();
        let path = path.key(&entry.key);
        if entry.key.is_empty() && !entry.value.is_null() {
            reader.report(
                &code::SELECTOR_LABEL,
                reader.location(entry.key_at),
                &path,
                "an empty label key in a selector",
                "name the label",
            );
        }
        for (text, at, what) in [
            (entry.key.as_str(), entry.key_at, "key"),
            (value, entry.value.at, "value"),
        ] {
            if text.contains('*') && !entry.value.is_null() {
                reader.report(
                    &code::SELECTOR_LABEL,
                    reader.location(at),
                    &path,
                    format!(
                        "`*` in the label {what} `{}`: selectors have no wildcards",
                        Excerpt(text)
                    ),
                    "name the label in full",
                );
            }
        }
        if value.chars().count() > LABEL_VALUE {
            reader.report(
                &code::OUT_OF_BOUNDS,
                reader.location(entry.value.at),
                &path,
                format!("the label value has more than {LABEL_VALUE} characters"),
                "no pod can carry it: shorten it",
            );
        }
    }
}

fn target_ref(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<TargetRef> {
    const FIELDS: &[&str] = &["group", "kind", "name", "namespace"];
    let mut target = TargetRef {
        group: String::new(),
        kind: String::new(),
        name: String::new(),
        namespace: String::new(),
        at: reader.location(node.at),
    };
    for entry in reader.object(node, path)? {
        let field = match entry.key.as_str() {
            "group" => &mut target.group,
            "kind" => &mut target.kind,
            "name" => &mut target.name,
            "namespace" => &mut target.namespace,
            _ => {
                reader.unknown_field(entry, path, FIELDS);
                continue;
            }
        };
        if entry.value.is_null() {
            continue;
        }
        if let Some(text) = reader.string(&entry.value, &path.key(&entry.key)) {
            *field = text.value;
        }
    }
    // Istio's canonical name of the core group.
    if target.group == "core" {
        target.group.clear();
    }
    check_target(&target, node, path, reader);
    Some(target)
}

/// A target as schema and webhook check it.
fn check_target(target: &TargetRef, node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) {
    const ALLOWED: &[(&str, &str)] = &[
        ("", "Service"),
        ("networking.istio.io", "ServiceEntry"),
        ("gateway.networking.k8s.io", "Gateway"),
        ("gateway.networking.k8s.io", "GatewayClass"),
    ];
    let at = |key: &str| node.get(key).map_or(node.at, |value| value.at);
    for (key, value) in [("kind", &target.kind), ("name", &target.name)] {
        if value.is_empty() {
            reader.report(
                &code::MISSING_FIELD,
                reader.location(at(key)),
                &path.key(key),
                format!("the target has no `{key}`"),
                format!("write its `{key}`"),
            );
        }
    }
    for (key, value) in [("group", &target.group), ("name", &target.name)] {
        if value.chars().count() > 253 {
            reader.report(
                &code::OUT_OF_BOUNDS,
                reader.location(at(key)),
                &path.key(key),
                format!("`{key}` has more than 253 characters"),
                "shorten it",
            );
        }
    }
    if !target.namespace.is_empty() {
        reader.report(
            &code::TARGET_NAMESPACE,
            reader.location(at("namespace")),
            &path.key("namespace"),
            "a target in another namespace is not supported",
            "remove `namespace`, and put the policy into the target's namespace",
        );
    }
    let known = ALLOWED.contains(&(target.group.as_str(), target.kind.as_str()));
    if !target.kind.is_empty() && !known {
        let hint = match ALLOWED.iter().find(|(_, kind)| *kind == target.kind) {
            Some(("", kind)) => format!("`{kind}` is of the core group: remove `group`"),
            Some((group, kind)) => format!("`{kind}` is of group `{group}`"),
            None => "a target is a `Service`, a `ServiceEntry` of `networking.istio.io`, or a `Gateway` or `GatewayClass` of `gateway.networking.k8s.io`".to_owned(),
        };
        let kind = Excerpt(&target.kind);
        reader.report(
            &code::TARGET_KIND,
            reader.location(at("kind")),
            &path.key("kind"),
            match target.group.as_str() {
                "" => format!("a policy cannot target kind `{kind}` of the core group"),
                group => format!(
                    "a policy cannot target kind `{kind}` of group `{}`",
                    Excerpt(group)
                ),
            },
            hint,
        );
    }
}
