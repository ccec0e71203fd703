//! HTTP fields where no HTTP is seen: on TCP ports of sidecars, and at ztunnel (policy.md 1.7 and 1.8).

use std::collections::BTreeSet;

use super::ports::Speaks;
use super::{Place, listed};
use crate::diagnostic::{Diagnostic, code};
use crate::lint::about;
use crate::lower::layer_7;
use crate::model::{Alternative, Dialect, Rule};
use crate::policy_set::Policy;
use crate::request::Target;
use crate::resource::fields::{self, Field};
use crate::resource::{Action, AuthorizationPolicy, RuleSpec};

/// Reports rules of `policy` whose HTTP fields mean something else at one of `places`.
pub(super) fn check(
    policy: &Policy,
    manifest: &AuthorizationPolicy,
    places: &[Place<'_, '_>],
    found: &mut Vec<Diagnostic>,
) {
    // Gateways and waypoints see HTTP.
    if !manifest.target_refs.is_empty() {
        return;
    }
    let ambient: Vec<_> = places.iter().filter(|p| p.spot.ambient).collect();
    at_ztunnel(policy, manifest, &ambient, found);
    if !matches!(manifest.action, Action::Allow | Action::Deny) {
        return;
    }
    let of_sidecar = |p: &&Place<'_, '_>| p.spot.target == Target::Sidecar && !p.spot.ambient;
    let sidecars: Vec<_> = places.iter().filter(of_sidecar).collect();
    if sidecars.is_empty() && !places.is_empty() {
        return;
    }
    for (index, rule) in manifest.rules.iter().flatten().enumerate() {
        let Some(rule) = &rule.value else { continue };
        let http = http_fields(rule);
        if http.is_empty() {
            continue;
        }
        let view = View {
            manifest,
            rule,
            index,
            http: listed(http),
            sidecars: &sidecars,
        };
        view.check(found);
    }
}

/// One rule with HTTP fields, at sidecars.
struct View<'v, 'w, 'a> {
    manifest: &'v AuthorizationPolicy,
    rule: &'v RuleSpec,
    index: usize,
    http: String,
    sidecars: &'v [&'v Place<'w, 'a>],
}

impl View<'_, '_, '_> {
    fn check(&self, found: &mut Vec<Diagnostic>) {
        let of_rule = self
            .rule
            .when
            .iter()
            .filter(|c| c.key.value == "destination.port");
        let of_rule: Vec<&str> = of_rule
            .flat_map(|c| c.values.iter().chain(&c.not_values))
            .map(|v| v.value.as_str())
            .collect();
        let mut named = false;
        let mut told = BTreeSet::new();
        for operation in self.rule.to.iter().filter_map(|to| to.value.as_ref()) {
            let ports = operation.ports.iter().map(|v| v.value.as_str());
            named |= !operation.ports.is_empty() || !operation.not_ports.is_empty();
            told.extend(ports.filter_map(|port| self.tcp(port)));
        }
        named |= !of_rule.is_empty();
        told.extend(of_rule.iter().filter_map(|port| self.tcp(port)));
        if let Some((port, place)) = told.first() {
            let ports = listed(told.iter().map(|(port, _)| port).collect::<BTreeSet<_>>());
            found.push(self.about(ports, *port, place));
        } else if !named {
            found.extend(self.without_ports());
        }
    }

    /// The port, where it is a TCP one of some workload and of none an HTTP one.
    fn tcp(&self, port: &str) -> Option<(u16, String)> {
        let port: u16 = port.parse().ok()?;
        let speaks = |p: &&&Place<'_, '_>| p.ports().speaks.get(&port).copied();
        let mut here = self
            .sidecars
            .iter()
            .filter(|p| speaks(p).is_some())
            .peekable();
        let first = here.peek()?.name();
        here.all(|p| speaks(&p) == Some(Speaks::Tcp))
            .then_some((port, first))
    }

    fn about(&self, ports: String, port: u16, place: &str) -> Diagnostic {
        let http = &self.http;
        let (so, hint) = match self.manifest.action {
            Action::Allow => (
                format!("an ALLOW rule with {http} is left out there and lets nobody in"),
                "allow a TCP port by its clients and `ports` alone, in a rule of its own",
            ),
            _ => (
                format!("this DENY rule ignores {http} there and denies what is left of it"),
                "leave the port out, or deny it by its clients and `ports` alone, in a rule of its own",
            ),
        };
        let message = format!("port {ports} of `{place}` is TCP: {so}");
        self.diagnostic(&code::HTTP_ON_TCP, message, hint)
            .with_hint(format!(
                "{hint}; if it speaks HTTP, name the Service's port `http` ({port})"
            ))
    }

    fn diagnostic(&self, code: &code::Code, message: String, hint: &str) -> Diagnostic {
        let meta = ("AuthorizationPolicy", &self.manifest.meta);
        let field = format!("spec.rules[{}]", self.index);
        about(code, &self.rule.at, meta, field, message, hint)
    }

    /// What a rule does on ports that it does not name.
    fn without_ports(&self) -> Option<Diagnostic> {
        let tcp: Vec<_> = self
            .sidecars
            .iter()
            .filter_map(|p| Some((p.ports().tcp().next()?, p.name())))
            .collect();
        if self.manifest.action == Action::Allow {
            let all = !self.sidecars.is_empty()
                && self
                    .sidecars
                    .iter()
                    .all(|p| p.ports().all_speak(Speaks::Tcp));
            let (port, place) = tcp.first().filter(|_| all)?;
            return Some(self.about(listed([*port]), *port, place));
        }
        let left = if denies_more(self.rule) {
            "what is left"
        } else {
            "every connection"
        };
        let http = &self.http;
        let message = match tcp.first() {
            Some((port, place)) => format!(
                "this DENY rule ignores {http} on TCP ports and denies {left} there, as on `{port}` of `{place}`"
            ),
            None if !self.sidecars.is_empty()
                && self
                    .sidecars
                    .iter()
                    .all(|p| p.ports().all_speak(Speaks::Http)) =>
            {
                return None;
            }
            None if !self.sidecars.is_empty() => {
                format!("on TCP ports a sidecar ignores {http} of this DENY rule and denies {left}")
            }
            None => {
                let at_ztunnel = if left == "every connection" {
                    "nothing"
                } else {
                    left
                };
                format!(
                    "on TCP ports a sidecar ignores {http} of this DENY rule and denies {left}; in ambient mode ztunnel \
                     denies {at_ztunnel}"
                )
            }
        };
        let hint = "add `ports` with the HTTP ports that it is about";
        Some(self.diagnostic(&code::DENY_WITHOUT_PORTS, message, hint))
    }
}

/// True where something is left of a rule without its HTTP fields.
fn denies_more(rule: &RuleSpec) -> bool {
    let of_tcp = |fields: &[Field<'_>]| fields.iter().any(|f| !f.http && !f.values.is_empty());
    let mut from = rule.from.iter().filter_map(|e| e.value.as_ref());
    from.any(|source| of_tcp(&fields::of_source(source)))
        || rule.when.iter().any(|c| !fields::is_http_key(&c.key.value))
}

/// Names of the HTTP fields and keys of a rule.
fn http_fields(rule: &RuleSpec) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut take = |all: &[Field<'_>]| {
        let http = all.iter().filter(|f| f.http && !f.values.is_empty());
        names.extend(http.map(|f| f.name.to_owned()));
    };
    for source in rule.from.iter().filter_map(|e| e.value.as_ref()) {
        take(&fields::of_source(source));
    }
    for operation in rule.to.iter().filter_map(|e| e.value.as_ref()) {
        take(&fields::of_operation(operation));
    }
    let keys = rule.when.iter().map(|c| c.key.value.as_str());
    names.extend(
        keys.filter(|key| fields::is_http_key(key))
            .map(str::to_owned),
    );
    names
}

/// What ztunnel makes of a policy: it sees connections alone.
fn at_ztunnel(
    policy: &Policy,
    manifest: &AuthorizationPolicy,
    ambient: &[&Place<'_, '_>],
    found: &mut Vec<Diagnostic>,
) {
    let Some(first) = ambient.first().map(|place| place.name()) else {
        return;
    };
    let hint = "ztunnel sees connections alone: attach the policy to a waypoint by `targetRefs`";
    let lowered = policy.lowered(Dialect::Ztunnel);
    let meta = ("AuthorizationPolicy", &manifest.meta);
    if !lowered.applies {
        let action = match manifest.action {
            Action::Audit => "AUDIT",
            _ => "CUSTOM",
        };
        let message = format!(
            "ztunnel, before `{first}`, knows no {action} policies: this one does nothing there"
        );
        found.push(about(
            &code::BEYOND_ZTUNNEL,
            &manifest.meta.at,
            meta,
            "spec.action",
            message,
            hint,
        ));
        return;
    }
    for (index, rule) in manifest.rules.iter().flatten().enumerate() {
        let Some(spec) = &rule.value else { continue };
        let here = lowered
            .rules
            .iter()
            .find(|r| r.id.index.map(|i| i as usize) == Some(index));
        let unseen = layer_7(spec);
        let dead = here.is_none_or(|rule| is_dead(rule));
        if unseen.is_none() && !dead {
            continue;
        }
        let part = unseen.unwrap_or_else(|| "trustDomains".to_owned());
        let so = match (manifest.action, dead) {
            (Action::Allow, _) => "leaves this ALLOW rule out: it lets nobody in there",
            (_, true) => "has nothing left of this DENY rule: it denies nothing there",
            (_, false) => "denies what is left of this DENY rule",
        };
        let message = format!("ztunnel, before `{first}`, cannot see `{part}` and {so}");
        let field = format!("spec.rules[{index}]");
        found.push(about(
            &code::BEYOND_ZTUNNEL,
            &spec.at,
            meta,
            field,
            message,
            hint,
        ));
    }
}

/// True for a rule that nothing can match.
fn is_dead(rule: &Rule) -> bool {
    let none = |all: &[Alternative]| !all.is_empty() && all.iter().all(|one| one.never);
    rule.never || none(&rule.from) || none(&rule.to)
}
