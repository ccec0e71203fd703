//! What `auto` means: sidecar, gateway or waypoint, from labels and gateway documents.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::key;
use crate::order::Order;
use crate::request::Target;
use crate::resource::{Resource, Workload};

/// Label that makes a pod an instance of a Gateway API Gateway, whose name it gives.
pub(crate) const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
const GATEWAY_CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";
const MANAGED_LABEL: &str = "gateway.istio.io/managed";
/// Every chart of a gateway gives its pods this label (`istio: ingressgateway`).
const ISTIO_LABEL: &str = "istio";

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
            Self::Stated => "as stated with the request",
            Self::WaypointClass => "the workload belongs to a Gateway of the waypoint class",
            Self::GatewayLabel => "the workload belongs to a Gateway",
            Self::IstioGateway => "a networking.istio.io Gateway selects the workload",
            Self::Workload => "the workload belongs to no gateway",
        })
    }
}

impl TargetFound {
    /// The target that it means.
    pub(super) fn target(self) -> Target {
        match self {
            Self::WaypointClass => Target::Waypoint,
            Self::GatewayLabel | Self::IstioGateway => Target::Gateway,
            Self::Workload | Self::Stated => Target::Sidecar,
        }
    }
}

/// The gateway documents of a set.
#[derive(Clone, Debug, Default)]
pub(super) struct Gateways {
    documents: BTreeMap<Order, Arc<Resource>>,
    /// Class by `namespace/name` of the Gateway.
    classes: FxHashMap<Arc<str>, String>,
    /// Controller by class name.
    controllers: FxHashMap<String, String>,
    /// Selectors of networking.istio.io Gateways and their namespaces, under one of their labels.
    selectors: FxHashMap<(String, String), Vec<(String, Labels)>>,
}

type Labels = BTreeMap<String, String>;

impl Gateways {
    pub(super) fn insert(&mut self, order: Order, resource: &Arc<Resource>) {
        self.documents.insert(order, Arc::clone(resource));
    }

    pub(super) fn remove(&mut self, order: &Order) {
        self.documents.remove(order);
    }

    /// Makes the indexes anew: gateways are few, and seldom change.
    pub(super) fn settle(&mut self) {
        self.classes.clear();
        self.controllers.clear();
        self.selectors.clear();
        for resource in self.documents.values() {
            match resource.as_ref() {
                Resource::Gateway(gateway) => {
                    let name = key(&gateway.meta.namespace, &gateway.meta.name);
                    self.classes.insert(name, gateway.class.clone());
                }
                Resource::GatewayClass(class) => {
                    let (name, controller) = (class.meta.name.clone(), class.controller.clone());
                    self.controllers.insert(name, controller);
                }
                Resource::IstioGateway(gateway) => {
                    // without a selector it means every gateway, and makes none
                    if let Some((label, value)) = gateway.selector.first_key_value() {
                        let pair = (label.clone(), value.clone());
                        let bucket = self.selectors.entry(pair);
                        let selector = gateway.selector.clone();
                        let namespace = gateway.meta.namespace.clone();
                        bucket.or_default().push((namespace, selector));
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn target(&self, workload: &Workload, root_namespace: &str) -> TargetFound {
        let Some(gateway) = workload.labels.get(GATEWAY_NAME_LABEL) else {
            return if self.selected(workload, root_namespace) {
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
            .map(String::as_str);
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
                .is_some_and(|controller| WAYPOINT_CONTROLLERS.contains(&controller.as_str()))
    }

    /// A Gateway makes no gateway of another namespace's sidecar, which it may select as well: only of
    /// what says of itself that it is one.
    fn selected(&self, workload: &Workload, root_namespace: &str) -> bool {
        if self.selectors.is_empty() {
            return false;
        }
        let says_so = workload.labels.contains_key(ISTIO_LABEL);
        let labels = workload.labels.iter();
        let mut pairs = labels.map(|(label, value)| (label.clone(), value.clone()));
        pairs.any(|pair| {
            let selectors = self.selectors.get(&pair).into_iter().flatten();
            let mut selectors = selectors.filter(|(namespace, _)| {
                says_so || *namespace == workload.namespace || namespace == root_namespace
            });
            selectors.any(|(_, selector)| {
                let mut labels = selector.iter();
                labels.all(|(k, v)| workload.labels.get(k) == Some(v))
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
