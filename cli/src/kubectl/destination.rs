//! The workload that a request is for, as kubectl names objects.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow, bail};
use kube::Error;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, ObjectKey};
use portcullis_policy::resource::{self, Resource, Workload, WorkloadKind};
use portcullis_policy::snapshot::Snapshot;
use tokio::time::timeout_at;

use super::cluster::Live;

/// What can be named, and by which words.
const KINDS: &[(&[&str], Named)] = &[
    (&["pod", "pods", "po"], Named::Pod),
    (&["service", "services", "svc"], Named::Service),
    (
        &["deployment", "deployments", "deploy"],
        Named::Controller("apps", "v1", "Deployment", "deployments"),
    ),
    (
        &["statefulset", "statefulsets", "sts"],
        Named::Controller("apps", "v1", "StatefulSet", "statefulsets"),
    ),
    (
        &["daemonset", "daemonsets", "ds"],
        Named::Controller("apps", "v1", "DaemonSet", "daemonsets"),
    ),
    (
        &["job", "jobs"],
        Named::Controller("batch", "v1", "Job", "jobs"),
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Pod,
    Service,
    /// Group, version, kind, plural: its pod template is the workload.
    Controller(&'static str, &'static str, &'static str, &'static str),
}

/// Where the request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// `kind/namespace/name`, as `portcullis.workload` has it.
    pub workload: String,
    /// Its address, where it is known.
    pub address: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// The host that a client would name.
    pub host: String,
    /// The service by which it was named.
    pub service: Option<OfService>,
}

/// A service that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfService {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its first cluster address.
    pub address: Option<String>,
    /// Its own port.
    pub port: Option<u16>,
}

/// Finds what `name` names, and puts a pod template that the cluster's inventory does not have into the set.
///
/// # Errors
/// When there is no such object.
pub async fn find(live: &mut Live, name: &str, port: Option<u16>) -> anyhow::Result<Destination> {
    let (kind, name) = name.split_once('/').unwrap_or(("pod", name));
    let named = KINDS
        .iter()
        .find(|(words, _)| words.contains(&kind.to_ascii_lowercase().as_str()));
    let Some((_, named)) = named else {
        bail!(
            "`{kind}/{name}` is no destination: name a pod, or svc/NAME, deploy/NAME, sts/NAME, ds/NAME, job/NAME"
        );
    };
    let namespace = live.namespace.clone();
    match *named {
        Named::Pod => pod(&live.snapshot, &namespace, name, port),
        Named::Service => {
            let resource = ApiResource::from_gvk_with_plural(
                &GroupVersionKind::gvk("", "v1", "Service"),
                "services",
            );
            let object = get(live, &namespace, name, &resource).await?;
            service(&live.snapshot, &namespace, name, &object, port)
        }
        Named::Controller(group, version, kind, plural) => {
            let resource = ApiResource::from_gvk_with_plural(
                &GroupVersionKind::gvk(group, version, kind),
                plural,
            );
            let object = get(live, &namespace, name, &resource).await?;
            controller(live, &namespace, name, group, kind, object, port)
        }
    }
}

fn pod(
    snapshot: &Snapshot,
    namespace: &str,
    name: &str,
    port: Option<u16>,
) -> anyhow::Result<Destination> {
    let workload = workload(snapshot, WorkloadKind::Pod, namespace, name);
    let workload = workload.ok_or_else(|| anyhow!("no pod `{name}` in namespace `{namespace}`"))?;
    Ok(of(workload, port, format!("{name}.{namespace}")))
}

fn workload<'s>(
    snapshot: &'s Snapshot,
    kind: WorkloadKind,
    namespace: &str,
    name: &str,
) -> Option<&'s Workload> {
    let mut all = snapshot.inventory().workloads();
    all.find(|(_, w)| w.kind == kind && w.namespace == namespace && w.name == name)
        .map(|(_, workload)| workload)
}

fn of(workload: &Workload, port: Option<u16>, host: String) -> Destination {
    let only = match workload.ports.as_slice() {
        [(_, port)] => Some(*port),
        _ => None,
    };
    Destination {
        workload: format!(
            "{}/{}/{}",
            workload.kind.as_str(),
            workload.namespace,
            workload.name
        ),
        address: workload.addresses.first().map(ToString::to_string),
        port: port.or(only),
        host,
        service: None,
    }
}

/// The first running pod behind a service: all of them have its labels.
fn service(
    snapshot: &Snapshot,
    namespace: &str,
    name: &str,
    object: &DynamicObject,
    port: Option<u16>,
) -> anyhow::Result<Destination> {
    let read = resource::read(&SourceText {
        file: name.into(),
        bytes: serde_json::to_vec(object)?.into(),
    });
    let service = read.resources.iter().find_map(|one| match one.as_ref() {
        Resource::Service(service) => Some(service),
        _ => None,
    });
    let service =
        service.with_context(|| format!("the service `{namespace}/{name}` cannot be read"))?;
    let workload = running(snapshot, namespace, &service.selector);
    let workload = workload.with_context(|| {
        format!("no running pod is behind the service `{namespace}/{name}`: name a workload")
    })?;
    let of_service = match (port, service.ports.as_slice()) {
        (Some(port), ports) => Some(
            ports
                .iter()
                .find(|entry| entry.port == port)
                .with_context(|| format!("the service `{namespace}/{name}` has no port {port}"))?,
        ),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let target = of_service.and_then(|entry| match entry.target_port.as_deref() {
        None => Some(entry.port),
        Some(target) => target.parse().ok().or_else(|| {
            let mut ports = workload.ports.iter();
            let named = ports.find(|(name, _)| name.as_deref() == Some(target));
            named.map(|(_, port)| *port)
        }),
    });
    Ok(Destination {
        service: Some(OfService {
            name: name.to_owned(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            address: service.cluster_ips.first().map(ToString::to_string),
            port: of_service.map(|entry| entry.port),
        }),
        ..of(workload, target, format!("{name}.{namespace}"))
    })
}

/// The first running pod with these labels; none without labels.
fn running<'s>(
    snapshot: &'s Snapshot,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Option<&'s Workload> {
    let all = snapshot.inventory().workloads().map(|(_, w)| w);
    all.filter(|w| {
        w.kind == WorkloadKind::Pod
            && w.running
            && w.namespace == namespace
            && !labels.is_empty()
            && labels
                .iter()
                .all(|(label, value)| w.labels.get(label) == Some(value))
    })
    .min_by(|a, b| a.name.cmp(&b.name))
}

async fn get(
    live: &Live,
    namespace: &str,
    name: &str,
    resource: &ApiResource,
) -> anyhow::Result<DynamicObject> {
    let api: Api<DynamicObject> = Api::namespaced_with(live.client.clone(), namespace, resource);
    let got = timeout_at(live.until, api.get(name)).await;
    let got = got.map_err(|_| {
        anyhow!(
            "the API server does not answer for {} `{name}`",
            resource.kind
        )
    })?;
    got.map_err(|error| match error {
        Error::Api(status) if status.code == 404 => {
            anyhow!("no {} `{name}` in namespace `{namespace}`", resource.kind)
        }
        Error::Api(status) if status.code == 403 => {
            let group = &resource.group;
            anyhow!(
                "cannot read {} `{name}`: {}; grant it with a role that has the rule\n  - {{apiGroups: [\"{group}\"], resources: \
                 [{}], verbs: [get]}}",
                resource.kind,
                status.message,
                resource.plural
            )
        }
        other => anyhow!(other).context(format!("cannot read {} `{name}`", resource.kind)),
    })
}

/// The pod template, as if it were a workload: equal labels are equally selected.
fn controller(
    live: &mut Live,
    namespace: &str,
    name: &str,
    group: &str,
    kind: &str,
    mut object: DynamicObject,
    port: Option<u16>,
) -> anyhow::Result<Destination> {
    object.metadata.managed_fields = None;
    let key = ObjectKey::new(group, kind, namespace, name);
    let text = SourceText {
        file: key.file(),
        bytes: serde_json::to_vec(&object)?.into(),
    };
    let mut store = live.store.lock();
    store.change([Change::Apply { key, text }]);
    live.snapshot = store.snapshot();
    drop(store);
    let kind = match kind {
        "StatefulSet" => WorkloadKind::StatefulSet,
        "DaemonSet" => WorkloadKind::DaemonSet,
        "Job" => WorkloadKind::Job,
        _ => WorkloadKind::Deployment,
    };
    let workload = workload(&live.snapshot, kind, namespace, name);
    let workload = workload.with_context(|| format!("`{namespace}/{name}` has no pod template"))?;
    let mut destination = of(workload, port, format!("{name}.{namespace}"));
    // Any pod of the template stands for all of them.
    destination.address = running(&live.snapshot, namespace, &workload.labels)
        .and_then(|pod| pod.addresses.first())
        .map(ToString::to_string);
    Ok(destination)
}
