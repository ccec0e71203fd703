//! networking.istio.io ServiceEntry.

use crate::document::Node;
use crate::resource::inventory::{addresses, labels, list};
use crate::resource::path::Path;
use crate::resource::reader::Reader;
use crate::resource::{Metadata, ServiceEntry};

/// Reads the document; `None` when a value that we use cannot be read, which is reported.
pub(in crate::resource) fn read(
    root: &Node,
    meta: Metadata,
    reader: &mut Reader<'_>,
) -> Option<ServiceEntry> {
    let parent = Path::Root;
    let spec = parent.key("spec");
    let path = spec.key("hosts");
    let hosts = list(root, &["spec", "hosts"], reader)
        .iter()
        .enumerate()
        .filter_map(|(index, node)| reader.string(node, &path.index(index)))
        .map(|text| text.value)
        .collect();
    let addresses = addresses(list(root, &["spec", "addresses"], reader).iter());
    let workload_selector = labels(root, &["spec", "workloadSelector", "labels"], reader);
    (!reader.is_unreadable()).then_some(ServiceEntry {
        meta,
        hosts,
        addresses,
        workload_selector,
    })
}
