//! core Service.

use crate::document::{Node, Value};
use crate::resource::inventory::{addresses, at, labels, list};
use crate::resource::path::Path;
use crate::resource::reader::Reader;
use crate::resource::{Metadata, Service, ServicePort};

/// Reads the document; `None` when a value that we use cannot be read, which is reported.
pub(in crate::resource) fn read(
    root: &Node,
    meta: Metadata,
    reader: &mut Reader<'_>,
) -> Option<Service> {
    let selector = labels(root, &["spec", "selector"], reader);
    let listed = list(root, &["spec", "clusterIPs"], reader);
    let single = at(root, &["spec", "clusterIP"], reader);
    // `None`, of a headless service, is no address and falls out.
    let cluster_ips = addresses(single.into_iter().chain(listed));
    let (root_path, mut ports) = (Path::Root, Vec::new());
    let spec = root_path.key("spec");
    for (index, node) in list(root, &["spec", "ports"], reader).iter().enumerate() {
        let (ports_path, entry) = (spec.key("ports"), node);
        let path = ports_path.index(index);
        if reader.object(entry, &path).is_none() {
            continue;
        }
        let port = entry
            .get("port")
            .and_then(|n| reader.port(n, &path.key("port")));
        let target_port = entry.get("targetPort").and_then(|n| match &n.value {
            Value::Integer(number, _) => Some(number.to_string()),
            Value::String(name, _) => Some(name.clone()),
            _ => {
                reader.wrong_type(n, &path.key("targetPort"), "a number or a name");
                None
            }
        });
        let word = |key: &str| entry.get(key).and_then(Node::as_str).map(str::to_owned);
        ports.extend(port.map(|port| ServicePort {
            name: word("name"),
            app_protocol: word("appProtocol"),
            is_tcp: !matches!(word("protocol").as_deref(), Some("UDP" | "SCTP")),
            port,
            target_port,
        }));
    }
    (!reader.is_unreadable()).then_some(Service {
        meta,
        selector,
        cluster_ips,
        ports,
    })
}
