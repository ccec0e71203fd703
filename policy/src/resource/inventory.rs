//! Kinds that decide nothing themselves but say who and what is there. They are big objects of
//! other APIs: only the fields that we use are read, the rest is not looked at.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::path::Path;
use super::reader::Reader;
use super::{Gateway, GatewayClass, IstioGateway, Metadata};
use crate::document::Node;

pub(super) mod endpoint_slice;
pub(super) mod service;
pub(super) mod service_entry;
pub(super) mod workload;

/// Follows `keys` from `node` through objects; a null on the way is an absence, any other value
/// than an object an error.
pub(super) fn at<'n>(node: &'n Node, keys: &[&str], reader: &mut Reader<'_>) -> Option<&'n Node> {
    let mut current = node;
    for (depth, key) in keys.iter().enumerate() {
        if current.as_mapping().is_none() {
            with_path(
                keys.get(..depth).unwrap_or_default(),
                &Path::Root,
                &mut |path| {
                    reader.wrong_type(current, path, "an object");
                },
            );
            return None;
        }
        current = current.get(key)?;
    }
    Some(current)
}

/// Calls `then` with the path of `keys` below `parent`.
pub(super) fn with_path(keys: &[&str], parent: &Path<'_>, then: &mut dyn FnMut(&Path<'_>)) {
    match keys {
        [] => then(parent),
        [first, rest @ ..] => with_path(rest, &parent.key(first), then),
    }
}

/// The string at `keys`.
pub(super) fn string(node: &Node, keys: &[&str], reader: &mut Reader<'_>) -> Option<String> {
    let found = at(node, keys, reader)?;
    let mut text = None;
    with_path(keys, &Path::Root, &mut |path| {
        text = reader.string(found, path).map(|text| text.value);
    });
    text
}

/// The labels at `keys`.
pub(super) fn labels(
    node: &Node,
    keys: &[&str],
    reader: &mut Reader<'_>,
) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    if let Some(found) = at(node, keys, reader) {
        with_path(keys, &Path::Root, &mut |path| {
            map = reader.string_map(found, path);
        });
    }
    map
}

/// The entries of the list at `keys`; empty when absent.
pub(super) fn list<'n>(node: &'n Node, keys: &[&str], reader: &mut Reader<'_>) -> &'n [Node] {
    let mut nodes: &[Node] = &[];
    if let Some(found) = at(node, keys, reader) {
        with_path(keys, &Path::Root, &mut |path| {
            nodes = reader.list(found, path).unwrap_or_default();
        });
    }
    nodes
}

/// Strings that are addresses; host names and sockets are none.
pub(super) fn addresses<'n>(texts: impl Iterator<Item = &'n Node>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for address in texts.filter_map(|node| node.as_str()?.parse().ok()) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// gateway.networking.k8s.io Gateway.
pub(super) fn gateway(root: &Node, meta: Metadata, reader: &mut Reader<'_>) -> Option<Gateway> {
    let class = string(root, &["spec", "gatewayClassName"], reader).unwrap_or_default();
    (!reader.is_unreadable()).then_some(Gateway { meta, class })
}

/// gateway.networking.k8s.io GatewayClass.
pub(super) fn gateway_class(
    root: &Node,
    meta: Metadata,
    reader: &mut Reader<'_>,
) -> Option<GatewayClass> {
    let controller = string(root, &["spec", "controllerName"], reader).unwrap_or_default();
    (!reader.is_unreadable()).then_some(GatewayClass { meta, controller })
}

/// networking.istio.io Gateway.
pub(super) fn istio_gateway(
    root: &Node,
    meta: Metadata,
    reader: &mut Reader<'_>,
) -> Option<IstioGateway> {
    let selector = labels(root, &["spec", "selector"], reader);
    (!reader.is_unreadable()).then_some(IstioGateway { meta, selector })
}
