//! Which workload answers at an address.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::resolve::WorkloadFound;
use super::service::Services;
use super::{WorkloadId, canonical, identified, key, workload_at};
use crate::resource::{Endpoint, EndpointSlice, Resource, Workload, WorkloadKind};

/// Workloads by address, each list in document order. Endpoints of one slice share theirs.
type Claims = FxHashMap<IpAddr, Arc<[WorkloadId]>>;

/// Addresses of workloads, by the strength of their claim.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    pods: Claims,
    endpoints: Claims,
    entries: Claims,
}

impl Addresses {
    pub(super) fn build(
        workloads: &[Arc<Resource>],
        by_name: &FxHashMap<Box<str>, Vec<WorkloadId>>,
        resources: &[Arc<Resource>],
        services: &Services,
    ) -> Self {
        let endpoints = Endpoints {
            workloads,
            by_name,
            services,
            by_namespace: OnceCell::new(),
        };
        Self {
            pods: own_addresses(workloads, |kind| !is_entry(kind)),
            endpoints: endpoints.claims(resources),
            entries: own_addresses(workloads, is_entry),
        }
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
        .find_map(|(claims, found)| Some((claims.get(&address)?.as_ref(), found)))
    }

    /// Addresses that several workloads claim with the same strength. Endpoints are left out: one that
    /// names no pod means every workload of its service.
    pub(super) fn shared(&self) -> impl Iterator<Item = (IpAddr, &[WorkloadId])> {
        let claims = self.pods.iter().chain(&self.entries);
        claims
            .map(|(address, ids)| (*address, ids.as_ref()))
            .filter(|(_, ids)| ids.len() > 1)
    }
}

fn is_entry(kind: WorkloadKind) -> bool {
    matches!(kind, WorkloadKind::WorkloadEntry | WorkloadKind::Declared)
}

/// A pod that ended, or that shares its node's address, has no claim on an address.
fn has_own_address(workload: &Workload) -> bool {
    workload.running && !workload.host_network
}

fn own_addresses(workloads: &[Arc<Resource>], of: impl Fn(WorkloadKind) -> bool) -> Claims {
    let mut claims: FxHashMap<IpAddr, Vec<WorkloadId>> = FxHashMap::default();
    for (id, workload) in identified(workloads) {
        if of(workload.kind) && has_own_address(workload) {
            for address in &workload.addresses {
                let ids = claims.entry(canonical(*address)).or_default();
                if ids.last() != Some(&id) {
                    ids.push(id);
                }
            }
        }
    }
    claims
        .into_iter()
        .map(|(address, ids)| (address, ids.into()))
        .collect()
}

fn claim(claims: &mut Claims, address: IpAddr, ids: &Arc<[WorkloadId]>) {
    let held = claims
        .entry(canonical(address))
        .or_insert_with(|| Arc::clone(ids));
    if held != ids {
        let mut both: Vec<WorkloadId> = held.iter().chain(ids.iter()).copied().collect();
        both.sort_unstable();
        both.dedup();
        *held = both.into();
    }
}

/// What it takes to find the workload behind an endpoint.
struct Endpoints<'a> {
    workloads: &'a [Arc<Resource>],
    by_name: &'a FxHashMap<Box<str>, Vec<WorkloadId>>,
    services: &'a Services,
    /// Workloads with addresses of their own; made when an endpoint does not name a pod we know.
    by_namespace: OnceCell<FxHashMap<&'a str, Vec<WorkloadId>>>,
}

impl Endpoints<'_> {
    fn claims(&self, resources: &[Arc<Resource>]) -> Claims {
        let mut claims = Claims::default();
        for resource in resources {
            let Resource::EndpointSlice(slice) = resource.as_ref() else {
                continue;
            };
            let selected = OnceCell::new();
            let selected = || selected.get_or_init(|| self.selected_by_service(slice));
            for endpoint in &slice.endpoints {
                let ids = self.behind(slice, endpoint, selected);
                if !ids.is_empty() {
                    for address in &endpoint.addresses {
                        claim(&mut claims, *address, &ids);
                    }
                }
            }
        }
        claims
    }

    /// The pod that the endpoint names. A pod that no document describes is one of the selected
    /// controllers' whose name starts its own; an endpoint that names none is any selected workload.
    fn behind<'s>(
        &self,
        slice: &EndpointSlice,
        endpoint: &Endpoint,
        selected: impl Fn() -> &'s Arc<[WorkloadId]>,
    ) -> Arc<[WorkloadId]> {
        let Some((namespace, name)) = &endpoint.pod else {
            return Arc::clone(selected());
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
            let makes = |id: &WorkloadId| {
                self.workload(*id)
                    .is_some_and(|controller| makes_pod(controller, namespace, name))
            };
            return selected().iter().copied().filter(makes).collect();
        }
        pods.into_iter()
            .filter(|(_, pod)| has_own_address(pod))
            .map(|(id, _)| id)
            .collect()
    }

    /// Workloads that the slice's Service selects; empty without such a Service or selector.
    fn selected_by_service(&self, slice: &EndpointSlice) -> Arc<[WorkloadId]> {
        let namespace = slice.meta.namespace.as_str();
        let service = slice.service.as_deref();
        let selector = service.and_then(|name| self.services.selector(namespace, name));
        let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
            return Arc::from([]);
        };
        let selects = |labels: &BTreeMap<String, String>| {
            selector
                .iter()
                .all(|(label, value)| labels.get(label) == Some(value))
        };
        self.in_namespace(namespace)
            .iter()
            .copied()
            .filter(|id| {
                self.workload(*id)
                    .is_some_and(|workload| selects(&workload.labels))
            })
            .collect()
    }

    fn in_namespace(&self, namespace: &str) -> &[WorkloadId] {
        let by_namespace = self.by_namespace.get_or_init(|| {
            let mut by_namespace: FxHashMap<&str, Vec<WorkloadId>> = FxHashMap::default();
            for (id, workload) in identified(self.workloads) {
                if has_own_address(workload) {
                    by_namespace
                        .entry(&workload.namespace)
                        .or_default()
                        .push(id);
                }
            }
            by_namespace
        });
        by_namespace.get(namespace).map_or(&[], Vec::as_slice)
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
