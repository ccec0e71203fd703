//! Which workload answers at an address.

use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::resolve::WorkloadFound;
use super::service::Services;
use super::{WorkloadId, canonical, identified, key, workload_at};
use crate::resource::{Endpoint, EndpointSlice, Resource, Workload, WorkloadKind};

/// Addresses of workloads, by the strength of their claim.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    pods: FxHashMap<IpAddr, Vec<WorkloadId>>,
    endpoints: FxHashMap<IpAddr, Vec<WorkloadId>>,
    entries: FxHashMap<IpAddr, Vec<WorkloadId>>,
}

impl Addresses {
    pub(super) fn build(
        workloads: &[Arc<Resource>],
        by_name: &FxHashMap<Box<str>, Vec<WorkloadId>>,
        resources: &[Arc<Resource>],
        services: &Services,
    ) -> Self {
        let mut built = Self::default();
        for (id, workload) in
            identified(workloads).filter(|(_, workload)| has_own_address(workload))
        {
            let claims = match workload.kind {
                WorkloadKind::WorkloadEntry | WorkloadKind::Declared => &mut built.entries,
                _ => &mut built.pods,
            };
            for address in &workload.addresses {
                claim(claims, *address, id);
            }
        }
        let endpoints = Endpoints {
            workloads,
            by_name,
            services,
        };
        for resource in resources {
            let Resource::EndpointSlice(slice) = resource.as_ref() else {
                continue;
            };
            let selected = endpoints.selected_by_service(slice);
            for endpoint in &slice.endpoints {
                for id in endpoints.behind(slice, endpoint, &selected) {
                    for address in &endpoint.addresses {
                        claim(&mut built.endpoints, *address, id);
                    }
                }
            }
        }
        built
    }

    /// The workloads with the strongest claim on an address: running pods, else endpoints, else
    /// WorkloadEntries and declared workloads.
    pub(super) fn at(&self, address: IpAddr) -> Option<(&[WorkloadId], WorkloadFound)> {
        let address = canonical(address);
        [
            (&self.pods, WorkloadFound::PodAddress(address)),
            (&self.endpoints, WorkloadFound::EndpointAddress(address)),
            (&self.entries, WorkloadFound::EntryAddress(address)),
        ]
        .into_iter()
        .find_map(|(claims, found)| Some((claims.get(&address)?.as_slice(), found)))
    }
}

/// A pod that ended, or that shares its node's address, has no claim on an address.
fn has_own_address(workload: &Workload) -> bool {
    workload.running && !workload.host_network
}

fn claim(claims: &mut FxHashMap<IpAddr, Vec<WorkloadId>>, address: IpAddr, id: WorkloadId) {
    let ids = claims.entry(canonical(address)).or_default();
    if !ids.contains(&id) {
        ids.push(id);
    }
}

/// What it takes to find the workload behind an endpoint.
struct Endpoints<'a> {
    workloads: &'a [Arc<Resource>],
    by_name: &'a FxHashMap<Box<str>, Vec<WorkloadId>>,
    services: &'a Services,
}

impl Endpoints<'_> {
    /// The pod that the endpoint names. A pod that no document describes is one of the selected
    /// controllers' whose name starts its own; an endpoint that names none is any selected workload.
    fn behind(
        &self,
        slice: &EndpointSlice,
        endpoint: &Endpoint,
        selected: &[WorkloadId],
    ) -> Vec<WorkloadId> {
        let Some((namespace, name)) = &endpoint.pod else {
            return selected.to_vec();
        };
        let namespace = match namespace.as_str() {
            "" => slice.meta.namespace.as_str(),
            namespace => namespace,
        };
        let pods: Vec<(WorkloadId, &Workload)> = self
            .by_name
            .get(&key(namespace, name))
            .into_iter()
            .flatten()
            .filter_map(|id| Some((*id, self.workload(*id)?)))
            .filter(|(_, workload)| workload.kind == WorkloadKind::Pod)
            .collect();
        if pods.is_empty() {
            return selected
                .iter()
                .copied()
                .filter(|id| {
                    self.workload(*id)
                        .is_some_and(|controller| makes_pod(controller, namespace, name))
                })
                .collect();
        }
        pods.into_iter()
            .filter(|(_, pod)| has_own_address(pod))
            .map(|(id, _)| id)
            .collect()
    }

    /// Workloads that the slice's Service selects; empty without such a Service or selector.
    fn selected_by_service(&self, slice: &EndpointSlice) -> Vec<WorkloadId> {
        let namespace = slice.meta.namespace.as_str();
        let Some(selector) = slice
            .service
            .as_deref()
            .and_then(|name| self.services.selector(namespace, name))
            .filter(|selector| !selector.is_empty())
        else {
            return Vec::new();
        };
        identified(self.workloads)
            .filter(|(_, workload)| workload.namespace == namespace && has_own_address(workload))
            .filter(|(_, workload)| {
                selector
                    .iter()
                    .all(|(k, v)| workload.labels.get(k) == Some(v))
            })
            .map(|(id, _)| id)
            .collect()
    }

    fn workload(&self, id: WorkloadId) -> Option<&Workload> {
        workload_at(self.workloads, id)
    }
}

/// Controllers name their pods after themselves: `web` makes `web-5d4f8c-x2x9p`, `db` makes `db-0`.
fn makes_pod(controller: &Workload, namespace: &str, pod: &str) -> bool {
    let makes_pods = matches!(
        controller.kind,
        WorkloadKind::Deployment
            | WorkloadKind::StatefulSet
            | WorkloadKind::DaemonSet
            | WorkloadKind::Job
    );
    makes_pods
        && controller.namespace == namespace
        && pod
            .strip_prefix(controller.name.as_str())
            .is_some_and(|rest| rest.starts_with('-'))
}
