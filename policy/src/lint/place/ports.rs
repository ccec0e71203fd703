//! What is known of a workload's ports, and policies that name the port of its Service instead.

use std::collections::{BTreeMap, BTreeSet};

use super::{Place, World, listed};
use crate::diagnostic::{Diagnostic, code};
use crate::lint::about;
use crate::resource::{
    Action, AuthorizationPolicy, Located, PeerAuthentication, Service, ServicePort, Workload,
};

/// What a port speaks, as Istio decides it from the Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http,
    Tcp,
    /// The proxy finds out for each connection, or Services say different things.
    Unknown,
}

/// The ports of one workload.
#[derive(Debug, Default)]
pub(super) struct Known<'a> {
    /// By the workload's port, what its Services say.
    pub(super) speaks: BTreeMap<u16, Speaks>,
    /// Every port that is known to be the workload's: target ports and container ports.
    all: BTreeSet<u16>,
    /// Service port, target port and Service, where the two ports differ.
    mapped: Vec<(u16, u16, &'a str)>,
    /// True where a target port could not be found out, or something else may bring ports.
    vague: bool,
}

impl<'a> Known<'a> {
    pub(super) fn of(workload: &Workload, world: &World<'a>) -> Self {
        let mut known = Self::default();
        let selects = |selector: &BTreeMap<String, String>| {
            let mut labels = selector.iter();
            !selector.is_empty() && labels.all(|(k, v)| workload.labels.get(k) == Some(v))
        };
        known
            .all
            .extend(workload.ports.iter().map(|(_, port)| *port));
        let namespace = workload.namespace.as_str();
        let services = world.services.get(namespace).into_iter().flatten();
        for service in services.filter(|service| selects(&service.selector)) {
            known.take(service, workload);
        }
        let mut entries = world.entries.get(namespace).into_iter().flatten();
        known.vague |= entries.any(|entry| selects(&entry.workload_selector));
        known
    }

    fn take(&mut self, service: &'a Service, workload: &Workload) {
        for port in service.ports.iter().filter(|port| port.is_tcp) {
            let Some(target) = target_of(port, workload) else {
                self.vague = true;
                continue;
            };
            let speaks = speaks(port);
            let said = self.speaks.entry(target).or_insert(speaks);
            if *said != speaks {
                *said = Speaks::Unknown;
            }
            self.all.insert(target);
            if target != port.port {
                self.mapped.push((port.port, target, &service.meta.name));
            }
        }
    }

    /// True where every port is one of a Service, and each speaks `what`.
    pub(super) fn all_speak(&self, what: Speaks) -> bool {
        !self.vague
            && !self.speaks.is_empty()
            && self
                .all
                .iter()
                .all(|port| self.speaks.get(port) == Some(&what))
    }

    /// The ports that speak TCP alone.
    pub(super) fn tcp(&self) -> impl Iterator<Item = u16> {
        let tcp = self.speaks.iter().filter(|(_, s)| **s == Speaks::Tcp);
        tcp.map(|(port, _)| *port)
    }
}

/// The workload's port behind a Service's.
fn target_of(port: &ServicePort, workload: &Workload) -> Option<u16> {
    let Some(target) = &port.target_port else {
        return Some(port.port);
    };
    if let Ok(number) = target.parse::<u16>() {
        return Some(if number == 0 { port.port } else { number });
    }
    let mut ports = workload.ports.iter();
    let named = ports.find(|(name, _)| name.as_ref() == Some(target));
    named.map(|(_, number)| *number)
}

/// istio:pkg/config/kube/conversion.go: `appProtocol`, else the port's name up to the first hyphen, else a few ports
/// that are never HTTP.
fn speaks(port: &ServicePort) -> Speaks {
    const NEVER_HTTP: [u16; 4] = [25, 53, 3306, 27017];
    let said = port.app_protocol.as_deref().or(port.name.as_deref());
    let said = said.unwrap_or_default().to_ascii_lowercase();
    let word = match said.as_str() {
        "kubernetes.io/h2c" | "kubernetes.io/ws" => "http",
        "kubernetes.io/wss" => "https",
        other => other.split('-').next().unwrap_or_default(),
    };
    match word {
        "http" | "http2" | "grpc" => Speaks::Http,
        "tcp" | "tls" | "https" | "mongo" | "mysql" | "redis" => Speaks::Tcp,
        _ if NEVER_HTTP.contains(&port.port) => Speaks::Tcp,
        _ => Speaks::Unknown,
    }
}

/// Reports rules that name a Service's port where no workload listens on it.
pub(super) fn check(
    policy: &AuthorizationPolicy,
    places: &[Place<'_, '_>],
    found: &mut Vec<Diagnostic>,
) {
    // A waypoint stands before the Service, and sees its ports.
    if !policy.target_refs.is_empty() || places.is_empty() {
        return;
    }
    let mut look = |value: &Located<String>, field: String, negated: bool| {
        let Some(port) = value.value.parse().ok() else {
            return;
        };
        let Some((targets, service)) = mistaken(port, places) else {
            return;
        };
        let so = match (policy.action, negated) {
            (Action::Allow, false) => "it allows nothing",
            (Action::Deny, false) => "it denies nothing",
            (_, false) => "it matches nothing",
            (_, true) => "it excludes nothing",
        };
        found.push(about(
            &code::SERVICE_PORT,
            &value.at,
            ("AuthorizationPolicy", &policy.meta),
            field,
            format!("`{port}` is the port of Service `{service}`, not of a workload that is selected: {so}"),
            format!("ports are those of the workload: write {}", listed(targets)),
        ));
    };
    for (r, rule) in policy.rules.iter().flatten().enumerate() {
        let Some(rule) = &rule.value else { continue };
        for (t, to) in rule.to.iter().enumerate() {
            let Some(operation) = &to.value else { continue };
            let fields = [
                ("ports", &operation.ports),
                ("notPorts", &operation.not_ports),
            ];
            for (name, values) in fields {
                for (v, value) in values.iter().enumerate() {
                    let field = format!("spec.rules[{r}].to[{t}].operation.{name}[{v}]");
                    look(value, field, name == "notPorts");
                }
            }
        }
        for (w, condition) in rule.when.iter().enumerate() {
            if condition.key.value != "destination.port" {
                continue;
            }
            let fields = [
                ("values", &condition.values),
                ("notValues", &condition.not_values),
            ];
            for (name, values) in fields {
                for (v, value) in values.iter().enumerate() {
                    let field = format!("spec.rules[{r}].when[{w}].{name}[{v}]");
                    look(value, field, name == "notValues");
                }
            }
        }
    }
}

/// As [`check`], of `portLevelMtls`.
pub(super) fn check_peer_authentication(
    policy: &PeerAuthentication,
    places: &[Place<'_, '_>],
    found: &mut Vec<Diagnostic>,
) {
    for port in policy.port_level.keys() {
        let Some((targets, service)) = mistaken(*port, places) else {
            continue;
        };
        let selector = policy.selector.as_ref().map(|selector| &selector.at);
        found.push(about(
            &code::SERVICE_PORT,
            selector.unwrap_or(&policy.meta.at),
            ("PeerAuthentication", &policy.meta),
            format!("spec.portLevelMtls[{port}]"),
            format!("`{port}` is the port of Service `{service}`, not of a workload that is selected: it says nothing"),
            format!("ports are those of the workload: write {}", listed(targets)),
        ));
    }
}

/// The ports that were meant and a Service, where `port` is a Service's and surely no workload's.
fn mistaken<'a>(port: u16, places: &[Place<'_, 'a>]) -> Option<(BTreeSet<u16>, &'a str)> {
    let mut targets = BTreeSet::new();
    let mut service = None;
    for place in places {
        let known = place.ports();
        if known.vague || known.all.is_empty() || known.all.contains(&port) {
            return None;
        }
        for (_, target, name) in known.mapped.iter().filter(|(from, ..)| *from == port) {
            targets.insert(*target);
            service.get_or_insert(*name);
        }
    }
    Some((targets, service?))
}
