//! The service that a waypoint serves: by name, by cluster address, by host.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::{ServiceId, canonical, key};
use crate::order::Order;
use crate::parted::{Parted, Slots};
use crate::resource::Resource;

/// Suffix of cluster-local service names.
const CLUSTER_SUFFIX: &str = ".svc.cluster.local";

/// Which registry a service stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKind {
    /// A core Service.
    Service,
    /// A networking.istio.io ServiceEntry.
    ServiceEntry,
}

impl ServiceKind {
    /// Lower-case word for `kind/namespace/name`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::ServiceEntry => "serviceentry",
        }
    }
}

/// A service by kind and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceRef<'a> {
    /// Service or ServiceEntry.
    pub kind: ServiceKind,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its object name.
    pub name: &'a str,
}

impl fmt::Display for ServiceRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// How the service was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceFound {
    /// `portcullis.service` names it.
    Named,
    /// The destination's address is one of its cluster addresses.
    ClusterIp,
    /// The request's host is one of its names.
    Host,
}

impl fmt::Display for ServiceFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named => "named by `portcullis.service`",
            Self::ClusterIp => "by its cluster address",
            Self::Host => "by the request's host",
        })
    }
}

/// What the host of a request says about the service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ByHost {
    /// One of these.
    Known(Vec<ServiceId>),
    /// A cluster-local name of no service we know.
    Unknown,
    /// No name of a service.
    None,
}

/// Services and ServiceEntries, indexed.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    /// Every one is a Service or a ServiceEntry.
    all: Slots<(Order, Arc<Resource>)>,
    by_name: Parted<Arc<str>, Arc<Vec<ServiceId>>>,
    by_address: Parted<IpAddr, Arc<Vec<ServiceId>>>,
    /// Lower-case hosts of ServiceEntries; a wildcard is kept with its `*.`.
    by_host: Parted<Box<str>, Arc<Vec<ServiceId>>>,
}

impl Services {
    pub(super) fn insert(&mut self, order: Order, resource: &Arc<Resource>) -> Option<ServiceId> {
        let id = ServiceId(self.all.add((order, Arc::clone(resource)))?);
        let all = &self.all;
        let place = |id: ServiceId| all.get(id.0).map(|(order, _)| order);
        let before = |other: ServiceId| place(other) < place(id);
        self.by_name.put(name_of(resource)?, id, before);
        for address in addresses(resource) {
            self.by_address.put(address, id, before);
        }
        for host in hosts(resource) {
            self.by_host.put(host, id, before);
        }
        Some(id)
    }

    pub(super) fn remove(&mut self, id: ServiceId) -> Option<Arc<Resource>> {
        let (_, resource) = self.all.remove(id.0)?;
        self.by_name.take(name_of(&resource)?.as_ref(), id);
        for address in addresses(&resource) {
            self.by_address.take(&address, id);
        }
        for host in hosts(&resource) {
            self.by_host.take(host.as_ref(), id);
        }
        Some(resource)
    }

    pub(super) fn resource(&self, id: ServiceId) -> Option<&Arc<Resource>> {
        self.all.get(id.0).map(|(_, resource)| resource)
    }

    pub(super) fn name(&self, id: ServiceId) -> Option<ServiceRef<'_>> {
        let (kind, meta) = match self.resource(id)?.as_ref() {
            Resource::Service(service) => (ServiceKind::Service, &service.meta),
            Resource::ServiceEntry(entry) => (ServiceKind::ServiceEntry, &entry.meta),
            _ => return None,
        };
        Some(ServiceRef {
            kind,
            namespace: &meta.namespace,
            name: &meta.name,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ServiceId, ServiceRef<'_>)> {
        let ids = self.all.iter().map(|(id, _)| ServiceId(id));
        ids.filter_map(|id| Some((id, self.name(id)?)))
    }

    fn named_all(&self, name: &str) -> impl Iterator<Item = &Resource> {
        let ids = self.by_name.list(name).iter();
        ids.filter_map(|id| self.resource(*id).map(AsRef::as_ref))
    }

    /// Selector of a core Service.
    pub(super) fn selector(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<&BTreeMap<String, String>> {
        let name = key(namespace, name);
        let mut named = self.named_all(&name);
        named.find_map(|resource| match resource {
            Resource::Service(service) => Some(&service.selector),
            _ => None,
        })
    }

    /// True for a service that is there and has no address of its own.
    pub(super) fn lacks_address(&self, kind: ServiceKind, namespace: &str, name: &str) -> bool {
        let name = key(namespace, name);
        let mut named = self.named_all(&name);
        named.any(|resource| match resource {
            Resource::Service(service) => {
                kind == ServiceKind::Service && service.cluster_ips.is_empty()
            }
            Resource::ServiceEntry(entry) => {
                kind == ServiceKind::ServiceEntry && entry.addresses.is_empty()
            }
            _ => false,
        })
    }

    /// `namespace/name` of either kind, or `service/namespace/name`, `serviceentry/namespace/name`.
    pub(super) fn named(&self, text: &str) -> Vec<ServiceId> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) if name.contains('/') => (Some(kind), name),
            _ => (None, text),
        };
        let mut ids = self.by_name.list(name).to_vec();
        if let Some(kind) = kind {
            ids.retain(|id| {
                self.name(*id)
                    .is_some_and(|service| service.kind.as_str().eq_ignore_ascii_case(kind))
            });
        }
        ids
    }

    /// Services whose cluster address it is, else ServiceEntries that say so: the cluster gave the former.
    pub(super) fn at(&self, address: IpAddr) -> Vec<ServiceId> {
        self.of_cluster_first(self.by_address.list(&canonical(address)).to_vec())
    }

    /// The address is the cluster address of a Service.
    pub(super) fn has_cluster_address(&self, address: IpAddr) -> bool {
        let ids = self.by_address.list(&canonical(address));
        ids.iter().any(|id| self.is_of_cluster(*id))
    }

    fn is_of_cluster(&self, id: ServiceId) -> bool {
        self.name(id)
            .is_some_and(|service| service.kind == ServiceKind::Service)
    }

    /// Without the ServiceEntries, where a Service is among them: whoever may write one anywhere cannot
    /// take the place of another namespace's Service.
    fn of_cluster_first(&self, mut ids: Vec<ServiceId>) -> Vec<ServiceId> {
        if ids.iter().any(|id| self.is_of_cluster(*id)) {
            ids.retain(|id| self.is_of_cluster(*id));
        }
        ids
    }

    /// Looks a request's host up. `namespace` is the waypoint's: a bare `svc` is taken there.
    pub(super) fn by_host(&self, host: &str, namespace: &str) -> ByHost {
        let host = without_port(host).to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        if host.is_empty() {
            return ByHost::None;
        }
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return known(self.at(address));
        }
        let mut ids = self.by_host.list(host).to_vec();
        let qualified = host
            .strip_suffix(CLUSTER_SUFFIX)
            .or_else(|| host.strip_suffix(".svc"));
        let local = qualified.unwrap_or(host);
        let name = match local.split_once('.') {
            Some((name, namespace)) => key(namespace, name),
            None if qualified.is_none() => key(namespace, local),
            None => {
                return if ids.is_empty() {
                    ByHost::Unknown
                } else {
                    ByHost::Known(ids)
                };
            }
        };
        ids.extend(
            self.by_name
                .list(name.as_ref())
                .iter()
                .copied()
                .filter(|id| self.is_of_cluster(*id)),
        );
        let mut ids = self.of_cluster_first(ids);
        if ids.is_empty() {
            ids = self.by_wildcard(host);
        }
        match known(ids) {
            ByHost::None if qualified.is_some() => ByHost::Unknown,
            found => found,
        }
    }

    /// The longest wildcard host that covers `host`.
    fn by_wildcard(&self, host: &str) -> Vec<ServiceId> {
        let suffixes = host
            .match_indices('.')
            .filter_map(|(dot, _)| host.get(dot..));
        suffixes
            .map(|suffix| self.by_host.list(format!("*{suffix}").as_str()))
            .find(|ids| !ids.is_empty())
            .unwrap_or_default()
            .to_vec()
    }
}

fn name_of(resource: &Resource) -> Option<Arc<str>> {
    let meta = match resource {
        Resource::Service(service) => &service.meta,
        Resource::ServiceEntry(entry) => &entry.meta,
        _ => return None,
    };
    Some(key(&meta.namespace, &meta.name))
}

fn addresses(resource: &Resource) -> impl Iterator<Item = IpAddr> {
    let addresses = match resource {
        Resource::Service(service) => service.cluster_ips.as_slice(),
        Resource::ServiceEntry(entry) => entry.addresses.as_slice(),
        _ => &[],
    };
    addresses.iter().map(|address| canonical(*address))
}

fn hosts(resource: &Resource) -> impl Iterator<Item = Box<str>> {
    let hosts = match resource {
        Resource::ServiceEntry(entry) => entry.hosts.as_slice(),
        _ => &[],
    };
    hosts
        .iter()
        .map(|host| host.to_ascii_lowercase().into_boxed_str())
}

fn known(ids: Vec<ServiceId>) -> ByHost {
    if ids.is_empty() {
        ByHost::None
    } else {
        ByHost::Known(ids)
    }
}

/// A host without its port; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (name.ends_with(']') || !name.contains(':')) =>
        {
            name
        }
        _ => host,
    }
}
