//! The inventory: every workload and service that selectors, targetRefs and requests can mean.
//!
//! ```text
//! resources + settings -> Inventory;  Inventory + request -> destination workload, target, service
//! ```
//!
//! Built once per snapshot and never changed. Look-ups that could mean several workloads are answered
//! only when all of them have the same policies; whoever knows the policies says so through a closure.

mod addresses;
mod diagnose;
mod resolve;
mod service;
mod target;

use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

pub use resolve::{Candidate, Resolved, Unresolved, WorkloadFound};
pub use service::{ServiceFound, ServiceKind, ServiceRef};
pub(crate) use target::GATEWAY_NAME_LABEL;
pub use target::TargetFound;

use crate::mesh::Mesh;
use crate::resource::{Resource, Workload, WorkloadKind};
use crate::settings::{DeclaredWorkload, Settings};

use addresses::Addresses;
use service::Services;
use target::Targets;

/// A workload of one [`Inventory`]: its place in [`Inventory::workloads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadId(u32);

impl WorkloadId {
    /// Place in [`Inventory::workloads`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A Service or ServiceEntry of one [`Inventory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(u32);

/// Everything that can be a destination. Immutable.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// Every one is a [`Resource::Workload`].
    workloads: Vec<Arc<Resource>>,
    /// By `namespace/name`, pods first.
    by_name: FxHashMap<Box<str>, Vec<WorkloadId>>,
    /// By `namespace/serviceAccount`; only those that can be running.
    by_service_account: FxHashMap<Box<str>, Vec<WorkloadId>>,
    addresses: Addresses,
    targets: Targets,
    services: Services,
    mesh: Mesh,
    default_workload: Option<String>,
}

impl Inventory {
    /// Indexes the workloads, services and gateways of `resources` and the declared workloads of
    /// `settings`. Resources of other kinds are passed over.
    #[must_use]
    pub fn build(resources: &[Arc<Resource>], mesh: &Mesh, settings: &Settings) -> Self {
        let mut workloads: Vec<Arc<Resource>> = resources
            .iter()
            .filter(|resource| matches!(resource.as_ref(), Resource::Workload(_)))
            .cloned()
            .collect();
        workloads.extend(settings.workloads.iter().map(declared));
        workloads.truncate(u32::MAX as usize);

        let mut by_name: FxHashMap<Box<str>, Vec<WorkloadId>> = FxHashMap::default();
        let mut by_service_account: FxHashMap<Box<str>, Vec<WorkloadId>> = FxHashMap::default();
        for (id, workload) in identified(&workloads) {
            let name = key(&workload.namespace, &workload.name);
            by_name.entry(name).or_default().push(id);
            if workload.running {
                let account = key(&workload.namespace, &workload.service_account);
                by_service_account.entry(account).or_default().push(id);
            }
        }
        for ids in by_name.values_mut() {
            ids.sort_by_key(|id| {
                (
                    workload_at(&workloads, *id).map(|workload| workload.kind),
                    *id,
                )
            });
        }
        let services = Services::build(resources);
        let addresses = Addresses::build(&workloads, &by_name, resources, &services);
        let targets = Targets::build(&workloads, resources);
        Self {
            by_name,
            by_service_account,
            addresses,
            targets,
            services,
            mesh: mesh.clone(),
            default_workload: settings.default_workload.clone(),
            workloads,
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
        self.workloads.is_empty()
    }

    /// Every workload with its id, in document order, declared ones last.
    pub fn workloads(&self) -> impl Iterator<Item = (WorkloadId, &Workload)> {
        identified(&self.workloads)
    }

    /// One workload; `None` for an id of another inventory.
    #[must_use]
    pub fn workload(&self, id: WorkloadId) -> Option<&Workload> {
        workload_at(&self.workloads, id)
    }

    /// Names a service; `None` for an id of another inventory.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<ServiceRef<'_>> {
        self.services.name(id)
    }

    /// Every service with its id.
    pub fn services(&self) -> impl Iterator<Item = (ServiceId, ServiceRef<'_>)> {
        self.services.iter()
    }

    /// What `auto` means for a workload, and why.
    #[must_use]
    pub fn auto_target(&self, id: WorkloadId) -> (crate::request::Target, TargetFound) {
        self.targets.of(id)
    }
}

/// `namespace/name`, the form of every name index.
fn key(namespace: &str, name: &str) -> Box<str> {
    format!("{namespace}/{name}").into_boxed_str()
}

/// One form for an address and its IPv4-mapped twin.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn workload_at(workloads: &[Arc<Resource>], id: WorkloadId) -> Option<&Workload> {
    match workloads.get(id.index()).map(Arc::as_ref) {
        Some(Resource::Workload(workload)) => Some(workload),
        _ => None,
    }
}

fn identified(workloads: &[Arc<Resource>]) -> impl Iterator<Item = (WorkloadId, &Workload)> {
    workloads
        .iter()
        .zip(0u32..)
        .filter_map(|(resource, index)| match resource.as_ref() {
            Resource::Workload(workload) => Some((WorkloadId(index), workload)),
            _ => None,
        })
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
