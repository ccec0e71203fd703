//! Which workloads are behind the addresses of EndpointSlices.
//!
//! An endpoint hangs on pods, services and labels that come and go by themselves: whatever changes marks
//! the slices that may hang on it, and those alone are looked at again.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use super::addresses::has_own_address;
use super::resolve::WorkloadFound;
use super::service::Services;
use super::{ByKey, Ids, WorkloadId, Workloads, canonical, key, order_of, workload_at};
use crate::parted::{Parted, Slots};
use crate::resource::{Endpoint, EndpointSlice, Resource, Workload, WorkloadKind};

/// EndpointSlices, and what their addresses come to.
#[derive(Clone, Debug, Default)]
pub(super) struct Endpoints {
    slices: Slots<Claiming>,
    at: Parted<IpAddr, Claimed>,
    /// Slices whose endpoints name a pod, by `namespace/name`.
    by_pod: Parted<Arc<str>, Arc<Vec<u32>>>,
    /// Slices of a Service, by `namespace/name`.
    by_service: Parted<Arc<str>, Arc<Vec<u32>>>,
    /// Slices with an endpoint that means whatever their Service selects, by namespace.
    selecting: Parted<Arc<str>, Arc<Vec<u32>>>,
    /// Workloads with addresses of their own, by namespace.
    by_namespace: ByKey<Arc<str>>,
    /// Slices to be looked at again.
    marked: Vec<u32>,
}

/// One slice and the claims it made.
#[derive(Clone, Debug)]
struct Claiming {
    /// A [`Resource::EndpointSlice`].
    resource: Arc<Resource>,
    claims: Arc<Vec<(IpAddr, Ids)>>,
}

/// What slices claim at one address.
#[derive(Clone, Debug, Default)]
struct Claimed {
    by_slice: Vec<(u32, Ids)>,
    all: Ids,
}

impl Endpoints {
    /// The workloads behind an endpoint's address.
    pub(super) fn at(&self, address: IpAddr) -> Option<(&[WorkloadId], WorkloadFound)> {
        let address = canonical(address);
        let claimed = self.at.get(&address)?;
        Some((&claimed.all, WorkloadFound::EndpointAddress(address)))
    }

    pub(super) fn insert(&mut self, resource: &Arc<Resource>) -> Option<u32> {
        let id = self.slices.add(Claiming {
            resource: Arc::clone(resource),
            claims: Arc::default(),
        })?;
        let slice = endpoint_slice(resource)?;
        for pod in pods(slice) {
            self.by_pod.put(pod, id, |other| other < id);
        }
        if let Some(service) = service(slice) {
            self.by_service.put(service, id, |other| other < id);
        }
        self.marked.push(id);
        Some(id)
    }

    pub(super) fn remove(&mut self, id: u32, workloads: &Workloads) {
        self.unclaim(id, workloads);
        let Some(claiming) = self.slices.remove(id) else {
            return;
        };
        let Some(slice) = endpoint_slice(&claiming.resource) else {
            return;
        };
        for pod in pods(slice) {
            self.by_pod.take(pod.as_ref(), id);
        }
        if let Some(service) = service(slice) {
            self.by_service.take(service.as_ref(), id);
        }
        self.selecting.take(slice.meta.namespace.as_str(), id);
    }

    pub(super) fn workload_came(
        &mut self,
        id: WorkloadId,
        workload: &Workload,
        name: &str,
        before: impl Fn(WorkloadId) -> bool,
    ) {
        if has_own_address(workload) {
            let namespace = Arc::from(workload.namespace.as_str());
            self.by_namespace.put(namespace, id, before);
        }
        self.mark(workload, name);
    }

    pub(super) fn workload_went(&mut self, id: WorkloadId, workload: &Workload, name: &str) {
        self.by_namespace.take(workload.namespace.as_str(), id);
        self.mark(workload, name);
    }

    pub(super) fn service_changed(&mut self, name: &str) {
        self.marked.extend(self.by_service.list(name));
    }

    /// Workloads with addresses of their own.
    pub(super) fn in_namespace(&self, namespace: &str) -> &[WorkloadId] {
        self.by_namespace.list(namespace)
    }

    /// The workloads that the slices of a Service claim.
    pub(super) fn of_service(&self, namespace: &str, name: &str) -> Vec<WorkloadId> {
        let slices = self.by_service.list(key(namespace, name).as_ref()).iter();
        let claims = slices.filter_map(|id| Some(&self.slices.get(*id)?.claims));
        let ids = claims.flat_map(|claims| claims.iter().flat_map(|(_, ids)| ids.iter()));
        let mut ids: Vec<WorkloadId> = ids.copied().collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn mark(&mut self, workload: &Workload, name: &str) {
        self.marked.extend(self.by_pod.list(name));
        let selecting = self.selecting.list(workload.namespace.as_str());
        self.marked.extend(selecting);
    }

    /// Looks at the marked slices again.
    pub(super) fn settle(
        &mut self,
        workloads: &Workloads,
        by_name: &ByKey<Arc<str>>,
        services: &Services,
    ) {
        let mut marked = std::mem::take(&mut self.marked);
        marked.sort_unstable();
        marked.dedup();
        for id in marked {
            let Some(claiming) = self.slices.get(id) else {
                continue;
            };
            let resource = Arc::clone(&claiming.resource);
            let Some(slice) = endpoint_slice(&resource) else {
                continue;
            };
            self.unclaim(id, workloads);
            let look = Look {
                workloads,
                by_name,
                services,
                by_namespace: &self.by_namespace,
            };
            let (claims, selects) = look.claims(slice);
            let namespace = slice.meta.namespace.as_str();
            if selects {
                let namespace = Arc::from(namespace);
                self.selecting.put(namespace, id, |other| other < id);
            } else {
                self.selecting.take(namespace, id);
            }
            for (address, ids) in &claims {
                self.at.update(*address, |claimed| {
                    claimed.by_slice.push((id, Arc::clone(ids)));
                    claimed.gather(workloads);
                });
            }
            if let Some(claiming) = self.slices.get_mut(id) {
                claiming.claims = Arc::new(claims);
            }
        }
    }

    fn unclaim(&mut self, id: u32, workloads: &Workloads) {
        let Some(claiming) = self.slices.get(id) else {
            return;
        };
        let claims = Arc::clone(&claiming.claims);
        for (address, _) in claims.iter() {
            let Some(claimed) = self.at.get_mut(address) else {
                continue;
            };
            claimed.by_slice.retain(|(slice, _)| *slice != id);
            if claimed.by_slice.is_empty() {
                self.at.remove(address);
            } else {
                claimed.gather(workloads);
            }
        }
    }
}

impl Claimed {
    /// Those of every slice, in order.
    fn gather(&mut self, workloads: &Workloads) {
        let mut lists = self.by_slice.iter().map(|(_, ids)| ids);
        let Some(first) = lists.next() else {
            return;
        };
        if lists.all(|other| other == first) {
            self.all = Arc::clone(first);
            return;
        }
        // One that went is about to leave the other lists as well.
        let ids = self.by_slice.iter().flat_map(|(_, ids)| ids.iter());
        let mut all: Vec<WorkloadId> = ids
            .copied()
            .filter(|id| order_of(workloads, *id).is_some())
            .collect();
        all.sort_by(|a, b| order_of(workloads, *a).cmp(&order_of(workloads, *b)));
        all.dedup();
        self.all = Arc::new(all);
    }
}

fn endpoint_slice(resource: &Resource) -> Option<&EndpointSlice> {
    match resource {
        Resource::EndpointSlice(slice) => Some(slice),
        _ => None,
    }
}

/// The pods that a slice names, `namespace/name`.
fn pods(slice: &EndpointSlice) -> impl Iterator<Item = Arc<str>> {
    let endpoints = slice.endpoints.iter();
    endpoints
        .filter_map(|endpoint| pod(slice, endpoint))
        .map(|(namespace, name)| key(namespace, name))
}

fn pod<'s>(slice: &'s EndpointSlice, endpoint: &'s Endpoint) -> Option<(&'s str, &'s str)> {
    let (namespace, name) = endpoint.pod.as_ref()?;
    let namespace = match namespace.as_str() {
        "" => slice.meta.namespace.as_str(),
        namespace => namespace,
    };
    Some((namespace, name))
}

fn service(slice: &EndpointSlice) -> Option<Arc<str>> {
    let name = slice.service.as_deref()?;
    Some(key(&slice.meta.namespace, name))
}

/// What it takes to find the workloads behind an endpoint.
struct Look<'a> {
    workloads: &'a Workloads,
    by_name: &'a ByKey<Arc<str>>,
    services: &'a Services,
    by_namespace: &'a ByKey<Arc<str>>,
}

impl Look<'_> {
    /// What a slice claims, and whether it hangs on what its Service selects.
    fn claims(&self, slice: &EndpointSlice) -> (Vec<(IpAddr, Ids)>, bool) {
        let selected = OnceCell::new();
        let mut claims = Vec::new();
        for endpoint in &slice.endpoints {
            let ids = self.behind(slice, endpoint, || {
                selected.get_or_init(|| self.selected_by_service(slice))
            });
            if !ids.is_empty() {
                let addresses = endpoint.addresses.iter();
                claims.extend(addresses.map(|a| (canonical(*a), Arc::clone(&ids))));
            }
        }
        (claims, selected.get().is_some())
    }

    /// The pod that the endpoint names. A pod that no document describes is one of the selected
    /// controllers' whose name starts its own; an endpoint that names none is any selected workload.
    fn behind<'s>(
        &self,
        slice: &EndpointSlice,
        endpoint: &Endpoint,
        selected: impl Fn() -> &'s Ids,
    ) -> Ids {
        let Some((namespace, name)) = pod(slice, endpoint) else {
            return Arc::clone(selected());
        };
        let named = self.by_name.list(key(namespace, name).as_ref()).iter();
        let pods: Vec<(WorkloadId, &Workload)> = named
            .filter_map(|id| Some((*id, self.workload(*id)?)))
            .filter(|(_, workload)| workload.kind == WorkloadKind::Pod)
            .collect();
        let ids: Vec<WorkloadId> = if pods.is_empty() {
            let makes = |id: &WorkloadId| {
                self.workload(*id)
                    .is_some_and(|controller| makes_pod(controller, namespace, name))
            };
            selected().iter().copied().filter(makes).collect()
        } else {
            pods.into_iter()
                .filter(|(_, pod)| has_own_address(pod))
                .map(|(id, _)| id)
                .collect()
        };
        Arc::new(ids)
    }

    /// Workloads that the slice's Service selects; empty without such a Service or selector.
    fn selected_by_service(&self, slice: &EndpointSlice) -> Ids {
        let namespace = slice.meta.namespace.as_str();
        let service = slice.service.as_deref();
        let selector = service.and_then(|name| self.services.selector(namespace, name));
        let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
            return Arc::default();
        };
        let selects = |id: &WorkloadId| {
            self.workload(*id).is_some_and(|workload| {
                let mut labels = selector.iter();
                labels.all(|(label, value)| workload.labels.get(label) == Some(value))
            })
        };
        let ids = self.by_namespace.list(namespace).iter().copied();
        Arc::new(ids.filter(selects).collect())
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
