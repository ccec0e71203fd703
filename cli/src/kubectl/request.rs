//! The CheckRequest that a proxy in front of the workload would send.

use anyhow::{Context as _, bail};
use envoy_types::ext_authz::v3::pb::CheckRequest;
use portcullis_authz::check_request;
use portcullis_policy::snapshot::Snapshot;
use serde_json::{Value, json};

use super::args::ExplainArgs;
use super::destination::Destination;
use super::path::Point;

/// A client's port; no rule looks at it.
const CLIENT_PORT: u16 = 40000;

/// The request that `args` describe, as it is seen at `point`.
///
/// # Errors
/// What of `args` cannot be a request.
pub fn check_request(
    args: &ExplainArgs,
    destination: &Destination,
    point: &Point,
    snapshot: &Snapshot,
) -> anyhow::Result<CheckRequest> {
    let (principal, address) = match &point.from {
        Some((identity, address)) => (Some(identity.clone()), address.clone()),
        None => client(args, snapshot)?,
    };
    let mut source = json!({});
    if let Some(principal) = principal {
        set(&mut source, "principal", principal);
    }
    if let Some(address) = address {
        set(&mut source, "address", socket(&address, CLIENT_PORT));
    }
    let mut to = json!({});
    if let (Some(address), Some(port)) = (&point.address, point.port) {
        set(&mut to, "address", socket(address, port));
    } else if let Some(port) = point.port {
        // No rule that looks at the address holds for certain, one that looks at the port does.
        set(&mut to, "address", socket("0.0.0.0", port));
    }
    let mut stated = json!({"portcullis.workload": point.workload});
    if let Some(service) = &point.service {
        set(&mut stated, "portcullis.service", service.as_str());
    }
    let mut attributes = json!({
        "source": source,
        "destination": to,
        "contextExtensions": stated,
    });
    if !point.tcp {
        set(
            &mut attributes,
            "request",
            json!({"http": http(args, destination)?}),
        );
    }
    let text = json!({"attributes": attributes}).to_string();
    check_request::from_json(text.as_bytes()).context("cannot put the request together")
}

/// Identity and address of who asks.
fn client(
    args: &ExplainArgs,
    snapshot: &Snapshot,
) -> anyhow::Result<(Option<String>, Option<String>)> {
    let from = args.from.as_deref();
    let principal = from
        .map(|from| principal(from, &snapshot.mesh().trust_domain))
        .transpose()?;
    let address = match (args.from_ip, &principal) {
        (Some(address), _) => Some(address.to_string()),
        (None, Some(principal)) => address_of(snapshot, principal),
        (None, None) => None,
    };
    Ok((principal, address))
}

fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_owned(), value.into());
    }
}

fn socket(address: &str, port: u16) -> Value {
    json!({"socketAddress": {"address": address, "portValue": port}})
}

fn http(args: &ExplainArgs, destination: &Destination) -> anyhow::Result<Value> {
    let (method, path) = match args.request.as_slice() {
        [] => ("GET", "/"),
        [path] if path.starts_with('/') => ("GET", path.as_str()),
        [method] => (method.as_str(), "/"),
        [method, path] if path.starts_with('/') => (method.as_str(), path.as_str()),
        [_, path, ..] => bail!("`{path}` is no path: it begins with `/`"),
    };
    let mut headers = Vec::new();
    for header in &args.headers {
        let (name, value) = header
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .with_context(|| format!("`{header}` is no header: write NAME=VALUE"))?;
        headers.push(json!({"key": name.to_ascii_lowercase(), "value": value}));
    }
    Ok(json!({
        "method": method,
        "path": path,
        "host": args.host.as_deref().unwrap_or(&destination.host),
        "scheme": "http",
        "headerMap": {"headers": headers},
    }))
}

/// `ns/NAMESPACE/sa/ACCOUNT` in the mesh's own trust domain, or a whole SPIFFE ID.
fn principal(from: &str, trust_domain: &str) -> anyhow::Result<String> {
    if from.starts_with("spiffe://") {
        return Ok(from.to_owned());
    }
    let parts: Vec<&str> = from.split('/').collect();
    match parts.as_slice() {
        ["ns", namespace, "sa", account] if !namespace.is_empty() && !account.is_empty() => {
            Ok(format!("spiffe://{trust_domain}/{from}"))
        }
        _ => bail!("`{from}` is no identity: write ns/NAMESPACE/sa/ACCOUNT, or spiffe://..."),
    }
}

/// The address of a running pod of that identity.
fn address_of(snapshot: &Snapshot, principal: &str) -> Option<String> {
    let own = format!("spiffe://{}/ns/", snapshot.mesh().trust_domain);
    let (namespace, account) = principal.strip_prefix(&own)?.split_once("/sa/")?;
    let mut pods = snapshot.inventory().workloads().map(|(_, w)| w);
    let pod = pods.find(|w| {
        w.running
            && !w.host_network
            && w.namespace == namespace
            && w.service_account == account
            && !w.addresses.is_empty()
    })?;
    pod.addresses.first().map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_a_service_account_or_a_spiffe_id() {
        let read = |from| principal(from, "td").ok();
        assert_eq!(
            read("ns/shop/sa/web").unwrap(),
            "spiffe://td/ns/shop/sa/web"
        );
        assert_eq!(read("spiffe://other/x").unwrap(), "spiffe://other/x");
        for from in [
            "shop/web",
            "ns/shop",
            "ns//sa/web",
            "ns/shop/sa/",
            "ns/shop/sa/a/b",
            "",
        ] {
            assert!(read(from).is_none(), "{from}");
        }
    }
}
