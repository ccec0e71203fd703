//! Which workloads a service stands for, where a waypoint enforces what is attached to it.

use std::collections::BTreeMap;

use super::target::GATEWAY_NAME_LABEL;
use super::{Inventory, ServiceId, WorkloadId};
use crate::request::Target;
use crate::resource::Resource;

/// Names the Gateway that is a service's waypoint; `none`: it has none.
const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Namespace of that Gateway, where it is not the service's own.
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";

impl Inventory {
    /// The waypoints that may serve a service: those of the Gateway that it names, else those of its namespace, else
    /// all, since a namespace may name one of another. None for a service that says so.
    #[must_use]
    pub fn waypoints_of(&self, service: ServiceId) -> Vec<WorkloadId> {
        let meta = match self.service_resource(service).map(AsRef::as_ref) {
            Some(Resource::Service(service)) => &service.meta,
            Some(Resource::ServiceEntry(entry)) => &entry.meta,
            _ => return Vec::new(),
        };
        let all: Vec<WorkloadId> = self
            .workloads()
            .filter(|(id, workload)| {
                workload.running && self.auto_target(*id).0 == Target::Waypoint
            })
            .map(|(id, _)| id)
            .collect();
        let of = |namespace: &str, gateway: Option<&str>| {
            let is = |id: &WorkloadId| {
                self.workload(*id).is_some_and(|workload| {
                    let own = workload.labels.get(GATEWAY_NAME_LABEL).map(String::as_str);
                    workload.namespace == namespace && gateway.is_none_or(|name| own == Some(name))
                })
            };
            all.iter().copied().filter(is).collect::<Vec<_>>()
        };
        let label = |name: &str| meta.labels.get(name).map(String::as_str);
        match label(USE_WAYPOINT) {
            Some("none") => Vec::new(),
            Some(gateway) => {
                let namespace = label(USE_WAYPOINT_NAMESPACE).unwrap_or(&meta.namespace);
                of(namespace, Some(gateway))
            }
            None => match of(&meta.namespace, None) {
                near if near.is_empty() => all,
                near => near,
            },
        }
    }

    /// The workloads behind a service: those that it selects, without a selector those that its EndpointSlices name.
    #[must_use]
    pub fn behind(&self, service: ServiceId) -> Vec<WorkloadId> {
        let (namespace, name, selector) = match self.service_resource(service).map(AsRef::as_ref) {
            Some(Resource::Service(service)) => (
                &service.meta.namespace,
                Some(&service.meta.name),
                &service.selector,
            ),
            Some(Resource::ServiceEntry(entry)) => {
                (&entry.meta.namespace, None, &entry.workload_selector)
            }
            _ => return Vec::new(),
        };
        if selector.is_empty() {
            return match name {
                Some(name) => self.endpoints.of_service(namespace, name),
                None => Vec::new(),
            };
        }
        let selects = |labels: &BTreeMap<String, String>| {
            let mut wanted = selector.iter();
            wanted.all(|(label, value)| labels.get(label) == Some(value))
        };
        let here = self.endpoints.in_namespace(namespace).iter().copied();
        here.filter(|id| self.workload(*id).is_some_and(|w| selects(&w.labels)))
            .collect()
    }
}
