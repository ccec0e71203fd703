//! `tls` of a listener.

use std::path::Path;

use portcullis_authz::tls::{
    AllowList, AllowedId, Choice, Files, NotAnId, Options, Source, WorkloadApi,
};
use portcullis_policy::document::{Node, Value};

use crate::config::read::{Fields, Reader};

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
    let spiffe_id = text("spiffe_id", "a SPIFFE ID");
    let hint = text("hint", "a hint");
    let source = match (certificate, key, workload_api) {
        (Some(certificate), Some(key), None) => Some(Source::Files(Files {
            certificate,
            key,
            client_ca,
        })),
        (None, None, Some(address)) if client_ca.is_none() => {
            let choice = choice(reader, &fields, spiffe_id, hint);
            let endpoint = workload(reader, node, &address, folder);
            endpoint.map(|endpoint| Source::WorkloadApi(WorkloadApi { endpoint, choice }))
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
    for name in ["spiffe_id", "hint"] {
        if let (Some(Source::Files(_)), Some(node)) = (&source, fields.get(name)) {
            let message = format!("`{name}` chooses among SVIDs of a `workload_api`");
            reader.mistake(node.at, message);
        }
    }
    source.map(|source| Options { source, allowed })
}

/// Which SVID of several.
fn choice(
    reader: &mut Reader,
    fields: &Fields<'_>,
    spiffe_id: Option<String>,
    hint: Option<String>,
) -> Option<Choice> {
    let at = |name: &str| fields.get(name).map(|node| node.at).unwrap_or_default();
    match (spiffe_id, hint) {
        (Some(id), None) => {
            // A pattern names no one SVID.
            if id.parse::<AllowedId>().is_err() || id.ends_with('*') {
                let message =
                    format!("`{id}` is no SPIFFE ID, such as `spiffe://example.org/authz`");
                reader.mistake(at("spiffe_id"), message);
            }
            Some(Choice::SpiffeId(id))
        }
        (None, Some(hint)) => {
            if hint.is_empty() {
                reader.mistake(at("hint"), "an empty hint is none; leave it out".to_owned());
            }
            Some(Choice::Hint(hint))
        }
        (Some(_), Some(_)) => {
            let message = "`spiffe_id` and `hint` both choose the SVID; write one";
            reader.mistake(at("hint"), message.to_owned());
            None
        }
        (None, None) => None,
    }
}

fn workload(reader: &mut Reader, node: &Node, address: &str, folder: &Path) -> Option<String> {
    let path = address
        .strip_prefix("unix://")
        .or_else(|| address.strip_prefix("unix:"))
        .filter(|path| !path.is_empty());
    if let Some(path) = path {
        // The client takes absolute paths only.
        let path = std::path::absolute(folder.join(path)).unwrap_or_else(|_| folder.join(path));
        return Some(format!("unix:{}", path.display()));
    }
    let tcp = address
        .strip_prefix("tcp://")
        .or_else(|| address.strip_prefix("tcp:"));
    match tcp.and_then(|tcp| tcp.parse::<std::net::SocketAddr>().ok()) {
        Some(tcp) => Some(format!("tcp:{tcp}")),
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
