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
}

impl Addresses {
    pub(super) fn insert(
        &mut self,
        id: WorkloadId,
        workload: &Workload,
        before: impl Fn(WorkloadId) -> bool,
    ) {
        for address in own(workload) {
            self.claims(workload).put(address, id, &before);
        }
    }

    pub(super) fn remove(&mut self, id: WorkloadId, workload: &Workload) {
        for address in own(workload) {
            self.claims(workload).take(&address, id);
        }
    }

    fn claims(&mut self, workload: &Workload) -> &mut ByKey<IpAddr> {
        match workload.kind {
            WorkloadKind::WorkloadEntry | WorkloadKind::Declared => &mut self.entries,
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

    /// WorkloadEntries and declared workloads at an address.
    pub(super) fn of_entries(&self, address: IpAddr) -> Option<(&[WorkloadId], WorkloadFound)> {
        let address = canonical(address);
        Some((
            self.entries.get(&address)?.as_slice(),
            WorkloadFound::EntryAddress(address),
        ))
    }

    /// Addresses that several workloads claim with the same strength. Endpoints are left out: one that
    /// names no pod means every workload of its service.
    pub(super) fn shared(&self) -> impl Iterator<Item = (IpAddr, &[WorkloadId])> {
        let claims = self.pods.iter().chain(self.entries.iter());
        claims
            .map(|(address, ids)| (*address, ids.as_slice()))
            .filter(|(_, ids)| ids.len() > 1)
    }
}

/// A pod that ended, or that shares its node's address, has no claim on an address.
pub(super) fn has_own_address(workload: &Workload) -> bool {
    workload.running && !workload.host_network
}

fn own(workload: &Workload) -> impl Iterator<Item = IpAddr> {
    let addresses = workload.addresses.iter();
    addresses
        .filter(|_| has_own_address(workload))
        .map(|address| canonical(*address))
}
