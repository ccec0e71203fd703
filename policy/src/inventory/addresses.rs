//! Which workload has an address of its own.

use std::net::IpAddr;

use super::resolve::WorkloadFound;
use super::{ByKey, WorkloadId, canonical};
use crate::resource::{Workload, WorkloadKind};

/// Addresses of workloads, by the strength of their claim; each list in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    pods: ByKey<IpAddr>,
    entries: ByKey<IpAddr>,
    declared: ByKey<IpAddr>,
    /// Pods that share the address of their node.
    on_nodes: ByKey<IpAddr>,
}

impl Addresses {
    pub(super) fn insert(
        &mut self,
        id: WorkloadId,
        workload: &Workload,
        before: impl Fn(WorkloadId) -> bool,
    ) {
        for address in held(workload) {
            self.claims(workload).put(address, id, &before);
        }
    }

    pub(super) fn remove(&mut self, id: WorkloadId, workload: &Workload) {
        for address in held(workload) {
            self.claims(workload).take(&address, id);
        }
    }

    fn claims(&mut self, workload: &Workload) -> &mut ByKey<IpAddr> {
        match workload.kind {
            WorkloadKind::WorkloadEntry => &mut self.entries,
            WorkloadKind::Declared => &mut self.declared,
            _ if workload.host_network => &mut self.on_nodes,
            _ => &mut self.pods,
        }
    }

    /// Running pods at an address.
    pub(super) fn of_pods(&self, address: IpAddr) -> Option<(&[WorkloadId], WorkloadFound)> {
        let address = canonical(address);
        Some((
            self.pods.get(&address)?.as_slice(),
            WorkloadFound::PodAddress(address),
        ))
    }

    /// WorkloadEntries at an address.
    pub(super) fn of_entries(&self, address: IpAddr) -> Option<(&[WorkloadId], WorkloadFound)> {
        Self::listed(&self.entries, address)
    }

    /// Workloads that the configuration declares at an address.
    pub(super) fn of_declared(&self, address: IpAddr) -> Option<(&[WorkloadId], WorkloadFound)> {
        Self::listed(&self.declared, address)
    }

    fn listed(claims: &ByKey<IpAddr>, address: IpAddr) -> Option<(&[WorkloadId], WorkloadFound)> {
        let address = canonical(address);
        let ids = claims.get(&address)?.as_slice();
        Some((ids, WorkloadFound::EntryAddress(address)))
    }

    /// The address is a node's, where pods run that share it.
    pub(super) fn is_of_node(&self, address: IpAddr) -> bool {
        self.on_nodes.get(&canonical(address)).is_some()
    }

    /// Addresses that several workloads claim with the same strength. Endpoints are left out: one that
    /// names no pod means every workload of its service.
    pub(super) fn shared(&self) -> impl Iterator<Item = (IpAddr, &[WorkloadId])> {
        let claims = self.pods.iter().chain(self.entries.iter());
        let claims = claims.chain(self.declared.iter());
        claims
            .map(|(address, ids)| (*address, ids.as_slice()))
            .filter(|(_, ids)| ids.len() > 1)
    }
}

/// A pod that ended, or that shares its node's address, has no claim on an address.
pub(super) fn has_own_address(workload: &Workload) -> bool {
    workload.running && !workload.host_network
}

/// Its addresses, until it ends.
fn held(workload: &Workload) -> impl Iterator<Item = IpAddr> {
    let addresses = workload.addresses.iter();
    addresses
        .filter(|_| workload.running)
        .map(|address| canonical(*address))
}
