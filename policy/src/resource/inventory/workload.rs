//! What receives requests: Pod, the pod templates of controllers, WorkloadEntry.

use crate::document::{Node, Value};
use crate::resource::inventory::{addresses, at, labels, list, string};
use crate::resource::path::Path;
use crate::resource::reader::Reader;
use crate::resource::{Metadata, Workload, WorkloadKind};

/// Reads a Pod.
pub(in crate::resource) fn pod(
    root: &Node,
    meta: Metadata,
    reader: &mut Reader<'_>,
) -> Option<Workload> {
    let mut workload = pod_spec(root, &["spec"], WorkloadKind::Pod, &meta, reader);
    workload.labels.clone_from(&meta.labels);
    // A file without `status` describes a pod that is meant to run.
    let phase = string(root, &["status", "phase"], reader);
    workload.running = !matches!(phase.as_deref(), Some("Succeeded" | "Failed"));
    let single = at(root, &["status", "podIP"], reader);
    let several = list(root, &["status", "podIPs"], reader);
    workload.addresses = addresses(
        single
            .into_iter()
            .chain(several.iter().filter_map(|node| node.get("ip"))),
    );
    (!reader.is_unreadable()).then_some(workload)
}

/// Reads the pod template of a controller.
pub(in crate::resource) fn controller(
    root: &Node,
    kind: WorkloadKind,
    meta: Metadata,
    reader: &mut Reader<'_>,
) -> Option<Workload> {
    let mut workload = pod_spec(root, &["spec", "template", "spec"], kind, &meta, reader);
    workload.labels = labels(root, &["spec", "template", "metadata", "labels"], reader);
    (!reader.is_unreadable()).then_some(workload)
}

/// Reads a WorkloadEntry.
pub(in crate::resource) fn entry(
    root: &Node,
    meta: Metadata,
    reader: &mut Reader<'_>,
) -> Option<Workload> {
    let address = at(root, &["spec", "address"], reader);
    let mut ports = Vec::new();
    let (parent, ports_node) = (Path::Root, at(root, &["spec", "ports"], reader));
    let spec = parent.key("spec");
    let path = spec.key("ports");
    if let Some(node) = ports_node {
        for port in reader.object(node, &path).unwrap_or_default() {
            let number = reader.port(&port.value, &path.key(&port.key));
            ports.extend(number.map(|number| (Some(port.key.clone()), number)));
        }
    }
    let workload = Workload {
        kind: WorkloadKind::WorkloadEntry,
        labels: labels(root, &["spec", "labels"], reader),
        service_account: string(root, &["spec", "serviceAccount"], reader)
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned()),
        addresses: addresses(address.into_iter()),
        host_network: false,
        running: true,
        ports,
        at: meta.at,
        namespace: meta.namespace,
        name: meta.name,
    };
    (!reader.is_unreadable()).then_some(workload)
}

/// What a pod's `spec` at `keys` says.
fn pod_spec(
    root: &Node,
    keys: &[&str],
    kind: WorkloadKind,
    meta: &Metadata,
    reader: &mut Reader<'_>,
) -> Workload {
    let below = |last: &'static str| -> Vec<&str> { keys.iter().copied().chain([last]).collect() };
    let service_account = ["serviceAccountName", "serviceAccount"]
        .into_iter()
        .find_map(|key| string(root, &below(key), reader).filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "default".to_owned());
    let host_network = at(root, &below("hostNetwork"), reader)
        .is_some_and(|node| matches!(node.value, Value::Bool(true, _)));
    let mut ports = Vec::new();
    for containers in ["containers", "initContainers"] {
        for container in list(root, &below(containers), reader) {
            let nodes = container
                .get("ports")
                .and_then(Node::as_list)
                .unwrap_or_default();
            ports.extend(nodes.iter().filter_map(container_port));
        }
    }
    Workload {
        kind,
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        labels: std::collections::BTreeMap::new(),
        service_account,
        addresses: Vec::new(),
        host_network,
        running: true,
        ports,
        at: meta.at.clone(),
    }
}

/// A container's port, if it is TCP and a port at all.
fn container_port(node: &Node) -> Option<(Option<String>, u16)> {
    if matches!(
        node.get("protocol").and_then(Node::as_str),
        Some("UDP" | "SCTP")
    ) {
        return None;
    }
    let name = node.get("name").and_then(Node::as_str).map(str::to_owned);
    match node.get("containerPort")?.value {
        Value::Integer(number, _) => Some((name, u16::try_from(number).ok()?)),
        _ => None,
    }
}
