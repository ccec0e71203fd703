//! PeerAuthentication: does this port of this workload demand a peer identity (policy.md 1.11)?
//!
//! Facts from istio:pilot/pkg/model/authentication.go, pilot/pkg/security/authn/policy_applier.go and,
//! for ztunnel, pilot/pkg/serviceregistry/ambient/authorization.go at 86c9f01f.

mod ambient;
mod diagnose;

use std::cmp::Ordering;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::diagnostic::Location;
use crate::request::Target;
use crate::resource::{MtlsMode, PeerAuthentication, Resource, Workload};

/// Who demands, or waives, a peer identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// No PeerAuthentication says anything: PERMISSIVE.
    Default,
    /// A PeerAuthentication.
    Policy {
        /// `namespace/name`.
        policy: String,
        /// `spec.mtls.mode` or `spec.portLevelMtls.8080.mode`.
        field: String,
        /// Where its document starts.
        at: Location,
    },
    /// Gateways take no notice of PeerAuthentication: their listeners have TLS settings of their own.
    Gateway,
    /// A waypoint's own listener takes only HBONE, which is mutual TLS.
    WaypointListener,
}

/// The mode in force on one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Never [`MtlsMode::Unset`].
    pub mode: MtlsMode,
    /// Where it comes from.
    pub set_by: SetBy,
}

impl Effective {
    /// True when a peer without an identity is refused.
    #[must_use]
    pub fn requires_identity(&self) -> bool {
        self.mode == MtlsMode::Strict
    }
}

/// The PeerAuthentications of a set, oldest first within each namespace.
#[derive(Clone, Debug, Default)]
pub struct PeerAuthentications {
    root_namespace: String,
    /// Every one is a [`Resource::PeerAuthentication`].
    by_namespace: FxHashMap<String, Vec<Arc<Resource>>>,
}

impl PeerAuthentications {
    /// Gathers and sorts the PeerAuthentications of `resources`.
    #[must_use]
    pub fn build(resources: &[Arc<Resource>], root_namespace: &str) -> Self {
        let mut by_namespace: FxHashMap<String, Vec<Arc<Resource>>> = FxHashMap::default();
        for resource in resources {
            if let Some(policy) = policy_of(resource) {
                let of_namespace = by_namespace
                    .entry(policy.meta.namespace.clone())
                    .or_default();
                of_namespace.push(Arc::clone(resource));
            }
        }
        for policies in by_namespace.values_mut() {
            policies.sort_by(|a, b| oldest_first(policy_of(a), policy_of(b)));
        }
        Self {
            root_namespace: root_namespace.to_owned(),
            by_namespace,
        }
    }

    /// True without any PeerAuthentication.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }

    /// Every PeerAuthentication, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &PeerAuthentication> {
        self.by_namespace
            .values()
            .flatten()
            .filter_map(|r| policy_of(r))
    }

    /// The PeerAuthentications that are chosen for `workload`, one at each level at most; with each, whether something
    /// of it comes to bear there rather than the mode of a narrower one.
    #[must_use]
    pub fn chosen(&self, workload: &Workload, target: Target) -> Vec<(&PeerAuthentication, bool)> {
        let levels = match target {
            Target::Gateway | Target::Waypoint => return Vec::new(),
            Target::Sidecar => self.levels(workload),
            Target::Ztunnel => self.ambient_levels(workload),
        };
        let mut overridden = false;
        let mut chosen = Vec::new();
        for policy in [levels.workload, levels.namespace, levels.mesh] {
            let Some(policy) = policy else { continue };
            let silent = policy.mode == MtlsMode::Unset;
            chosen.push((policy, silent || !overridden));
            overridden |= !silent;
        }
        chosen
    }

    /// The mode in force on `port` of `workload`; the strictest mode of any port where the port is
    /// not known.
    #[must_use]
    pub fn effective(&self, workload: &Workload, port: Option<u16>, target: Target) -> Effective {
        match target {
            Target::Gateway => Effective {
                mode: MtlsMode::Permissive,
                set_by: SetBy::Gateway,
            },
            Target::Waypoint => Effective {
                mode: MtlsMode::Strict,
                set_by: SetBy::WaypointListener,
            },
            Target::Sidecar => self.for_sidecar(workload, port),
            Target::Ztunnel => self.for_ztunnel(workload, port),
        }
    }

    fn for_sidecar(&self, workload: &Workload, port: Option<u16>) -> Effective {
        let levels = self.levels(workload);
        let whole = levels.inherited();
        let Some(chosen) = levels.workload else {
            return whole;
        };
        // UNSET on a port inherits from the workload, not from the policy's own silence.
        let at_port = |port: u16, mode: MtlsMode| match mode {
            MtlsMode::Unset => whole.clone(),
            mode => Effective {
                mode,
                set_by: set_by_port(chosen, port),
            },
        };
        match port {
            Some(port) => match chosen.port_level.get(&port) {
                Some(mode) => at_port(port, *mode),
                None => whole,
            },
            None => chosen
                .port_level
                .iter()
                .map(|(port, mode)| at_port(*port, *mode))
                .find(|effective| effective.mode == MtlsMode::Strict)
                .unwrap_or(whole),
        }
    }

    /// The one policy in force at each level for a workload.
    fn levels(&self, workload: &Workload) -> Levels<'_> {
        let in_root = workload.namespace == self.root_namespace;
        let own = || self.of_namespace(&workload.namespace);
        Levels {
            mesh: self
                .of_namespace(&self.root_namespace)
                .find(|policy| is_namespace_wide(policy)),
            namespace: own().find(|policy| !in_root && is_namespace_wide(policy)),
            workload: own()
                .find(|policy| !in_root && !is_namespace_wide(policy) && selects(policy, workload)),
        }
    }

    /// Oldest first.
    fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &PeerAuthentication> {
        self.by_namespace
            .get(namespace)
            .into_iter()
            .flatten()
            .filter_map(|r| policy_of(r))
    }
}

/// The PeerAuthentication in force at each level.
#[derive(Clone, Copy, Debug)]
struct Levels<'a> {
    mesh: Option<&'a PeerAuthentication>,
    namespace: Option<&'a PeerAuthentication>,
    workload: Option<&'a PeerAuthentication>,
}

impl Levels<'_> {
    /// The narrowest level that says something, ports aside.
    fn inherited(&self) -> Effective {
        [self.workload, self.namespace, self.mesh]
            .into_iter()
            .flatten()
            .find(|policy| policy.mode != MtlsMode::Unset)
            .map_or(
                Effective {
                    mode: MtlsMode::Permissive,
                    set_by: SetBy::Default,
                },
                |policy| Effective {
                    mode: policy.mode,
                    set_by: set_by_mode(policy),
                },
            )
    }
}

fn policy_of(resource: &Arc<Resource>) -> Option<&PeerAuthentication> {
    match resource.as_ref() {
        Resource::PeerAuthentication(policy) => Some(policy),
        _ => None,
    }
}

/// By creation time, then name, then namespace. No time sorts as the oldest, as Go's zero time does.
pub(crate) fn oldest_first(
    a: Option<&PeerAuthentication>,
    b: Option<&PeerAuthentication>,
) -> Ordering {
    let order = |policy: &PeerAuthentication| {
        let meta = &policy.meta;
        (
            meta.creation_timestamp.clone(),
            meta.name.clone(),
            meta.namespace.clone(),
        )
    };
    a.map(order).cmp(&b.map(order))
}

/// No labels to match: the policy of its whole namespace, or of the mesh.
pub(crate) fn is_namespace_wide(policy: &PeerAuthentication) -> bool {
    policy
        .selector
        .as_ref()
        .is_none_or(|selector| selector.match_labels.is_empty())
}

fn selects(policy: &PeerAuthentication, workload: &Workload) -> bool {
    policy.selector.as_ref().is_none_or(|selector| {
        selector
            .match_labels
            .iter()
            .all(|(label, value)| workload.labels.get(label) == Some(value))
    })
}

fn set_by_mode(policy: &PeerAuthentication) -> SetBy {
    set_by(policy, "spec.mtls.mode".to_owned())
}

fn set_by_port(policy: &PeerAuthentication, port: u16) -> SetBy {
    set_by(policy, format!("spec.portLevelMtls.{port}.mode"))
}

fn set_by(policy: &PeerAuthentication, field: String) -> SetBy {
    SetBy::Policy {
        policy: format!("{}/{}", policy.meta.namespace, policy.meta.name),
        field,
        at: policy.meta.at.clone(),
    }
}

#[cfg(test)]
mod tests;
