//! Rules about identities where clients may come without one.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{about, authorization_policies};
use crate::diagnostic::{Diagnostic, Location, Severity, code};
use crate::peer_authentication::{is_namespace_wide, oldest_first};
use crate::resource::fields;
use crate::resource::{Action, AuthorizationPolicy, MtlsMode, PeerAuthentication, Resource};

/// Reports policies on identities whose workloads also take plaintext.
pub(super) fn check(
    resources: &[Arc<Resource>],
    root_namespace: &str,
    found: &mut Vec<Diagnostic>,
) {
    let modes = Modes::build(resources, root_namespace);
    for policy in authorization_policies(resources) {
        // What a gateway asks of its clients is not PeerAuthentication's business.
        if !policy.target_refs.is_empty() {
            continue;
        }
        let mode = modes.of(policy);
        if mode == MtlsMode::Strict {
            continue;
        }
        let Some(identity) = identity(policy) else {
            continue;
        };
        // Where nothing is said of mTLS, a rule that errs to the closed side needs no word.
        if !identity.opens && !modes.any {
            continue;
        }
        let how = if mode == MtlsMode::Disable {
            "mTLS is disabled for these workloads, so no client has an identity"
        } else {
            "these workloads also take plaintext, whose clients have no identity"
        };
        let (so, hint) = if identity.opens {
            (
                "this rule does not stop them",
                "require mTLS: a PeerAuthentication with mode STRICT",
            )
        } else {
            (
                "this rule does not let them in",
                "if every client has a certificate, say so: a PeerAuthentication with mode STRICT",
            )
        };
        let mut diagnostic = about(
            &code::IDENTITY_WITHOUT_MTLS,
            &identity.at,
            ("AuthorizationPolicy", &policy.meta),
            identity.field,
            format!("{how}: {so}"),
            hint,
        );
        if (identity.opens && modes.any) || mode == MtlsMode::Disable {
            diagnostic.severity = Severity::Warning;
        }
        found.push(diagnostic);
    }
}

/// The first field about an identity; one that lets requests without identity pass comes before.
struct Identity {
    at: Location,
    field: String,
    opens: bool,
}

fn identity(policy: &AuthorizationPolicy) -> Option<Identity> {
    let mut first = None;
    for (r, rule) in policy.rules.iter().flatten().enumerate() {
        let Some(rule) = &rule.value else { continue };
        for (f, from) in rule.from.iter().enumerate() {
            let Some(source) = &from.value else { continue };
            for field in fields::of_source(source) {
                let Some(value) = field.values.first() else {
                    continue;
                };
                if !field.identity || field.http {
                    continue;
                }
                let opens = match policy.action {
                    Action::Allow => field.is_negated(),
                    // "All but these" also denies those without identity, as it should.
                    Action::Deny if field.is_negated() => continue,
                    Action::Deny => true,
                    Action::Audit | Action::Custom => return None,
                };
                let identity = Identity {
                    at: value.at.clone(),
                    field: format!("spec.rules[{r}].from[{f}].source.{}", field.name),
                    opens,
                };
                if opens {
                    return Some(identity);
                }
                first.get_or_insert(identity);
            }
        }
    }
    first
}

/// Modes of the mesh, of namespaces, and of selectors; where several compete, the oldest holds.
struct Modes<'a> {
    any: bool,
    root_namespace: &'a str,
    namespaces: FxHashMap<&'a str, MtlsMode>,
    selecting: FxHashMap<&'a str, Vec<&'a PeerAuthentication>>,
}

impl<'a> Modes<'a> {
    fn build(resources: &'a [Arc<Resource>], root_namespace: &'a str) -> Self {
        let mut policies: Vec<&PeerAuthentication> = resources
            .iter()
            .filter_map(|resource| match resource.as_ref() {
                Resource::PeerAuthentication(policy) => Some(policy),
                _ => None,
            })
            .collect();
        policies.sort_by(|a, b| oldest_first(Some(a), Some(b)));
        let mut modes = Self {
            any: !policies.is_empty(),
            root_namespace,
            namespaces: FxHashMap::default(),
            selecting: FxHashMap::default(),
        };
        for policy in policies {
            let namespace = policy.meta.namespace.as_str();
            if is_namespace_wide(policy) {
                modes.namespaces.entry(namespace).or_insert(policy.mode);
            } else if namespace != root_namespace {
                // In the root namespace a selector selects nothing.
                modes.selecting.entry(namespace).or_default().push(policy);
            }
        }
        modes
    }

    /// The mode of the workloads that a policy selects, as far as one mode holds for all of them.
    fn of(&self, policy: &AuthorizationPolicy) -> MtlsMode {
        let namespace = policy.meta.namespace.as_str();
        let at = |namespace| self.namespaces.get(namespace).copied();
        let whole = at(namespace)
            .filter(|mode| *mode != MtlsMode::Unset)
            .or_else(|| at(self.root_namespace))
            .unwrap_or_default();
        let selector = policy.selector.as_ref();
        let Some(selector) = selector.filter(|s| !s.match_labels.is_empty()) else {
            return whole;
        };
        // More than a few per namespace are not looked through for every policy.
        let mut candidates = self.selecting.get(namespace).into_iter().flatten().take(64);
        let wider = candidates.find(|candidate| {
            candidate.selector.as_ref().is_some_and(|wide| {
                wide.match_labels
                    .iter()
                    .all(|(key, value)| selector.match_labels.get(key) == Some(value))
            })
        });
        wider.map_or(whole, |candidate| with_ports(candidate, whole))
    }
}

/// The mode of all ports; where they differ, what PERMISSIVE is: some take plaintext.
fn with_ports(policy: &PeerAuthentication, whole: MtlsMode) -> MtlsMode {
    let mode = match policy.mode {
        MtlsMode::Unset => whole,
        mode => mode,
    };
    let mut ports = policy.port_level.values();
    if ports.all(|port| *port == MtlsMode::Unset || *port == mode) {
        mode
    } else {
        MtlsMode::Permissive
    }
}
