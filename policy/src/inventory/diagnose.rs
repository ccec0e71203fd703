//! What the author of an inventory should know: which requests will find no destination.

use std::sync::Arc;

use super::{Inventory, ServiceKind, TargetFound};
use crate::diagnostic::{Diagnostic, Location, code};
use crate::resource::{Metadata, Resource, TargetRef, Workload};

impl Inventory {
    /// What to know about addresses that several workloads claim, about a default that does not
    /// exist, and about services in `resources`' targetRefs that a waypoint knows by host alone.
    #[must_use]
    pub fn diagnose(&self, resources: &[Arc<Resource>]) -> Vec<Diagnostic> {
        let mut found = self.known_by_host(resources);
        for (address, ids) in self.addresses.shared() {
            let mut workloads = ids.iter().filter_map(|id| self.workload(*id));
            let (Some(first), Some(second)) = (workloads.next(), workloads.next()) else {
                continue;
            };
            let message = format!(
                "`{}` has the address `{address}` of `{}`",
                name(second),
                name(first)
            );
            found.push(
                code::SHARED_ADDRESS
                    .at(second.at.clone(), message)
                    .with_resource(name(second))
                    .with_hint("have the proxies name their workload, `portcullis.workload`"),
            );
        }
        found.sort_by(|a, b| (&a.location, &a.message).cmp(&(&b.location, &b.message)));
        if let Some(default) = &self.default_workload
            && self.named(default).is_empty()
        {
            let message = format!("no workload `{default}`, the configured default");
            found.push(code::UNKNOWN_DEFAULT.at(Location::default(), message));
        }
        found
    }

    fn known_by_host(&self, resources: &[Arc<Resource>]) -> Vec<Diagnostic> {
        let waypoint = |id| self.auto_target(id).1 == TargetFound::WaypointClass;
        if !self.workloads().any(|(id, _)| waypoint(id)) {
            return Vec::new();
        }
        let targets = resources
            .iter()
            .flat_map(|resource| match resource.as_ref() {
                Resource::AuthorizationPolicy(policy) => {
                    refs("AuthorizationPolicy", &policy.meta, &policy.target_refs)
                }
                Resource::RequestAuthentication(policy) => {
                    refs("RequestAuthentication", &policy.meta, &policy.target_refs)
                }
                _ => Vec::new(),
            });
        targets
            .filter(|(_, meta, target)| {
                self.services
                    .lacks_address(ServiceKind::Service, &meta.namespace, &target.name)
            })
            .map(|(kind, meta, target)| {
                let service = format!("{}/{}", meta.namespace, target.name);
                let message = format!("a waypoint knows `{service}` by the request's host alone");
                let hint = "give the Service's clusterIP, or have the waypoint state \
                            `portcullis.service`";
                code::SERVICE_BY_HOST
                    .at(target.at.clone(), message)
                    .with_resource(format!("{kind}/{}/{}", meta.namespace, meta.name))
                    .with_field("spec.targetRefs")
                    .with_hint(hint)
            })
            .collect()
    }
}

type Reference<'a> = (&'static str, &'a Metadata, &'a TargetRef);

/// The references to core Services.
fn refs<'a>(
    kind: &'static str,
    meta: &'a Metadata,
    targets: &'a [TargetRef],
) -> Vec<Reference<'a>> {
    let service = |target: &&TargetRef| {
        target.kind == "Service" && matches!(target.group.as_str(), "" | "core")
    };
    targets
        .iter()
        .filter(service)
        .map(|target| (kind, meta, target))
        .collect()
}

fn name(workload: &Workload) -> String {
    format!(
        "{}/{}/{}",
        workload.kind.as_str(),
        workload.namespace,
        workload.name
    )
}
