//! Two documents that are the same object.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::diagnostic::{Diagnostic, Location, Severity, code};
use crate::resource::{Metadata, Resource, WorkloadKind};

/// What makes an object one: API kind, namespace, name.
pub(crate) type Identity<'a> = (&'static str, &'a str, &'a str);

/// An error for each object that stands in the set twice, pointing at both places. Namespaces and
/// service accounts hold nothing that could differ in effect: for them a warning.
#[must_use]
pub fn duplicates(resources: &[Arc<Resource>]) -> Vec<Diagnostic> {
    let mut first: FxHashMap<Identity<'_>, &Location> = FxHashMap::default();
    let mut found = Vec::new();
    for resource in resources {
        let Some((identity, at)) = identity(resource) else {
            continue;
        };
        let Some(earlier) = first.get(&identity) else {
            first.insert(identity, at);
            continue;
        };
        let (kind, namespace, name) = identity;
        let shown = if namespace.is_empty() {
            format!("{kind}/{name}")
        } else {
            format!("{kind}/{namespace}/{name}")
        };
        let harmless = matches!(kind, "Namespace" | "ServiceAccount");
        let mut diagnostic = code::DUPLICATE_RESOURCE
            .at(
                at.clone(),
                format!("`{shown}` stands here and at {earlier}"),
            )
            .with_resource(shown)
            .with_hint("keep one of the two: a cluster has room for one");
        if harmless {
            diagnostic.severity = Severity::Warning;
        }
        found.push(diagnostic);
    }
    found
}

/// API kind, namespace and name of an object, and where it stands; `None` for what may be there twice.
pub(crate) fn identity(resource: &Resource) -> Option<(Identity<'_>, &Location)> {
    fn of<'a>(kind: &'static str, meta: &'a Metadata) -> Option<(Identity<'a>, &'a Location)> {
        Some(((kind, &meta.namespace, &meta.name), &meta.at))
    }
    match resource {
        Resource::AuthorizationPolicy(policy) => of("AuthorizationPolicy", &policy.meta),
        Resource::PeerAuthentication(policy) => of("PeerAuthentication", &policy.meta),
        Resource::RequestAuthentication(policy) => of("RequestAuthentication", &policy.meta),
        Resource::Namespace(meta) => of("Namespace", meta),
        Resource::ServiceAccount(meta) => of("ServiceAccount", meta),
        Resource::Workload(workload) => Some((
            (kind_of(workload.kind)?, &workload.namespace, &workload.name),
            &workload.at,
        )),
        Resource::Service(service) => of("Service", &service.meta),
        Resource::EndpointSlice(slice) => of("EndpointSlice", &slice.meta),
        Resource::ServiceEntry(entry) => of("ServiceEntry", &entry.meta),
        Resource::Gateway(gateway) => of("Gateway", &gateway.meta),
        Resource::GatewayClass(class) => of("GatewayClass", &class.meta),
        Resource::IstioGateway(gateway) => of("Gateway.networking.istio.io", &gateway.meta),
        Resource::CedarPolicy(policy) => of("CedarPolicy", &policy.meta),
        Resource::PolicyTest(test) => of("PolicyTest", &test.meta),
        // Several of these are somebody else's business.
        Resource::MeshConfig(_) | Resource::Cedar(_) => None,
    }
}

fn kind_of(kind: WorkloadKind) -> Option<&'static str> {
    Some(match kind {
        WorkloadKind::Pod => "Pod",
        WorkloadKind::Deployment => "Deployment",
        WorkloadKind::StatefulSet => "StatefulSet",
        WorkloadKind::DaemonSet => "DaemonSet",
        WorkloadKind::Job => "Job",
        WorkloadKind::WorkloadEntry => "WorkloadEntry",
        WorkloadKind::Declared => return None,
    })
}
