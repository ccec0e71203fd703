//! From a request to its destination: workload, target and service, or the reason why not.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::service::ByHost;
use super::{Inventory, ServiceFound, ServiceId, TargetFound, WorkloadId};
use crate::decision::Reason;
use crate::request::{Request, Target};

/// How the destination workload was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkloadFound {
    /// `portcullis.workload` names it.
    Named,
    /// The destination's address is that of a running pod.
    PodAddress(IpAddr),
    /// The destination's address stands in an EndpointSlice.
    EndpointAddress(IpAddr),
    /// The destination's address is that of a WorkloadEntry or declared workload.
    EntryAddress(IpAddr),
    /// The destination's own SPIFFE ID names its service account.
    ServiceAccount,
    /// Nothing else named one: the configured default.
    Default,
}

impl fmt::Display for WorkloadFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => f.write_str("named by `portcullis.workload`"),
            Self::PodAddress(ip) => write!(f, "a running pod has the address `{ip}`"),
            Self::EndpointAddress(ip) => write!(f, "an EndpointSlice has the address `{ip}`"),
            Self::EntryAddress(ip) => write!(f, "its declaration has the address `{ip}`"),
            Self::ServiceAccount => f.write_str("by the service account in destination.principal"),
            Self::Default => f.write_str("the configured default workload"),
        }
    }
}

/// One way to read a request: what must be the same for all of them is the policies in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// The destination.
    pub workload: WorkloadId,
    /// What enforces there.
    pub target: Target,
    /// The service that a waypoint serves, if any; `None` on every other target.
    pub service: Option<ServiceId>,
}

/// The destination of a request. Where several workloads could be meant and all have the same
/// policies, the first in document order stands for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The destination.
    pub workload: WorkloadId,
    /// What enforces there.
    pub target: Target,
    /// The service that a waypoint serves, if any; `None` on every other target.
    pub service: Option<ServiceId>,
    /// How the workload was found.
    pub workload_found: WorkloadFound,
    /// How the target was found.
    pub target_found: TargetFound,
    /// How the service was found; `None` without one.
    pub service_found: Option<ServiceFound>,
}

/// Why a request has no destination: a closed state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// `portcullis.workload` names a workload that is not in the inventory.
    #[error("no workload `{0}`, which `portcullis.workload` names")]
    UnknownWorkload(String),
    /// No fact of the request, and no default, leads to a workload.
    #[error("no address, principal or default leads to a workload")]
    NoWorkload,
    /// The configured default is not in the inventory.
    #[error("no workload `{0}`, the configured default")]
    UnknownDefault(String),
    /// `portcullis.service`, or a cluster-local host, names a service that is not in the inventory.
    #[error("no service `{0}` behind this waypoint")]
    UnknownService(String),
    /// Several workloads, or services of a waypoint, with different policies: the names of the first
    /// ones, and how many more there are.
    #[error("{} with different policies could be the destination", listed(first, *more))]
    Ambiguous {
        /// `kind/namespace/name`, with the service where that is what differs.
        first: Vec<String>,
        /// Those not named.
        more: usize,
    },
}

fn listed(first: &[String], more: usize) -> String {
    let names = first
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    match more {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

impl Unresolved {
    /// The word for decisions.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Ambiguous { .. } => Reason::DestinationAmbiguous,
            Self::UnknownWorkload(_)
            | Self::NoWorkload
            | Self::UnknownDefault(_)
            | Self::UnknownService(_) => Reason::UnknownDestination,
        }
    }
}

impl Inventory {
    /// Finds the destination of `request`.
    ///
    /// `same` says whether all of several candidates (two at least, in document order) have the same
    /// policies in force; it is asked only when a fact leaves more than one.
    ///
    /// # Errors
    /// [`Unresolved`], whose reason is a closed state.
    pub fn resolve(
        &self,
        request: &Request,
        same: impl Fn(&[Candidate]) -> bool,
    ) -> Result<Resolved, Unresolved> {
        let (workloads, workload_found) = self.find_workloads(request)?;
        let mut candidates = Vec::with_capacity(workloads.len());
        let mut service_found = None;
        for workload in workloads.iter() {
            let target = request
                .target
                .unwrap_or_else(|| self.auto_target(*workload).0);
            if target == Target::Waypoint {
                let (services, found) = self.find_services(request, *workload)?;
                service_found = found;
                if services.is_empty() {
                    candidates.push(Candidate {
                        workload: *workload,
                        target,
                        service: None,
                    });
                }
                candidates.extend(services.into_iter().map(|service| Candidate {
                    workload: *workload,
                    target,
                    service: Some(service),
                }));
            } else {
                candidates.push(Candidate {
                    workload: *workload,
                    target,
                    service: None,
                });
            }
        }
        let first = *candidates.first().ok_or(Unresolved::NoWorkload)?;
        if candidates.len() > 1 && !same(&candidates) {
            return Err(self.ambiguous(&candidates));
        }
        let target_found = match request.target {
            Some(_) => TargetFound::Stated,
            None => self.auto_target(first.workload).1,
        };
        Ok(Resolved {
            workload: first.workload,
            target: first.target,
            service: first.service,
            workload_found,
            target_found,
            service_found: first.service.and(service_found),
        })
    }

    fn ambiguous(&self, candidates: &[Candidate]) -> Unresolved {
        const NAMED: usize = 3;
        let name = |candidate: &Candidate| {
            let workload = self.workload(candidate.workload)?;
            let (kind, namespace, name) =
                (workload.kind.as_str(), &workload.namespace, &workload.name);
            let service = candidate.service.and_then(|service| self.service(service));
            Some(match service {
                Some(service) => format!("{kind}/{namespace}/{name} for {service}"),
                None => format!("{kind}/{namespace}/{name}"),
            })
        };
        Unresolved::Ambiguous {
            first: candidates.iter().take(NAMED).filter_map(name).collect(),
            more: candidates.len().saturating_sub(NAMED),
        }
    }

    /// Workloads named `namespace/name` (pods, else every other kind) or `kind/namespace/name`.
    #[must_use]
    pub fn named(&self, text: &str) -> &[WorkloadId] {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) if name.contains('/') => (Some(kind), name),
            _ => (None, text),
        };
        let ids = self.by_name.list(name);
        let kind_of = |id: &WorkloadId| self.workload(*id).map(|workload| workload.kind);
        // The list is sorted by kind: a kind is a contiguous part of it.
        let part = match kind {
            Some(kind) => ids
                .iter()
                .filter_map(kind_of)
                .find(|k| k.as_str().eq_ignore_ascii_case(kind)),
            None => ids
                .first()
                .and_then(kind_of)
                .filter(|k| *k == crate::resource::WorkloadKind::Pod),
        };
        match (part, kind) {
            (Some(part), _) => {
                let start = ids.partition_point(|id| kind_of(id) < Some(part));
                let end = ids.partition_point(|id| kind_of(id) <= Some(part));
                ids.get(start..end).unwrap_or_default()
            }
            (None, Some(_)) => &[],
            (None, None) => ids,
        }
    }

    fn find_workloads(
        &self,
        request: &Request,
    ) -> Result<(Cow<'_, [WorkloadId]>, WorkloadFound), Unresolved> {
        let destination = &request.destination;
        if let Some(text) = &destination.workload {
            return match self.named(text) {
                [] => Err(Unresolved::UnknownWorkload(text.clone())),
                ids => Ok((ids.into(), WorkloadFound::Named)),
            };
        }
        let of_account = || self.at_account(destination.principal.as_deref()?);
        if let Some(address) = destination.address {
            // The strongest claim counts: running pods, what the configuration declares, and then
            // what anybody may write.
            let facts = self.addresses.of_pods(address);
            if let Some((ids, found)) = facts.or_else(|| self.addresses.of_declared(address)) {
                return Ok((ids.into(), found));
            }
            if let Some((ids, found)) = self.claimed(address) {
                // The proxy's own certificate is no claim: where it tells of others, it is they.
                let Some(of_account) = of_account() else {
                    return Ok((ids.into(), found));
                };
                let both = ids.iter().copied().filter(|id| of_account.contains(id));
                let both: Vec<WorkloadId> = both.collect();
                return Ok(if both.is_empty() {
                    (of_account.into(), WorkloadFound::ServiceAccount)
                } else {
                    (both.into(), found)
                });
            }
        }
        if let Some(ids) = of_account() {
            return Ok((ids.into(), WorkloadFound::ServiceAccount));
        }
        let text = self
            .default_workload
            .as_ref()
            .ok_or(Unresolved::NoWorkload)?;
        match self.named(text) {
            [] => Err(Unresolved::UnknownDefault(text.clone())),
            ids => Ok((ids.into(), WorkloadFound::Default)),
        }
    }

    /// Workloads that an EndpointSlice, else a WorkloadEntry, has at `address`. Neither is asked about
    /// the address of a Service, or of a node on which pods share it: whoever may write one in his own
    /// namespace could take what comes to another's.
    fn claimed(&self, address: IpAddr) -> Option<(&[WorkloadId], WorkloadFound)> {
        if self.services.has_cluster_address(address) || self.addresses.is_of_node(address) {
            return None;
        }
        let endpoints = self.endpoints.at(address);
        endpoints.or_else(|| self.addresses.of_entries(address))
    }

    /// Running workloads of the service account in `spiffe://td/ns/X/sa/Y`, td being the mesh's own.
    fn at_account(&self, principal: &str) -> Option<&[WorkloadId]> {
        let (trust_domain, path) = principal.strip_prefix("spiffe://")?.split_once('/')?;
        let (namespace, account) = path.strip_prefix("ns/")?.split_once("/sa/")?;
        let plain = !namespace.contains('/') && !account.contains('/');
        if !plain || !self.mesh.is_own_trust_domain(trust_domain) {
            return None;
        }
        let ids = self
            .by_service_account
            .get(super::key(namespace, account).as_ref())?;
        Some(ids.as_slice())
    }

    /// The services that a waypoint may be serving; none where nothing names one, as for traffic
    /// addressed to a workload. A name that leads nowhere is an error: passing over the policies
    /// attached to a service we do not know would open what they close.
    fn find_services(
        &self,
        request: &Request,
        waypoint: WorkloadId,
    ) -> Result<(Vec<ServiceId>, Option<ServiceFound>), Unresolved> {
        let destination = &request.destination;
        if let Some(text) = &destination.service {
            return match self.services.named(text) {
                ids if ids.is_empty() => Err(Unresolved::UnknownService(text.clone())),
                ids => Ok((ids, Some(ServiceFound::Named))),
            };
        }
        let by_address = destination
            .address
            .map_or_else(Vec::new, |address| self.services.at(address));
        if !by_address.is_empty() {
            return Ok((by_address, Some(ServiceFound::ClusterIp)));
        }
        let Some(http) = &request.http else {
            return Ok((Vec::new(), None));
        };
        let namespace = self
            .workload(waypoint)
            .map_or("", |workload| workload.namespace.as_str());
        match self.services.by_host(&http.host, namespace) {
            ByHost::Known(ids) => Ok((ids, Some(ServiceFound::Host))),
            ByHost::Unknown => Err(Unresolved::UnknownService(http.host.clone())),
            ByHost::None => Ok((Vec::new(), None)),
        }
    }
}
