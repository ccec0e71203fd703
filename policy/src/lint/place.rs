//! What policies mean at the workloads that they select: which ports are there and what they speak, who enforces, and
//! whether tokens are verified.
//!
//! ```text
//! policies, workloads, Services, namespaces -> rules that do there what their words do not say
//! ```
//!
//! Nothing is guessed: where a set does not say what a port speaks, or who stands before a workload, nothing is said.

mod ports;
mod protocol;
mod tokens;
pub(crate) mod waypoint;

use std::cell::OnceCell;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::attachment::EnforcementPoint;
use crate::diagnostic::Diagnostic;
use crate::inventory::{Inventory, ServiceRef};
use crate::policy_set::{Policy, PolicySet};
use crate::request::Target;
use crate::resource::{
    AuthorizationPolicy, Metadata, PeerAuthentication, Resource, Service, ServiceEntry, Workload,
};
use ports::Known;
use waypoint::Waypoints;

/// Label that puts a namespace or workload into the ambient mesh, that is behind ztunnel.
const DATAPLANE_MODE_LABEL: &str = "istio.io/dataplane-mode";

/// What there is to say of `policies`, which `set` holds, and of the PeerAuthentications among `resources`.
pub(crate) fn check<'a>(
    policies: impl Iterator<Item = &'a Arc<Policy>>,
    set: &'a PolicySet,
    inventory: &'a Inventory,
    resources: &'a [Arc<Resource>],
) -> Vec<Diagnostic> {
    let world = World::build(set, inventory, resources, set.root_namespace());
    let mut found = Vec::new();
    for policy in policies {
        let Some(manifest) = policy.manifest() else {
            continue;
        };
        let places = world.places(policy, manifest);
        protocol::check(policy, manifest, &places, &mut found);
        tokens::check(manifest, &places, &mut found);
        ports::check(manifest, &places, &mut found);
    }
    for resource in resources {
        if let Resource::PeerAuthentication(policy) = resource.as_ref() {
            ports::check_peer_authentication(policy, &world.selected(policy), &mut found);
        }
    }
    found
}

/// What stands around the policies.
struct World<'a> {
    set: &'a PolicySet,
    root_namespace: &'a str,
    waypoints: Waypoints<'a>,
    /// Services by namespace.
    services: FxHashMap<&'a str, Vec<&'a Service>>,
    entries: FxHashMap<&'a str, Vec<&'a ServiceEntry>>,
    spots: Vec<Spot<'a>>,
    /// Places in `spots`, by namespace.
    by_namespace: FxHashMap<&'a str, Vec<usize>>,
    /// Places in `spots` of gateways and waypoints.
    proxies: Vec<usize>,
}

/// A workload and what stands before it.
struct Spot<'a> {
    workload: &'a Workload,
    target: Target,
    /// Behind ztunnel, without a sidecar.
    ambient: bool,
    known: OnceCell<Known<'a>>,
}

/// Where a policy is enforced.
#[derive(Clone, Copy)]
struct Place<'w, 'a> {
    spot: &'w Spot<'a>,
    service: Option<ServiceRef<'a>>,
    world: &'w World<'a>,
}

impl<'a> Place<'_, 'a> {
    /// What is known of the workload's ports.
    fn ports(&self) -> &Known<'a> {
        let (spot, world) = (self.spot, self.world);
        spot.known.get_or_init(|| Known::of(spot.workload, world))
    }

    fn name(&self) -> String {
        let workload = self.spot.workload;
        let kind = workload.kind.as_str();
        format!("{kind}/{}/{}", workload.namespace, workload.name)
    }
}

impl<'a> World<'a> {
    fn build(
        set: &'a PolicySet,
        inventory: &'a Inventory,
        resources: &'a [Arc<Resource>],
        root_namespace: &'a str,
    ) -> Self {
        let mut namespaces: FxHashMap<&str, &Metadata> = FxHashMap::default();
        let mut services: FxHashMap<&str, Vec<&Service>> = FxHashMap::default();
        let mut entries: FxHashMap<&str, Vec<&ServiceEntry>> = FxHashMap::default();
        for resource in resources {
            match resource.as_ref() {
                Resource::Namespace(meta) => {
                    namespaces.insert(&meta.name, meta);
                }
                Resource::Service(service) => {
                    let of = services.entry(&service.meta.namespace).or_default();
                    of.push(service);
                }
                Resource::ServiceEntry(entry) => {
                    let of = entries.entry(&entry.meta.namespace).or_default();
                    of.push(entry);
                }
                _ => {}
            }
        }
        let mut workloads: Vec<_> = inventory.workloads().collect();
        workloads.retain(|(_, workload)| workload.running);
        // The first of several is named: the same one in whatever order they came.
        workloads.sort_by_key(|(_, w)| (&w.namespace, &w.name, w.kind));
        let mut spots = Vec::with_capacity(workloads.len());
        let mut by_namespace: FxHashMap<&str, Vec<usize>> = FxHashMap::default();
        let mut proxies = Vec::new();
        for (id, workload) in workloads {
            let (mut target, _) = inventory.auto_target(id);
            if target == Target::Sidecar && looks_like_a_gateway(workload) {
                target = Target::Gateway;
            }
            if target != Target::Sidecar {
                proxies.push(spots.len());
            }
            let of = by_namespace.entry(&workload.namespace).or_default();
            of.push(spots.len());
            let namespace = namespaces.get(workload.namespace.as_str()).copied();
            spots.push(Spot {
                workload,
                target,
                ambient: target == Target::Sidecar && is_ambient(workload, namespace),
                known: OnceCell::new(),
            });
        }
        Self {
            set,
            root_namespace,
            waypoints: Waypoints::of_namespaces(namespaces),
            services,
            entries,
            spots,
            by_namespace,
            proxies,
        }
    }

    fn point(&self, spot: &Spot<'a>, service: Option<ServiceRef<'a>>) -> EnforcementPoint<'a> {
        EnforcementPoint {
            workload: spot.workload,
            target: spot.target,
            service,
            root_namespace: self.root_namespace,
        }
    }

    fn spots_of(&self, namespace: &str) -> Vec<&Spot<'a>> {
        if namespace == self.root_namespace {
            return self.spots.iter().collect();
        }
        let of = self.by_namespace.get(namespace).into_iter().flatten();
        of.filter_map(|index| self.spots.get(*index)).collect()
    }

    /// Where a policy is enforced.
    fn places(&self, policy: &Policy, manifest: &AuthorizationPolicy) -> Vec<Place<'_, 'a>> {
        let place = |spot, service| Place {
            spot,
            service,
            world: self,
        };
        let attached = |place: &Place<'_, 'a>| {
            let point = self.point(place.spot, place.service);
            policy.attaches(&point)
        };
        let namespace = manifest.meta.namespace.as_str();
        if manifest.target_refs.is_empty() {
            let spots = self.spots_of(namespace).into_iter();
            return spots
                .map(|spot| place(spot, None))
                .filter(attached)
                .collect();
        }
        let mut places = Vec::new();
        let proxies = self.proxies.iter().filter_map(|i| self.spots.get(*i));
        for spot in proxies {
            let named = self.waypoints.named(self, manifest);
            let served = named.filter(|(meta, _)| {
                spot.target == Target::Waypoint && self.waypoints.may_serve(spot.workload, meta)
            });
            let served = served.map(|(_, service)| place(spot, Some(service)));
            places.extend(
                std::iter::once(place(spot, None))
                    .chain(served)
                    .filter(attached),
            );
        }
        places
    }

    /// The workloads that a PeerAuthentication with a selector selects.
    fn selected(&self, policy: &PeerAuthentication) -> Vec<Place<'_, 'a>> {
        let Some(selector) = &policy.selector else {
            return Vec::new();
        };
        let namespace = policy.meta.namespace.as_str();
        if selector.match_labels.is_empty() || namespace == self.root_namespace {
            return Vec::new();
        }
        let spots = self.spots_of(namespace).into_iter();
        let selected = spots.filter(|spot| {
            let mut labels = selector.match_labels.iter();
            labels.all(|(key, value)| spot.workload.labels.get(key) == Some(value))
        });
        let place = |spot| Place {
            spot,
            service: None,
            world: self,
        };
        selected.map(place).collect()
    }
}

/// Behind ztunnel: in the ambient mesh by its own label or its namespace's, and without a sidecar.
fn is_ambient(workload: &Workload, namespace: Option<&Metadata>) -> bool {
    let own = |name: &str| workload.labels.get(name).map(String::as_str);
    let of_namespace = |name: &str| namespace?.labels.get(name).map(String::as_str);
    let mode = own(DATAPLANE_MODE_LABEL).or_else(|| of_namespace(DATAPLANE_MODE_LABEL));
    let injected = match own("sidecar.istio.io/inject") {
        Some(word) => word == "true",
        None => {
            of_namespace("istio-injection") == Some("enabled")
                || (of_namespace("istio-injection").is_none()
                    && own("istio.io/rev")
                        .or_else(|| of_namespace("istio.io/rev"))
                        .is_some_and(|rev| !rev.is_empty()))
        }
    };
    mode == Some("ambient") && !injected
}

/// What Istio's charts say of a gateway, where no Gateway of the set selects it.
fn looks_like_a_gateway(workload: &Workload) -> bool {
    ["istio", "app", "app.kubernetes.io/name"]
        .iter()
        .any(|label| {
            let value = workload.labels.get(*label);
            value.is_some_and(|value| value.contains("gateway"))
        })
}

/// `a`, `b` and 3 more.
fn listed<T: std::fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    const NAMED: usize = 3;
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    let first = names.get(..NAMED).unwrap_or(&names).join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
