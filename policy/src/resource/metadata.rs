//! `metadata`: name, namespace, labels, annotations.

use std::collections::BTreeMap;

use super::path::Path;
use super::reader::Reader;
use super::{Located, Metadata};
use crate::diagnostic::code;
use crate::document::{Entry, Excerpt, Mark, Node};

/// Fields of Kubernetes' ObjectMeta.
const FIELDS: &[&str] = &[
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// What a kind asks of its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Kind, for `Kind/namespace/name`.
    pub(super) kind: &'static str,
    /// The kind lives in a namespace.
    pub(super) namespaced: bool,
    /// Names are RFC 1123 labels (no dots), not subdomains.
    pub(super) label_names: bool,
    /// A misspelt field is an error: the kind is one that decides.
    pub(super) strict: bool,
}

/// Reads `metadata` of the document `root` and tells `reader` which resource it is.
pub(super) fn read(root: &Node, shape: Shape, reader: &mut Reader<'_>) -> Option<Metadata> {
    let path = Path::Root;
    let path = path.key("metadata");
    let mut meta = Metadata {
        at: reader.location(root.at),
        ..Metadata::default()
    };
    let node = root.get("metadata");
    let entries: &[Entry] = match node {
        None => &[],
        Some(node) => reader.object(node, &path)?,
    };
    // The name first: every diagnostic carries it.
    let text = |key: &str| node.and_then(|n| n.get(key)).and_then(Node::as_str);
    let namespace = match text("namespace") {
        _ if !shape.namespaced => "",
        None | Some("") => "default",
        Some(namespace) => namespace,
    };
    reader.begin(identity(shape.kind, namespace, text("name").unwrap_or("")));

    for entry in entries {
        let path = path.key(&entry.key);
        let node = &entry.value;
        match entry.key.as_str() {
            _ if node.is_null() => {}
            "name" => meta.name = reader.string(node, &path)?.value,
            "namespace" => meta.namespace = reader.string(node, &path)?.value,
            "labels" => meta.labels = reader.string_map(node, &path),
            "annotations" => meta.annotations = annotations(node, &path, reader),
            "creationTimestamp" => {
                meta.creation_timestamp = node.as_str().map(str::to_owned);
            }
            key if FIELDS.contains(&key) || !shape.strict => {}
            _ => {
                let parent = Path::Root;
                reader.unknown_field_as(
                    &code::UNKNOWN_METADATA,
                    entry,
                    &parent.key("metadata"),
                    FIELDS,
                );
            }
        }
    }
    check(&mut meta, node, shape, reader);
    Some(meta)
}

fn annotations(
    node: &Node,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) -> BTreeMap<String, Located<String>> {
    let mut map = BTreeMap::new();
    for entry in reader.object(node, path).unwrap_or_default() {
        if entry.value.is_null() {
            continue;
        }
        if let Some(value) = reader.string(&entry.value, &path.key(&entry.key)) {
            map.insert(entry.key.clone(), value);
        }
    }
    map
}

/// Name and namespace as the API server checks them.
fn check(meta: &mut Metadata, node: Option<&Node>, shape: Shape, reader: &mut Reader<'_>) {
    let path = Path::Root;
    let path = path.key("metadata");
    let place = |key: &str| -> Mark {
        node.and_then(|n| n.get(key).or(Some(n)))
            .map_or_else(Mark::default, |n| n.at)
    };
    let or_document = |mark: Mark, meta: &Metadata, reader: &Reader<'_>| {
        if mark.line == 0 {
            meta.at.clone()
        } else {
            reader.location(mark)
        }
    };
    let name_at = or_document(place("name"), meta, reader);
    if meta.name.is_empty() {
        reader.report(
            &code::MISSING_NAME,
            name_at,
            &path.key("name"),
            "`metadata.name` is missing",
            "give the object a name",
        );
    } else if let Some(hint) = bad_name(&meta.name, shape.label_names) {
        reader.report(
            &code::BAD_NAME,
            name_at,
            &path.key("name"),
            format!(
                "`{}` is not a name that the API server takes",
                Excerpt(&meta.name)
            ),
            hint,
        );
    }
    if !shape.namespaced {
        meta.namespace.clear();
        return;
    }
    if meta.namespace.is_empty() {
        meta.namespace = "default".to_owned();
        reader.report(
            &code::DEFAULT_NAMESPACE,
            meta.at.clone(),
            &path.key("namespace"),
            "no namespace: read as one of `default`",
            "write `metadata.namespace`",
        );
    } else if let Some(hint) = bad_name(&meta.namespace, true) {
        reader.report(
            &code::BAD_NAME,
            or_document(place("namespace"), meta, reader),
            &path.key("namespace"),
            format!(
                "`{}` is not a namespace that the API server takes",
                Excerpt(&meta.namespace)
            ),
            hint,
        );
    }
}

/// `Kind/namespace/name`, without the namespace where there is none.
pub(super) fn identity(kind: &str, namespace: &str, name: &str) -> String {
    let (namespace, name) = (Excerpt(namespace).to_string(), Excerpt(name).to_string());
    if namespace.is_empty() {
        format!("{kind}/{name}")
    } else {
        format!("{kind}/{namespace}/{name}")
    }
}

/// What is wrong with a name by RFC 1123, if anything.
fn bad_name(name: &str, label: bool) -> Option<&'static str> {
    let longest = if label { 63 } else { 253 };
    if name.len() > longest {
        return Some(if label {
            "at most 63 characters"
        } else {
            "at most 253 characters"
        });
    }
    let part_ok = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let ok = if label {
        part_ok(name)
    } else {
        name.split('.').all(part_ok)
    };
    (!ok).then_some(if label {
        "lower-case letters, digits and `-`, with a letter or digit at both ends"
    } else {
        "lower-case letters, digits, `-` and `.`, with a letter or digit at both ends of each part"
    })
}
