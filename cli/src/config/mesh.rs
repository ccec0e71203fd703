//! `mesh:`: the part of Istio's MeshConfig that policy depends on.

use std::sync::Arc;

use portcullis_policy::diagnostic::Location;
use portcullis_policy::document::{Mark, Node, Value};
use portcullis_policy::resource::{
    ExtensionProvider, MeshConfig, PathNormalization, read_extension_providers,
};

use super::read::Reader;

const MODES: &[(&str, PathNormalization)] = &[
    ("DEFAULT", PathNormalization::Base),
    ("NONE", PathNormalization::None),
    ("BASE", PathNormalization::Base),
    ("MERGE_SLASHES", PathNormalization::MergeSlashes),
    (
        "DECODE_AND_MERGE_SLASHES",
        PathNormalization::DecodeAndMergeSlashes,
    ),
];

/// Reads `mesh:`.
pub fn read(reader: &mut Reader, node: &Node, file: &str) -> MeshConfig {
    let mut mesh = MeshConfig {
        at: Location {
            file: file.into(),
            line: node.at.line,
            column: node.at.column,
        },
        ..MeshConfig::default()
    };
    for (name, node) in reader.fields_among_published(node, "mesh") {
        match name {
            "rootNamespace" => {
                mesh.root_namespace = reader.text(node, "a namespace").map(str::to_owned);
            }
            "trustDomain" => {
                mesh.trust_domain = reader.text(node, "a trust domain").map(str::to_owned);
            }
            "trustDomainAliases" => {
                let aliases = reader.texts(node, "a trust domain");
                mesh.trust_domain_aliases = Some(aliases.into_iter().map(str::to_owned).collect());
            }
            "pathNormalization" => {
                // Both forms: the word alone, and the word under `normalization`.
                let word = if matches!(node.value, Value::String(..)) {
                    Some(node)
                } else {
                    reader
                        .fields(node, "mesh.pathNormalization")
                        .get("normalization")
                        .copied()
                };
                mesh.path_normalization = word.and_then(|node| reader.word(node, MODES));
            }
            "defaultConfig" => mesh.num_trusted_proxies = trusted_proxies(reader, node),
            "extensionProviders" => {
                mesh.extension_providers = Some(providers(reader, node, file));
            }
            _ => {}
        }
    }
    mesh
}

fn trusted_proxies(reader: &mut Reader, node: &Node) -> Option<u32> {
    let path = "mesh.defaultConfig";
    let topology = *reader
        .fields_among_published(node, path)
        .get("gatewayTopology")?;
    let path = "mesh.defaultConfig.gatewayTopology";
    let number = *reader
        .fields_among_published(topology, path)
        .get("numTrustedProxies")?;
    let text = reader.text(number, "a number")?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        reader.mistake(number.at, format!("`{text}` is no number of proxies"));
    }
    parsed
}

/// As MeshConfig documents are read, so that one text means one thing.
fn providers(reader: &mut Reader, node: &Node, file: &str) -> Vec<ExtensionProvider> {
    let (providers, diagnostics) = read_extension_providers(node, &Arc::from(file));
    for found in diagnostics {
        if found.is_error() {
            let at = Mark {
                line: found.location.line,
                column: found.location.column,
            };
            let hint = found.hint.map(|hint| format!("; {hint}"));
            reader.mistake(at, found.message + &hint.unwrap_or_default());
        }
    }
    providers
}
