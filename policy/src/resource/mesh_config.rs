//! MeshConfig: as a document of its own, inside the `istio` ConfigMap, or in an IstioOperator.
//!
//! Istio decodes it with protobuf's JSON rules, so snake_case keys count too. Keys that policy does
//! not depend on are ignored; a misspelt one is an error.

use super::path::Path;
use super::reader::{Reader, nearest};
use super::{MeshConfig, Metadata, PathNormalization, extension_provider};
use crate::diagnostic::{Diagnostic, code};
use crate::document::{Entry, Excerpt, Mark, Node, Style, Value, parse_text};

pub(super) mod keys;

const NORMALIZATION: &[(&str, PathNormalization)] = &[
    ("DEFAULT", PathNormalization::Base),
    ("NONE", PathNormalization::None),
    ("BASE", PathNormalization::Base),
    ("MERGE_SLASHES", PathNormalization::MergeSlashes),
    (
        "DECODE_AND_MERGE_SLASHES",
        PathNormalization::DecodeAndMergeSlashes,
    ),
];

/// The YAML of a mesh that a ConfigMap holds, as a tree whose places point into the ConfigMap.
pub(super) fn inside(
    config_map: &Node,
    meta: &Metadata,
    reader: &mut Reader<'_>,
) -> Option<MeshConfig> {
    let parent = Path::Root;
    let data = parent.key("data");
    let path = data.key("mesh");
    let node = config_map.get("data")?.get("mesh")?;
    let Value::String(text, style) = &node.value else {
        reader.wrong_type(node, &path, "a string");
        return None;
    };
    let outer = Inner {
        at: node.at,
        style: *style,
    };
    match parse_text(text, &meta.at.file) {
        Err(diagnostics) => {
            for mut diagnostic in diagnostics {
                let at = outer.shifted(Mark {
                    line: diagnostic.location.line,
                    column: diagnostic.location.column,
                });
                diagnostic.location = reader.location(at);
                let diagnostic = named(diagnostic, &path, reader);
                reader.push(diagnostic);
            }
            None
        }
        Ok(mut documents) => {
            if documents.len() > 1 {
                reader.report(
                    &code::SYNTAX,
                    reader.location(node.at),
                    &path,
                    "more than one document in `data.mesh`",
                    "keep one",
                );
                return None;
            }
            let mut root = documents.pop().unwrap_or(Node {
                at: node.at,
                value: Value::Null,
            });
            outer.shift(&mut root);
            read(&root, &path, meta, reader)
        }
    }
}

fn named(diagnostic: Diagnostic, path: &Path<'_>, reader: &Reader<'_>) -> Diagnostic {
    diagnostic
        .with_field(path.to_string())
        .with_resource(reader.resource())
}

/// A text inside a document, whose places must be shifted to those of the document.
struct Inner {
    at: Mark,
    style: Style,
}

impl Inner {
    fn shifted(&self, mark: Mark) -> Mark {
        match self.style {
            Style::Inline => self.at,
            Style::Literal { line, indent } => Mark {
                line: line.saturating_add(mark.line).saturating_sub(1),
                column: indent.saturating_add(mark.column),
            },
        }
    }

    fn shift(&self, node: &mut Node) {
        node.at = self.shifted(node.at);
        match &mut node.value {
            Value::Sequence(nodes) => nodes.iter_mut().for_each(|node| self.shift(node)),
            Value::Mapping(entries) => {
                for entry in entries {
                    entry.key_at = self.shifted(entry.key_at);
                    self.shift(&mut entry.value);
                }
            }
            _ => {}
        }
    }
}

/// Reads the mesh in `node`; keys of `meta` are those of the document around it.
pub(super) fn read(
    node: &Node,
    path: &Path<'_>,
    meta: &Metadata,
    reader: &mut Reader<'_>,
) -> Option<MeshConfig> {
    let mut mesh = MeshConfig {
        at: meta.at.clone(),
        ..MeshConfig::default()
    };
    if node.is_null() {
        return Some(mesh);
    }
    for entry in reader.object(node, path)? {
        let (value, field) = (&entry.value, path.key(&entry.key));
        if value.is_null() {
            continue;
        }
        match entry.key.as_str() {
            "rootNamespace" | "root_namespace" => {
                mesh.root_namespace = reader.string(value, &field).map(|text| text.value);
            }
            "trustDomain" | "trust_domain" => {
                mesh.trust_domain = reader.string(value, &field).map(|text| text.value);
            }
            "trustDomainAliases" | "trust_domain_aliases" => {
                let aliases = reader.strings(value, &field);
                mesh.trust_domain_aliases =
                    Some(aliases.into_iter().map(|text| text.value).collect());
            }
            "pathNormalization" | "path_normalization" => {
                mesh.path_normalization = normalization(value, &field, reader);
            }
            "defaultConfig" | "default_config" => {
                mesh.num_trusted_proxies = trusted_proxies(value, &field, reader);
            }
            "extensionProviders" | "extension_providers" => {
                mesh.extension_providers =
                    Some(extension_provider::providers(value, &field, reader));
            }
            // What a bare document carries around the mesh.
            "apiVersion" | "kind" | "metadata" | "status" if matches!(path, Path::Root) => {}
            _ => known_or_report(entry, path, keys::MESH, reader),
        }
    }
    (!reader.is_unreadable()).then_some(mesh)
}

/// A key that is published is ignored, one that looks like a key that is read an error, any other
/// (of a newer or older Istio) a warning.
pub(super) fn known_or_report(
    entry: &Entry,
    path: &Path<'_>,
    known: &[&str],
    reader: &mut Reader<'_>,
) {
    let camel = camel_case(&entry.key);
    if known.contains(&camel.as_str()) {
        return;
    }
    if nearest(&entry.key, known).is_some_and(|key| keys::READ.contains(&key)) {
        reader.unknown_field(entry, path, known);
        return;
    }
    reader.report(
        &code::UNKNOWN_MESH_KEY,
        reader.location(entry.key_at),
        &path.key(&entry.key),
        format!("unknown key `{}`", Excerpt(&entry.key)),
        "no MeshConfig has had it; it is ignored",
    );
}

/// A whole number, which protobuf's JSON takes as a text as well.
pub(super) fn whole(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<u32> {
    let number = match &node.value {
        Value::Integer(number, _) => u32::try_from(*number).ok(),
        Value::String(text, _) => text.parse().ok(),
        _ => None,
    };
    if number.is_none() {
        reader.wrong_type(node, path, "a whole number");
    }
    number
}

pub(super) fn camel_case(key: &str) -> String {
    let mut camel = String::with_capacity(key.len());
    let mut upper = false;
    for c in key.chars() {
        if c == '_' {
            upper = true;
        } else {
            camel.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    camel
}

/// `{normalization: X}`, or the plain word as some documents have it.
fn normalization(
    node: &Node,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<PathNormalization> {
    if node.as_str().is_some() {
        return reader.word(node, path, NORMALIZATION);
    }
    let mut mode = None;
    for entry in reader.object(node, path)? {
        match entry.key.as_str() {
            "normalization" if entry.value.is_null() => {}
            "normalization" => {
                mode = reader.word(&entry.value, &path.key("normalization"), NORMALIZATION);
            }
            _ => reader.unknown_field(entry, path, &["normalization"]),
        }
    }
    mode
}

/// `defaultConfig.gatewayTopology.numTrustedProxies`.
fn trusted_proxies(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<u32> {
    let mut count = None;
    for entry in reader.object(node, path)? {
        let path = path.key(&entry.key);
        if !matches!(entry.key.as_str(), "gatewayTopology" | "gateway_topology") {
            let parent = path.parent();
            known_or_report(entry, parent, keys::PROXY, reader);
            continue;
        }
        if entry.value.is_null() {
            continue;
        }
        for entry in reader.object(&entry.value, &path)? {
            if !matches!(
                entry.key.as_str(),
                "numTrustedProxies" | "num_trusted_proxies"
            ) {
                known_or_report(entry, &path, keys::TOPOLOGY, reader);
                continue;
            }
            let path = path.key(&entry.key);
            if !entry.value.is_null() {
                count = whole(&entry.value, &path, reader);
            }
        }
    }
    count
}
