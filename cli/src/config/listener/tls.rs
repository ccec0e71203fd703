//! `tls` of a listener.

use std::path::Path;

use portcullis_authz::tls::{AllowList, Files, NotAnId, Options, Source};
use portcullis_policy::document::{Node, Value};

use crate::config::read::Reader;

/// Reads `tls`; paths are relative to `folder`.
pub fn read(reader: &mut Reader, node: &Node, folder: &Path) -> Option<Options> {
    let fields = reader.fields(node, "listeners[].tls");
    if !matches!(node.value, Value::Mapping(_)) {
        return None;
    }
    let mut text = |name: &str, what: &str| {
        let node = fields.get(name)?;
        reader.text(node, what).map(str::to_owned)
    };
    let certificate = text("certificate_file", "a path").map(|path| folder.join(path));
    let key = text("key_file", "a path").map(|path| folder.join(path));
    let client_ca = text("client_ca_file", "a path").map(|path| folder.join(path));
    let workload_api = text("workload_api", "an address");
    let source = match (certificate, key, workload_api) {
        (Some(certificate), Some(key), None) => Some(Source::Files(Files {
            certificate,
            key,
            client_ca,
        })),
        (None, None, Some(address)) if client_ca.is_none() => {
            workload(reader, node, &address, folder)
        }
        _ => {
            let message = "`tls` needs `certificate_file` with `key_file`, or `workload_api` without any file";
            reader.mistake(node.at, message.to_owned());
            None
        }
    };
    let allowed = fields.get("allowed_ids").map(|node| allowed(reader, node));
    if let (Some(Source::Files(files)), Some(node)) = (&source, fields.get("allowed_ids"))
        && files.client_ca.is_none()
    {
        let message = "`allowed_ids` needs `client_ca_file`: whose certificates are believed?";
        reader.mistake(node.at, message.to_owned());
    }
    source.map(|source| Options { source, allowed })
}

fn workload(reader: &mut Reader, node: &Node, address: &str, folder: &Path) -> Option<Source> {
    let path = address
        .strip_prefix("unix://")
        .or_else(|| address.strip_prefix("unix:"))
        .filter(|path| !path.is_empty());
    if let Some(path) = path {
        // The client takes absolute paths only.
        let path = std::path::absolute(folder.join(path)).unwrap_or_else(|_| folder.join(path));
        return Some(Source::WorkloadApi(format!("unix:{}", path.display())));
    }
    let tcp = address
        .strip_prefix("tcp://")
        .or_else(|| address.strip_prefix("tcp:"));
    match tcp.and_then(|tcp| tcp.parse::<std::net::SocketAddr>().ok()) {
        Some(tcp) => Some(Source::WorkloadApi(format!("tcp:{tcp}"))),
        None => {
            reader.mistake(
                node.at,
                format!(
                    "`{address}` is no Workload API; write `unix:/path/to.sock` or `tcp:IP:PORT`"
                ),
            );
            None
        }
    }
}

fn allowed(reader: &mut Reader, node: &Node) -> AllowList {
    let mut ids = Vec::new();
    for item in reader.items(node) {
        if let Some(text) = reader.text(item, "a SPIFFE ID") {
            match text.parse() {
                Ok(id) => ids.push(id),
                Err(error) => {
                    let error: NotAnId = error;
                    reader.mistake(item.at, error.to_string());
                }
            }
        }
    }
    if ids.is_empty() {
        reader.mistake(
            node.at,
            "nobody is allowed; name a SPIFFE ID, or leave `allowed_ids` out".to_owned(),
        );
    }
    AllowList::new(ids)
}
