//! Attachment: which policies apply where (policy.md 1.1 and 1.8).
//!
//! Facts from istio:pilot/pkg/model/policyattachment.go, authorization.go and
//! pilot/pkg/serviceregistry/ambient at 86c9f01f. The rule hangs on the *label*
//! `gateway.networking.k8s.io/gateway-name`: a workload that carries it is met by targetRefs, any other
//! ignores every policy that has some. A waypoint never uses selectors, ztunnel never targetRefs.

mod index;

pub use index::{Attached, Index};

use std::collections::BTreeMap;

use crate::inventory::{GATEWAY_NAME_LABEL, ServiceKind, ServiceRef};
use crate::request::Target;
use crate::resource::{
    Action, AuthorizationPolicy, CedarPolicy, RequestAuthentication, Selector, TargetRef, Workload,
};

/// GatewayClass that a root-namespace policy names to reach every waypoint.
const WAYPOINT_CLASS: &str = "istio-waypoint";
const GATEWAY_API_GROUP: &str = "gateway.networking.k8s.io";
const ISTIO_NETWORKING_GROUP: &str = "networking.istio.io";

/// What a policy says about where it applies.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The policy's namespace.
    pub namespace: &'a str,
    /// Its selector; `None` and an empty one both select all of the namespace.
    pub selector: Option<&'a Selector>,
    /// Its targetRefs.
    pub target_refs: &'a [TargetRef],
}

impl<'a> From<&'a AuthorizationPolicy> for Scope<'a> {
    fn from(policy: &'a AuthorizationPolicy) -> Self {
        Self {
            namespace: &policy.meta.namespace,
            selector: policy.selector.as_ref(),
            target_refs: &policy.target_refs,
        }
    }
}

impl<'a> From<&'a RequestAuthentication> for Scope<'a> {
    fn from(policy: &'a RequestAuthentication) -> Self {
        Self {
            namespace: &policy.meta.namespace,
            selector: policy.selector.as_ref(),
            target_refs: &policy.target_refs,
        }
    }
}

impl<'a> From<&'a CedarPolicy> for Scope<'a> {
    fn from(policy: &'a CedarPolicy) -> Self {
        Self {
            namespace: &policy.meta.namespace,
            selector: policy.selector.as_ref(),
            target_refs: &policy.target_refs,
        }
    }
}

/// Where policies are enforced: one workload behind one target.
#[derive(Clone, Copy, Debug)]
pub struct EnforcementPoint<'a> {
    /// The workload; on a gateway or waypoint, the proxy itself.
    pub workload: &'a Workload,
    /// What enforces.
    pub target: Target,
    /// The service that a waypoint serves; ignored on every other target.
    pub service: Option<ServiceRef<'a>>,
    /// The mesh's root namespace.
    pub root_namespace: &'a str,
}

impl<'a> EnforcementPoint<'a> {
    /// Namespaces whose policies are looked at: root, the workload's, the waypoint's service's.
    pub fn namespaces(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let root = self.root_namespace;
        let own = self.workload.namespace.as_str();
        let service = self.waypoint_service().map(|service| service.namespace);
        let own = Some(own).filter(|own| *own != root);
        let service = service.filter(|service| *service != root && Some(*service) != own);
        std::iter::once(root).chain(own).chain(service)
    }

    fn waypoint_service(&self) -> Option<ServiceRef<'a>> {
        self.service.filter(|_| self.target == Target::Waypoint)
    }

    /// Name of the Gateway API Gateway that the workload is an instance of.
    fn gateway(&self) -> Option<&'a str> {
        self.workload
            .labels
            .get(GATEWAY_NAME_LABEL)
            .map(String::as_str)
    }

    /// Whether policies without targetRefs reach this point.
    fn uses_selectors(&self) -> bool {
        self.target != Target::Waypoint
    }

    /// Whether policies with targetRefs can reach this point.
    fn uses_target_refs(&self) -> bool {
        match self.target {
            Target::Ztunnel => false,
            Target::Waypoint => true,
            Target::Sidecar | Target::Gateway => self.gateway().is_some(),
        }
    }
}

/// True when a policy with `scope` applies at `point`.
#[must_use]
pub fn attaches(scope: &Scope<'_>, point: &EnforcementPoint<'_>) -> bool {
    if !point
        .namespaces()
        .any(|namespace| namespace == scope.namespace)
    {
        return false;
    }
    if scope.target_refs.is_empty() {
        return point.uses_selectors() && selects(scope.selector, &point.workload.labels);
    }
    point.uses_target_refs()
        && scope
            .target_refs
            .iter()
            .any(|target| refers_to(scope.namespace, target, point))
}

/// True when the target can enforce an action at all: ztunnel knows only ALLOW and DENY.
#[must_use]
pub fn enforces(target: Target, action: Action) -> bool {
    match action {
        Action::Allow | Action::Deny => true,
        Action::Audit | Action::Custom => target != Target::Ztunnel,
    }
}

/// Plain subset match; no selector and an empty one match everything.
fn selects(selector: Option<&Selector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_none_or(|selector| {
        selector
            .match_labels
            .iter()
            .all(|(label, value)| labels.get(label) == Some(value))
    })
}

fn refers_to(policy_namespace: &str, target: &TargetRef, point: &EnforcementPoint<'_>) -> bool {
    let waypoint = point.target == Target::Waypoint;
    match Referent::of(target) {
        Some(Referent::Service(kind)) => point.waypoint_service().is_some_and(|service| {
            service.kind == kind
                && service.namespace == policy_namespace
                && service.name == target.name
        }),
        Some(Referent::GatewayClass) => {
            waypoint && policy_namespace == point.root_namespace && target.name == WAYPOINT_CLASS
        }
        Some(Referent::Gateway) => {
            let own = point.workload.namespace.as_str();
            policy_namespace == own
                && (target.namespace.is_empty() || target.namespace == own)
                && point.gateway() == Some(target.name.as_str())
        }
        None => false,
    }
}

/// What kind of object a targetRef names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Referent {
    Service(ServiceKind),
    Gateway,
    GatewayClass,
}

impl Referent {
    fn of(target: &TargetRef) -> Option<Self> {
        match (target.group.as_str(), target.kind.as_str()) {
            ("" | "core", "Service") => Some(Self::Service(ServiceKind::Service)),
            (ISTIO_NETWORKING_GROUP, "ServiceEntry") => {
                Some(Self::Service(ServiceKind::ServiceEntry))
            }
            (GATEWAY_API_GROUP, "Gateway") => Some(Self::Gateway),
            (GATEWAY_API_GROUP, "GatewayClass") => Some(Self::GatewayClass),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
