//! discovery.k8s.io EndpointSlice.

use crate::document::Node;
use crate::resource::inventory::{addresses, list};
use crate::resource::path::Path;
use crate::resource::reader::Reader;
use crate::resource::{Endpoint, EndpointSlice, Metadata};

/// Reads the document; `None` when a value that we use cannot be read, which is reported.
pub(in crate::resource) fn read(
    root: &Node,
    meta: Metadata,
    reader: &mut Reader<'_>,
) -> Option<EndpointSlice> {
    let service = meta.labels.get("kubernetes.io/service-name").cloned();
    let parent = Path::Root;
    let list_path = parent.key("endpoints");
    let mut endpoints = Vec::new();
    for (index, node) in list(root, &["endpoints"], reader).iter().enumerate() {
        let path = list_path.index(index);
        if reader.object(node, &path).is_none() {
            continue;
        }
        let nodes = match node.get("addresses") {
            None => &[],
            Some(found) => reader
                .list(found, &path.key("addresses"))
                .unwrap_or_default(),
        };
        let pod = node.get("targetRef").and_then(|target| {
            let text = |key: &str| target.get(key).and_then(Node::as_str);
            (text("kind") == Some("Pod")).then(|| {
                (
                    text("namespace").unwrap_or(&meta.namespace).to_owned(),
                    text("name").unwrap_or_default().to_owned(),
                )
            })
        });
        endpoints.push(Endpoint {
            addresses: addresses(nodes.iter()),
            pod,
        });
    }
    (!reader.is_unreadable()).then_some(EndpointSlice {
        meta,
        service,
        endpoints,
    })
}
