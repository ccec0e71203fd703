//! What `auto` means: sidecar, gateway or waypoint, from labels and gateway documents.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{WorkloadId, identified, key};
use crate::request::Target;
use crate::resource::{Resource, Workload};

/// Label that makes a pod an instance of a Gateway API Gateway, whose name it gives.
pub(crate) const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
const GATEWAY_CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";
const MANAGED_LABEL: &str = "gateway.istio.io/managed";

/// Classes whose pods Istio starts as waypoints; the east-west gateway is one in disguise
/// (istio:pilot/pkg/config/kube/gatewaycommon/classinfo.go).
const WAYPOINT_CLASSES: [&str; 3] = [
    "istio-waypoint",
    "istio-east-west",
    "istio-agentgateway-waypoint",
];
const WAYPOINT_CONTROLLERS: [&str; 3] = [
    "istio.io/mesh-controller",
    "istio.io/eastwest-controller",
    "istio.io/agentgateway-waypoint-controller",
];

/// Why a target was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetFound {
    /// The request, that is the proxy or its listener, said so.
    Stated,
    /// The workload belongs to a Gateway of the waypoint class.
    WaypointClass,
    /// The workload belongs to a Gateway of another or unknown class.
    GatewayLabel,
    /// A networking.istio.io Gateway selects the workload.
    IstioGateway,
    /// Nothing makes the workload a gateway.
    Workload,
}

impl fmt::Display for TargetFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stated => "stated by the proxy",
            Self::WaypointClass => "the workload belongs to a Gateway of the waypoint class",
            Self::GatewayLabel => "the workload belongs to a Gateway",
            Self::IstioGateway => "a networking.istio.io Gateway selects the workload",
            Self::Workload => "the workload belongs to no gateway",
        })
    }
}

/// The `auto` target of every workload, decided when the inventory is built.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    of: Vec<TargetFound>,
}

impl Targets {
    pub(super) fn build(workloads: &[Arc<Resource>], resources: &[Arc<Resource>]) -> Self {
        let gateways = Gateways::build(resources);
        let of = identified(workloads)
            .map(|(_, workload)| gateways.target(workload))
            .collect();
        Self { of }
    }

    pub(super) fn of(&self, id: WorkloadId) -> (Target, TargetFound) {
        let found = self
            .of
            .get(id.index())
            .copied()
            .unwrap_or(TargetFound::Workload);
        let target = match found {
            TargetFound::WaypointClass => Target::Waypoint,
            TargetFound::GatewayLabel | TargetFound::IstioGateway => Target::Gateway,
            TargetFound::Workload | TargetFound::Stated => Target::Sidecar,
        };
        (target, found)
    }
}

/// The gateway documents of a set.
#[derive(Default)]
struct Gateways<'a> {
    /// Class by `namespace/name` of the Gateway.
    classes: FxHashMap<Box<str>, &'a str>,
    /// Controller by class name.
    controllers: FxHashMap<&'a str, &'a str>,
    /// Selectors of networking.istio.io Gateways, under one of their labels.
    selectors: FxHashMap<(&'a str, &'a str), Vec<&'a BTreeMap<String, String>>>,
}

impl<'a> Gateways<'a> {
    fn build(resources: &'a [Arc<Resource>]) -> Self {
        let mut built = Self::default();
        for resource in resources {
            match resource.as_ref() {
                Resource::Gateway(gateway) => {
                    let name = key(&gateway.meta.namespace, &gateway.meta.name);
                    built.classes.insert(name, &gateway.class);
                }
                Resource::GatewayClass(class) => {
                    built
                        .controllers
                        .insert(&class.meta.name, &class.controller);
                }
                Resource::IstioGateway(gateway) => {
                    // without a selector it means every gateway, and makes none
                    if let Some((label, value)) = gateway.selector.first_key_value() {
                        let bucket = built.selectors.entry((label.as_str(), value.as_str()));
                        bucket.or_default().push(&gateway.selector);
                    }
                }
                _ => {}
            }
        }
        built
    }

    fn target(&self, workload: &Workload) -> TargetFound {
        let Some(gateway) = workload.labels.get(GATEWAY_NAME_LABEL) else {
            return if self.selected(workload) {
                TargetFound::IstioGateway
            } else {
                TargetFound::Workload
            };
        };
        let label = |name: &str| workload.labels.get(name).map(String::as_str);
        // The Gateway document is what the labels were copied from.
        let class = self
            .classes
            .get(&key(&workload.namespace, gateway))
            .copied();
        let waypoint = match class.or_else(|| label(GATEWAY_CLASS_LABEL)) {
            Some(class) => self.is_waypoint_class(class),
            None => label(MANAGED_LABEL).is_some_and(is_waypoint_controller_label),
        };
        if waypoint {
            TargetFound::WaypointClass
        } else {
            TargetFound::GatewayLabel
        }
    }

    fn is_waypoint_class(&self, class: &str) -> bool {
        WAYPOINT_CLASSES.contains(&class)
            || self
                .controllers
                .get(class)
                .is_some_and(|controller| WAYPOINT_CONTROLLERS.contains(controller))
    }

    fn selected(&self, workload: &Workload) -> bool {
        workload.labels.iter().any(|(label, value)| {
            self.selectors
                .get(&(label.as_str(), value.as_str()))
                .into_iter()
                .flatten()
                .any(|selector| {
                    selector
                        .iter()
                        .all(|(k, v)| workload.labels.get(k) == Some(v))
                })
        })
    }
}

/// The label is the controller's name with the slash made a hyphen.
fn is_waypoint_controller_label(label: &str) -> bool {
    WAYPOINT_CONTROLLERS
        .iter()
        .any(|controller| controller.replace('/', "-") == label)
}
