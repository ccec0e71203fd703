//! The inventory: every workload and service that selectors, targetRefs and requests can mean.
//!
//! ```text
//! resources + settings -> Inventory;  Inventory + request -> destination workload, target, service
//! ```
//!
//! That of a snapshot never changes; the next one is a copy of it, which shares what did not. Look-ups
//! that could mean several workloads are answered only when all of them have the same policies; whoever
//! knows the policies says so through a closure.

mod addresses;
mod diagnose;
mod endpoints;
mod resolve;
mod served;
mod service;
mod target;

use std::net::IpAddr;
use std::sync::Arc;

pub use resolve::{Candidate, Resolved, Unresolved, WorkloadFound};
pub use service::{ServiceFound, ServiceKind, ServiceRef};
pub(crate) use target::GATEWAY_NAME_LABEL;
pub use target::TargetFound;

use crate::mesh::Mesh;
use crate::order::Order;
use crate::parted::{Parted, Slots};
use crate::resource::{Resource, Workload, WorkloadKind};
use crate::settings::{DeclaredWorkload, Settings};

use addresses::Addresses;
use endpoints::Endpoints;
use service::Services;
use target::Gateways;

/// A workload of one [`Inventory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadId(u32);

impl WorkloadId {
    /// Its number: the place in [`Inventory::workloads`] where nothing was ever taken out.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A Service or ServiceEntry of one [`Inventory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(u32);

/// Workloads, in order.
type Ids = Arc<Vec<WorkloadId>>;
/// Workloads under something.
type ByKey<K> = Parted<K, Ids>;

/// Everything that can be a destination.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    workloads: Workloads,
    /// By `namespace/name`, pods first.
    by_name: ByKey<Arc<str>>,
    /// By `namespace/serviceAccount`; only those that can be running.
    by_service_account: ByKey<Arc<str>>,
    addresses: Addresses,
    endpoints: Endpoints,
    gateways: Arc<Gateways>,
    /// The gateway documents changed, and the targets did not yet.
    targets_late: bool,
    services: Services,
    mesh: Mesh,
    default_workload: Option<String>,
}

/// Every workload by its number.
type Workloads = Slots<Stand>;

/// A workload and where it stands.
#[derive(Clone, Debug)]
struct Stand {
    /// A [`Resource::Workload`].
    resource: Arc<Resource>,
    order: Order,
    target: TargetFound,
}

/// What an inventory made of a resource: says what is taken out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Workload(WorkloadId),
    Service(ServiceId),
    EndpointSlice(u32),
    Gateway,
}

impl Inventory {
    /// Indexes the workloads, services and gateways of `resources` and the declared workloads of
    /// `settings`. Resources of other kinds are passed over.
    #[must_use]
    pub fn build(resources: &[Arc<Resource>], mesh: &Mesh, settings: &Settings) -> Self {
        let mut inventory = Self::new(mesh, settings);
        for (resource, place) in resources.iter().zip(0u32..) {
            inventory.insert(Order::Document(place), resource);
        }
        for (workload, place) in settings.workloads.iter().zip(0u32..) {
            inventory.insert(Order::Declared(place), &declared(workload));
        }
        inventory.settle();
        inventory
    }

    /// Without anything.
    pub(crate) fn new(mesh: &Mesh, settings: &Settings) -> Self {
        Self {
            mesh: mesh.clone(),
            default_workload: settings.default_workload.clone(),
            ..Self::default()
        }
    }

    /// Takes a resource in. What follows from several of them is right after [`Self::settle`].
    pub(crate) fn insert(&mut self, order: Order, resource: &Arc<Resource>) -> Option<Part> {
        match resource.as_ref() {
            Resource::Workload(workload) => {
                let id = self.workloads.add(Stand {
                    resource: Arc::clone(resource),
                    order,
                    target: self.target_of(workload),
                })?;
                let id = WorkloadId(id);
                self.link(id, workload);
                Some(Part::Workload(id))
            }
            Resource::Service(_) | Resource::ServiceEntry(_) => {
                let id = self.services.insert(order, resource)?;
                self.service_changed(resource);
                Some(Part::Service(id))
            }
            Resource::EndpointSlice(_) => {
                let id = self.endpoints.insert(resource)?;
                Some(Part::EndpointSlice(id))
            }
            Resource::Gateway(_) | Resource::GatewayClass(_) | Resource::IstioGateway(_) => {
                Arc::make_mut(&mut self.gateways).insert(order, resource);
                self.targets_late = true;
                Some(Part::Gateway)
            }
            _ => None,
        }
    }

    /// Takes out what stood at `order`.
    pub(crate) fn remove(&mut self, order: &Order, part: Part) {
        match part {
            Part::Workload(id) => {
                let Some(stand) = self.workloads.get(id.0) else {
                    return;
                };
                let resource = Arc::clone(&stand.resource);
                if let Resource::Workload(workload) = resource.as_ref() {
                    self.unlink(id, workload);
                }
                self.workloads.remove(id.0);
            }
            Part::Service(id) => {
                if let Some(resource) = self.services.remove(id) {
                    self.service_changed(&resource);
                }
            }
            Part::EndpointSlice(id) => {
                self.endpoints.remove(id, &self.workloads);
            }
            Part::Gateway => {
                Arc::make_mut(&mut self.gateways).remove(order);
                self.targets_late = true;
            }
        }
    }

    /// Brings what follows from several resources up to date: targets, and who is behind an endpoint.
    pub(crate) fn settle(&mut self) {
        if std::mem::take(&mut self.targets_late) {
            Arc::make_mut(&mut self.gateways).settle();
            let late: Vec<(u32, TargetFound)> = self
                .workloads
                .iter()
                .filter_map(|(id, stand)| {
                    let target = self.target_of(workload_of(&stand.resource)?);
                    (target != stand.target).then_some((id, target))
                })
                .collect();
            for (id, target) in late {
                if let Some(stand) = self.workloads.get_mut(id) {
                    stand.target = target;
                }
            }
        }
        self.endpoints
            .settle(&self.workloads, &self.by_name, &self.services);
    }

    fn target_of(&self, workload: &Workload) -> TargetFound {
        self.gateways.target(workload, &self.mesh.root_namespace)
    }

    fn link(&mut self, id: WorkloadId, workload: &Workload) {
        let workloads = &self.workloads;
        let by_kind = |other: WorkloadId| {
            let kind = workload_at(workloads, other).map(|w| w.kind);
            (kind, order_of(workloads, other)) < (Some(workload.kind), order_of(workloads, id))
        };
        let name = key(&workload.namespace, &workload.name);
        self.by_name.put(Arc::clone(&name), id, by_kind);
        let before = |other: WorkloadId| order_of(workloads, other) < order_of(workloads, id);
        if workload.running {
            let account = key(&workload.namespace, &workload.service_account);
            self.by_service_account.put(account, id, before);
        }
        self.addresses.insert(id, workload, before);
        self.endpoints.workload_came(id, workload, &name, before);
    }

    fn unlink(&mut self, id: WorkloadId, workload: &Workload) {
        let name = key(&workload.namespace, &workload.name);
        self.by_name.take(name.as_ref(), id);
        if workload.running {
            let account = key(&workload.namespace, &workload.service_account);
            self.by_service_account.take(account.as_ref(), id);
        }
        self.addresses.remove(id, workload);
        self.endpoints.workload_went(id, workload, &name);
    }

    fn service_changed(&mut self, resource: &Resource) {
        if let Resource::Service(service) = resource {
            let name = key(&service.meta.namespace, &service.meta.name);
            self.endpoints.service_changed(&name);
        }
    }

    /// Number of workloads.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workloads.len()
    }

    /// True without any workload.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every workload with its id: of files in document order, declared ones last; where objects come
    /// and go, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = (WorkloadId, &Workload)> {
        let stands = self.workloads.iter();
        stands.filter_map(|(id, stand)| Some((WorkloadId(id), workload_of(&stand.resource)?)))
    }

    /// One workload; `None` for an id of another inventory.
    #[must_use]
    pub fn workload(&self, id: WorkloadId) -> Option<&Workload> {
        workload_at(&self.workloads, id)
    }

    /// The resource that a workload is.
    pub(crate) fn workload_resource(&self, id: WorkloadId) -> Option<&Arc<Resource>> {
        self.workloads.get(id.0).map(|stand| &stand.resource)
    }

    /// Where a workload stands among the others.
    pub(crate) fn order(&self, id: WorkloadId) -> Option<&Order> {
        order_of(&self.workloads, id)
    }

    /// Names a service; `None` for an id of another inventory.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<ServiceRef<'_>> {
        self.services.name(id)
    }

    /// The resource that a service is.
    pub(crate) fn service_resource(&self, id: ServiceId) -> Option<&Arc<Resource>> {
        self.services.resource(id)
    }

    /// Every service with its id.
    pub fn services(&self) -> impl Iterator<Item = (ServiceId, ServiceRef<'_>)> {
        self.services.iter()
    }

    /// What `auto` means for a workload, and why.
    #[must_use]
    pub fn auto_target(&self, id: WorkloadId) -> (crate::request::Target, TargetFound) {
        let stand = self.workloads.get(id.0);
        let found = stand.map_or(TargetFound::Workload, |stand| stand.target);
        (found.target(), found)
    }
}

/// `namespace/name`, the form of every name index.
fn key(namespace: &str, name: &str) -> Arc<str> {
    format!("{namespace}/{name}").into()
}

/// One form for an address and its IPv4-mapped twin.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn workload_of(resource: &Resource) -> Option<&Workload> {
    match resource {
        Resource::Workload(workload) => Some(workload),
        _ => None,
    }
}

fn workload_at(workloads: &Workloads, id: WorkloadId) -> Option<&Workload> {
    workload_of(&workloads.get(id.0)?.resource)
}

fn order_of(workloads: &Workloads, id: WorkloadId) -> Option<&Order> {
    workloads.get(id.0).map(|stand| &stand.order)
}

pub(crate) fn declared(workload: &DeclaredWorkload) -> Arc<Resource> {
    // Destructured whole, so that a new field cannot be forgotten here.
    let DeclaredWorkload {
        namespace,
        name,
        labels,
        service_account,
        addresses,
    } = workload;
    let service_account = match service_account.as_str() {
        "" => "default",
        account => account,
    };
    Arc::new(Resource::Workload(Workload {
        kind: WorkloadKind::Declared,
        namespace: namespace.clone(),
        name: name.clone(),
        labels: labels.clone(),
        service_account: service_account.to_owned(),
        addresses: addresses.clone(),
        host_network: false,
        running: true,
        ports: Vec::new(),
        at: crate::diagnostic::Location::default(),
    }))
}
