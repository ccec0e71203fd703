//! security.istio.io PeerAuthentication.

use std::collections::BTreeMap;

use super::annotations;
use super::attachment::Attachment;
use super::path::Path;
use super::reader::Reader;
use super::{Metadata, MtlsMode, PeerAuthentication};
use crate::diagnostic::code;
use crate::document::{Excerpt, Node};

const SPEC: &[&str] = &["selector", "mtls", "portLevelMtls"];

const MODES: &[(&str, MtlsMode)] = &[
    ("UNSET", MtlsMode::Unset),
    ("DISABLE", MtlsMode::Disable),
    ("PERMISSIVE", MtlsMode::Permissive),
    ("STRICT", MtlsMode::Strict),
];

/// Reads the document; `None` when no faithful typed form exists, which is reported.
pub(super) fn read(
    root: &Node,
    meta: Metadata,
    reader: &mut Reader<'_>,
) -> Option<PeerAuthentication> {
    let parent = Path::Root;
    let path = parent.key("spec");
    let mut policy = PeerAuthentication {
        meta,
        selector: None,
        mode: MtlsMode::Unset,
        port_level: BTreeMap::new(),
    };
    annotations::check(&policy.meta, None, reader);
    let mut attachment = Attachment::default();
    let entries = match root.get("spec") {
        None => &[],
        Some(spec) => reader.object(spec, &path)?,
    };
    let mut ports = None;
    for entry in entries {
        let (node, field) = (&entry.value, path.key(&entry.key));
        if node.is_null() && SPEC.contains(&entry.key.as_str()) {
            continue;
        }
        match entry.key.as_str() {
            "selector" => {
                let key_at = reader.location(entry.key_at);
                attachment.take("selector", key_at, node, &field, reader);
            }
            "mtls" => policy.mode = mode(node, &field, reader),
            "portLevelMtls" => {
                ports = Some(reader.location(entry.key_at));
                policy.port_level = port_level(node, &field, reader);
            }
            _ => reader.unknown_field(entry, &path, SPEC),
        }
    }
    policy.selector = attachment.selector;
    let labelled = policy
        .selector
        .as_ref()
        .is_some_and(|selector| !selector.match_labels.is_empty());
    if let (Some(at), false) = (ports, labelled) {
        reader.report(
            &code::PORTS_WITHOUT_SELECTOR,
            at,
            &path.key("portLevelMtls"),
            "`portLevelMtls` without a selector that has labels",
            "ports belong to workloads: add `selector.matchLabels`, or remove `portLevelMtls`",
        );
    }
    (!reader.is_unreadable()).then_some(policy)
}

/// The `mode` inside an `mtls` object.
fn mode(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> MtlsMode {
    let mut mode = MtlsMode::Unset;
    for entry in reader.object(node, path).unwrap_or_default() {
        match entry.key.as_str() {
            "mode" if entry.value.is_null() => {}
            "mode" => {
                mode = reader
                    .word(&entry.value, &path.key("mode"), MODES)
                    .unwrap_or_default();
            }
            _ => reader.unknown_field(entry, path, &["mode"]),
        }
    }
    mode
}

fn port_level(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> BTreeMap<u16, MtlsMode> {
    let mut modes = BTreeMap::new();
    let Some(entries) = reader.object(node, path) else {
        return modes;
    };
    if entries.is_empty() {
        reader.report(
            &code::NO_PORTS,
            reader.location(node.at),
            path,
            "`portLevelMtls` names no port",
            "name a port, or remove the field",
        );
    }
    for entry in entries.iter().filter(|entry| !entry.value.is_null()) {
        let path = path.key(&entry.key);
        let mode = mode(&entry.value, &path, reader);
        let digits = entry.key.bytes().all(|b| b.is_ascii_digit());
        match entry.key.parse::<u16>() {
            Ok(port) if digits && port != 0 => {
                modes.insert(port, mode);
            }
            _ => reader.report(
                &code::BAD_PORT,
                reader.location(entry.key_at),
                &path,
                format!("`{}` is not a port", Excerpt(&entry.key)),
                "ports are 1 to 65535; these are the workload's ports, not the service's",
            ),
        }
    }
    modes
}
