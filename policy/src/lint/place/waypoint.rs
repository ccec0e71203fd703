//! Which waypoint serves a Service, as labels say.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::World;
use crate::diagnostic::{Diagnostic, code};
use crate::inventory::{GATEWAY_NAME_LABEL, ServiceKind, ServiceRef};
use crate::lint::about;
use crate::resource::{AuthorizationPolicy, Metadata, Resource, TargetRef, Workload};

/// Names the Gateway that is the waypoint of a Service or namespace; `none`: it has none.
const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Namespace of that Gateway, where it is another.
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";

/// The waypoint of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound<'a> {
    /// No waypoint serves it.
    None,
    /// The Gateway of this namespace and name.
    To(&'a str, &'a str),
    /// Its namespace may say, and is not in the set.
    Unknown,
}

/// What namespaces say of waypoints.
pub(crate) struct Waypoints<'a> {
    namespaces: FxHashMap<&'a str, &'a Metadata>,
}

impl<'a> Waypoints<'a> {
    pub(crate) fn of_namespaces(namespaces: FxHashMap<&'a str, &'a Metadata>) -> Self {
        Self { namespaces }
    }

    pub(crate) fn build(resources: &'a [Arc<Resource>]) -> Self {
        let namespaces = resources.iter().filter_map(|r| match r.as_ref() {
            Resource::Namespace(meta) => Some((meta.name.as_str(), meta)),
            _ => None,
        });
        Self::of_namespaces(namespaces.collect())
    }

    fn of<'m>(&self, service: &'m Metadata) -> Bound<'m>
    where
        'a: 'm,
    {
        let said = |meta: &'m Metadata| {
            let label = |name: &str| meta.labels.get(name).map(String::as_str);
            let namespace = label(USE_WAYPOINT_NAMESPACE);
            match label(USE_WAYPOINT)? {
                "none" | "" => Some(Bound::None),
                name => Some(Bound::To(namespace.unwrap_or(&service.namespace), name)),
            }
        };
        said(service).unwrap_or_else(|| match self.namespaces.get(service.namespace.as_str()) {
            Some(namespace) => said(namespace).unwrap_or(Bound::None),
            None => Bound::Unknown,
        })
    }

    /// True unless labels say that the waypoint `workload` does not serve the Service.
    pub(crate) fn may_serve(&self, workload: &Workload, service: &Metadata) -> bool {
        let gateway = workload.labels.get(GATEWAY_NAME_LABEL);
        match self.of(service) {
            Bound::Unknown => true,
            Bound::None => false,
            Bound::To(namespace, name) => {
                workload.namespace == namespace && gateway.is_some_and(|gateway| gateway == name)
            }
        }
    }

    /// The Services and ServiceEntries that a policy targets.
    pub(super) fn named<'w>(
        &self,
        world: &'w World<'a>,
        manifest: &AuthorizationPolicy,
    ) -> impl Iterator<Item = (&'a Metadata, ServiceRef<'a>)> + use<'a, 'w> {
        let namespace = manifest.meta.namespace.clone();
        let targets = manifest.target_refs.clone().into_iter();
        targets.filter_map(move |target| {
            let (meta, kind) = world.service(&namespace, &target)?;
            let service = ServiceRef {
                kind,
                namespace: &meta.namespace,
                name: &meta.name,
            };
            Some((meta, service))
        })
    }
}

impl<'a> World<'a> {
    fn service(&self, namespace: &str, target: &TargetRef) -> Option<(&'a Metadata, ServiceKind)> {
        match (target.group.as_str(), target.kind.as_str()) {
            ("" | "core", "Service") => {
                let mut of = self.services.get(namespace)?.iter();
                let service = of.find(|service| service.meta.name == target.name)?;
                Some((&service.meta, ServiceKind::Service))
            }
            ("networking.istio.io", "ServiceEntry") => {
                let mut of = self.entries.get(namespace)?.iter();
                let entry = of.find(|entry| entry.meta.name == target.name)?;
                Some((&entry.meta, ServiceKind::ServiceEntry))
            }
            _ => None,
        }
    }
}

/// Reports targets that no waypoint serves, so that nothing enforces what is attached to them.
pub(crate) fn check(resources: &[Arc<Resource>], found: &mut Vec<Diagnostic>) {
    let mut services: FxHashMap<(&str, &str, &str), &Metadata> = FxHashMap::default();
    let mut gateways: FxHashSet<(&str, &str)> = FxHashSet::default();
    let mut policies: Vec<(&str, &Metadata, &[TargetRef])> = Vec::new();
    for resource in resources {
        match resource.as_ref() {
            Resource::Service(s) => {
                services.insert(("Service", &s.meta.namespace, &s.meta.name), &s.meta);
            }
            Resource::ServiceEntry(s) => {
                services.insert(("ServiceEntry", &s.meta.namespace, &s.meta.name), &s.meta);
            }
            Resource::Gateway(g) => {
                gateways.insert((&g.meta.namespace, &g.meta.name));
            }
            Resource::AuthorizationPolicy(p) => {
                policies.push(("AuthorizationPolicy", &p.meta, &p.target_refs));
            }
            Resource::RequestAuthentication(p) => {
                policies.push(("RequestAuthentication", &p.meta, &p.target_refs));
            }
            Resource::CedarPolicy(p) => policies.push(("CedarPolicy", &p.meta, &p.target_refs)),
            _ => {}
        }
    }
    let waypoints = Waypoints::build(resources);
    for (kind, meta, targets) in policies {
        for (index, target) in targets.iter().enumerate() {
            let service = (
                target.kind.as_str(),
                meta.namespace.as_str(),
                target.name.as_str(),
            );
            let Some(service) = services.get(&service) else {
                continue;
            };
            let of = format!("{} `{}/{}`", target.kind, service.namespace, service.name);
            let message = match waypoints.of(service) {
                Bound::Unknown => continue,
                Bound::None => {
                    format!("no waypoint serves {of}, so nothing enforces this policy there")
                }
                Bound::To(namespace, name)
                    if !gateways.is_empty() && !gateways.contains(&(namespace, name)) =>
                {
                    format!(
                        "the waypoint of {of}, Gateway `{namespace}/{name}`, is not in this set: nothing enforces this policy there"
                    )
                }
                Bound::To(..) => continue,
            };
            found.push(about(
                &code::NO_WAYPOINT,
                &target.at,
                (kind, meta),
                format!("spec.targetRefs[{index}]"),
                message,
                "label the Service, or its namespace, `istio.io/use-waypoint` with the name of a waypoint; \
                 at a sidecar use a selector instead",
            ));
        }
    }
}
