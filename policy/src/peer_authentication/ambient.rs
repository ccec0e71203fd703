//! PeerAuthentication as ztunnel gets it: converted by istiod into DENY policies.
//!
//! Two pieces of istiod decide apart from each other: which converted policies a workload *references*
//! (`convertedSelectorPeerAuthentications`), and what a converted policy *contains*, if it exists at
//! all (`convertPeerAuthentication`). ztunnel passes over a reference to a policy that does not exist,
//! so where the two disagree nothing is enforced. That is followed here, and reported by
//! [`PeerAuthentications::dangling`](super::PeerAuthentications::dangling).

use super::{
    Effective, Levels, MtlsMode, PeerAuthentication, PeerAuthentications, SetBy, Workload,
    is_namespace_wide, selects, set_by_mode, set_by_port,
};

/// What a workload references.
enum Referenced<'a> {
    /// Nothing: plaintext is accepted on every port.
    Nothing,
    /// The static policy: every port demands an identity.
    Strict,
    /// The converted form of this policy.
    Converted(&'a PeerAuthentication),
}

/// The content of a converted policy.
struct Converted {
    /// Every port but the exceptions demands an identity.
    strict_except: Option<Vec<u16>>,
    /// These do in any case.
    strict_ports: Vec<u16>,
}

impl PeerAuthentications {
    pub(super) fn for_ztunnel(&self, workload: &Workload, port: Option<u16>) -> Effective {
        let levels = self.ambient_levels(workload);
        let inherited = levels.inherited();
        let open = |set_by| Effective {
            mode: MtlsMode::Permissive,
            set_by,
        };
        match referenced(&levels) {
            Referenced::Nothing => open(inherited.set_by),
            Referenced::Strict => Effective {
                mode: MtlsMode::Strict,
                set_by: inherited.set_by,
            },
            Referenced::Converted(policy) => {
                let Some(converted) = self.convert(policy) else {
                    return open(set_by_mode(policy));
                };
                let strict = match port {
                    Some(port) => converted.demands_identity(port),
                    None => true,
                };
                let set_by = match port.filter(|port| policy.port_level.contains_key(port)) {
                    Some(port) => set_by_port(policy, port),
                    None if converted.strict_except.is_some() => inherited.set_by,
                    None => set_by_mode(policy),
                };
                let mode = if strict {
                    MtlsMode::Strict
                } else {
                    MtlsMode::Permissive
                };
                Effective { mode, set_by }
            }
        }
    }

    /// The PeerAuthentication whose converted form `workload` references although istiod makes none,
    /// so that ztunnel enforces nothing where a sidecar would demand an identity.
    #[must_use]
    pub fn dangling(&self, workload: &Workload) -> Option<SetBy> {
        match referenced(&self.ambient_levels(workload)) {
            Referenced::Converted(policy) if self.convert(policy).is_none() => {
                Some(set_by_mode(policy))
            }
            _ => None,
        }
    }

    /// Like [`PeerAuthentications::levels`], except that a root policy counts only without any
    /// selector, an empty one included, unless the workload itself lives there.
    pub(super) fn ambient_levels(&self, workload: &Workload) -> Levels<'_> {
        let in_root = workload.namespace == self.root_namespace;
        let own = || self.of_namespace(&workload.namespace);
        Levels {
            mesh: self
                .of_namespace(&self.root_namespace)
                .find(|policy| is_namespace_wide(policy) && (in_root || policy.selector.is_none())),
            namespace: own().find(|policy| !in_root && is_namespace_wide(policy)),
            workload: own()
                .find(|policy| !in_root && !is_namespace_wide(policy) && selects(policy, workload)),
        }
    }

    /// What istiod makes of a workload policy; `None` where it makes nothing.
    fn convert(&self, policy: &PeerAuthentication) -> Option<Converted> {
        let without_selector = |namespace: &str| {
            self.of_namespace(namespace)
                .find(|policy| policy.selector.is_none())
                .map(|p| p.mode)
        };
        let namespace = without_selector(&policy.meta.namespace);
        let root = without_selector(&self.root_namespace);
        let strict = |mode: Option<MtlsMode>| mode == Some(MtlsMode::Strict);
        let silent = |mode: Option<MtlsMode>| matches!(mode, None | Some(MtlsMode::Unset));

        // istiod leaves out a STRICT port that it takes for covered already. Its third alternative was
        // meant for UNSET workload policies, but an operator's precedence lets it hold for all.
        let covered = policy.mode == MtlsMode::Strict
            || (policy.mode == MtlsMode::Unset && strict(namespace))
            || (silent(namespace) && strict(root));
        // An UNSET namespace policy hides the root's STRICT from this question, and only from this one.
        let exceptions_matter = match policy.mode {
            MtlsMode::Strict => true,
            MtlsMode::Unset => strict(namespace) || (namespace.is_none() && strict(root)),
            MtlsMode::Permissive | MtlsMode::Disable => false,
        };
        let ports = |wanted: fn(MtlsMode) -> bool| -> Vec<u16> {
            let level = policy.port_level.iter();
            level
                .filter(|(_, mode)| wanted(**mode))
                .map(|(port, _)| *port)
                .collect()
        };
        let strict_ports = if covered {
            Vec::new()
        } else {
            ports(|mode| mode == MtlsMode::Strict)
        };
        let exceptions = if exceptions_matter {
            ports(|mode| matches!(mode, MtlsMode::Permissive | MtlsMode::Disable))
        } else {
            Vec::new()
        };
        if exceptions.is_empty() && strict_ports.is_empty() {
            return None;
        }
        Some(Converted {
            strict_except: (!exceptions.is_empty()).then_some(exceptions),
            strict_ports,
        })
    }
}

impl Converted {
    fn demands_identity(&self, port: u16) -> bool {
        self.strict_ports.contains(&port)
            || self
                .strict_except
                .as_ref()
                .is_some_and(|exceptions| !exceptions.contains(&port))
    }
}

fn referenced<'a>(levels: &Levels<'a>) -> Referenced<'a> {
    let strict = levels.inherited().mode == MtlsMode::Strict;
    let whole = if strict {
        Referenced::Strict
    } else {
        Referenced::Nothing
    };
    let Some(policy) = levels
        .workload
        .filter(|policy| !policy.port_level.is_empty())
    else {
        return whole;
    };
    let any = |wanted: &[MtlsMode]| policy.port_level.values().any(|mode| wanted.contains(mode));
    let exception = match (strict, policy.mode) {
        (true, MtlsMode::Strict) => any(&[MtlsMode::Permissive, MtlsMode::Disable]),
        // Under an inherited STRICT a lone DISABLE is not looked for.
        (true, _) => any(&[MtlsMode::Permissive]),
        (false, _) => any(&[MtlsMode::Strict]),
    };
    if exception {
        Referenced::Converted(policy)
    } else {
        whole
    }
}
