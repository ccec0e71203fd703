//! Where a request is decided on its way to a workload: at its sidecar or gateway; in the ambient mesh at a waypoint,
//! where one serves the destination, and then at ztunnel.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use portcullis_policy::inventory::TargetFound;
use portcullis_policy::request::Target;
use portcullis_policy::resource::{Workload, WorkloadKind};
use tokio::time::timeout_at;

use super::args::ExplainArgs;
use super::cluster::Live;
use super::destination::Destination;
use crate::args::TargetArg;

const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
const USE_WAYPOINT: &str = "istio.io/use-waypoint";
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// Traffic that a Gateway of the waypoint class takes: `service` where it says nothing.
const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// Label that only a pod with a sidecar has: it is no part of the ambient mesh.
const TLS_MODE: &str = "security.istio.io/tlsMode";
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

type Labels = BTreeMap<String, String>;

/// One place that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// What enforces there; `None`: what the workload's labels tell.
    pub target: Option<Target>,
    /// `kind/namespace/name` of the workload whose policies hold.
    pub workload: String,
    /// `service/namespace/name`, where a waypoint serves one.
    pub service: Option<String>,
    /// Address and port that the request goes to, as it is seen there.
    pub address: Option<String>,
    /// See `address`.
    pub port: Option<u16>,
    /// The proxy that the request comes from, where it is not the client: its identity and address.
    pub from: Option<(String, Option<String>)>,
    /// Only the connection is seen.
    pub tcp: bool,
    /// The place, for people; `None` where there is no other.
    pub at: Option<String>,
}

/// The places that a request to `destination` passes, in order.
///
/// # Errors
/// When the cluster does not answer, or when a waypoint serves the destination that is not running.
pub async fn of(
    live: &Live,
    destination: &Destination,
    args: &ExplainArgs,
) -> anyhow::Result<Vec<Point>> {
    let stated = args.target.and_then(TargetArg::target);
    let direct = Point {
        target: stated,
        workload: destination.workload.clone(),
        service: None,
        address: destination.address.clone(),
        port: destination.port,
        from: None,
        tcp: args.tcp,
        at: None,
    };
    if stated.is_some() {
        return Ok(vec![direct]);
    }
    let inventory = live.snapshot.inventory();
    let found = inventory.named(&destination.workload).first().copied();
    let found = found.and_then(|id| Some((inventory.workload(id)?, inventory.auto_target(id).1)));
    let Some((workload, TargetFound::Workload)) = found else {
        return Ok(vec![direct]);
    };
    let namespace = labels(
        live,
        ("", "v1", "Namespace", "namespaces"),
        None,
        &live.namespace,
    );
    let namespace = namespace.await?.unwrap_or_default();
    if !is_ambient(workload, &namespace) {
        return Ok(vec![direct]);
    }
    let ztunnel = Point {
        target: Some(Target::Ztunnel),
        tcp: true,
        at: Some(format!("at ztunnel, before {}", direct.workload)),
        ..direct.clone()
    };
    let Some((of, name)) = waypoint(live, workload, &namespace, destination).await? else {
        return Ok(vec![ztunnel]);
    };
    let mut pods = inventory.workloads().map(|(_, pod)| pod).filter(|pod| {
        pod.kind == WorkloadKind::Pod
            && pod.running
            && pod.namespace == of
            && pod.labels.get(GATEWAY_NAME) == Some(&name)
    });
    let Some(proxy) = pods.next() else {
        bail!(
            "the waypoint `{of}/{name}` serves this destination and has no running pod: no request comes through; start it, or \
             take the label `{USE_WAYPOINT}` away"
        );
    };
    let service = destination.service.as_ref();
    let waypoint = Point {
        target: Some(Target::Waypoint),
        workload: format!("pod/{}/{}", proxy.namespace, proxy.name),
        service: service.map(|service| format!("service/{}/{}", live.namespace, service.name)),
        address: service.map_or_else(
            || direct.address.clone(),
            |service| service.address.clone().or_else(|| direct.address.clone()),
        ),
        port: service.map_or(direct.port, |service| service.port),
        at: Some(format!("at the waypoint {of}/{name}")),
        ..direct
    };
    let identity = format!(
        "spiffe://{}/ns/{}/sa/{}",
        live.snapshot.mesh().trust_domain,
        proxy.namespace,
        proxy.service_account
    );
    let from = (identity, proxy.addresses.first().map(ToString::to_string));
    Ok(vec![
        waypoint,
        Point {
            from: Some(from),
            ..ztunnel
        },
    ])
}

/// Behind ztunnel: its own label decides, else that of its namespace.
fn is_ambient(workload: &Workload, namespace: &Labels) -> bool {
    if workload.host_network || workload.labels.contains_key(TLS_MODE) {
        return false;
    }
    let own = workload.labels.get(DATAPLANE_MODE);
    own.or_else(|| namespace.get(DATAPLANE_MODE))
        .is_some_and(|mode| mode == "ambient")
}

/// Namespace and name of the waypoint through which requests to `destination` go.
async fn waypoint(
    live: &Live,
    workload: &Workload,
    namespace: &Labels,
    destination: &Destination,
) -> anyhow::Result<Option<(String, String)>> {
    let own = match &destination.service {
        Some(service) => &service.labels,
        None => &workload.labels,
    };
    let Some((of, name)) = named(own, namespace, &live.namespace) else {
        return Ok(None);
    };
    let gateway = ("gateway.networking.k8s.io", "v1", "Gateway", "gateways");
    let gateway = labels(live, gateway, Some(&of), &name).await?;
    let takes = gateway
        .as_ref()
        .and_then(|labels| labels.get(WAYPOINT_FOR))
        .map_or("service", String::as_str);
    let wanted = match &destination.service {
        Some(_) => "service",
        None => "workload",
    };
    Ok((takes == wanted || takes == "all").then_some((of, name)))
}

/// What `use-waypoint` says: the label of the destination itself, else that of its namespace.
fn named(own: &Labels, namespace: &Labels, of: &str) -> Option<(String, String)> {
    let labels = [own, namespace].into_iter();
    let labels = labels
        .into_iter()
        .find(|labels| labels.contains_key(USE_WAYPOINT))?;
    let name = labels.get(USE_WAYPOINT).filter(|name| *name != "none")?;
    let of = labels
        .get(USE_WAYPOINT_NAMESPACE)
        .map_or(of, String::as_str);
    Some((of.to_owned(), name.clone()))
}

/// Labels of one object; `None` without it.
async fn labels(
    live: &Live,
    (group, version, kind, plural): (&str, &str, &str, &str),
    namespace: Option<&str>,
    name: &str,
) -> anyhow::Result<Option<Labels>> {
    let of_kind = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&of_kind, plural);
    let client = live.client.clone();
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    // Who could read the cluster may list; `get` would be another right.
    let only = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = timeout_at(live.until, api.list_metadata(&only)).await;
    let found = found.with_context(|| format!("the API server does not answer for {plural}"))?;
    let found = match found {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        other => other.with_context(|| format!("cannot list {plural}"))?,
    };
    let first = found.items.into_iter().next();
    Ok(first.map(|object| object.metadata.labels.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_nearest_label_names_the_waypoint() {
        let none = labels(&[]);
        let wide = labels(&[(USE_WAYPOINT, "wide")]);
        let off = labels(&[(USE_WAYPOINT, "none")]);
        let far = labels(&[(USE_WAYPOINT, "far"), (USE_WAYPOINT_NAMESPACE, "infra")]);
        let is = |of: &str, name: &str| Some((of.to_owned(), name.to_owned()));
        assert_eq!(named(&none, &none, "shop"), None);
        assert_eq!(named(&none, &wide, "shop"), is("shop", "wide"));
        assert_eq!(named(&off, &wide, "shop"), None);
        assert_eq!(named(&far, &wide, "shop"), is("infra", "far"));
    }
}
