//! What a change of policies opens or closes, workload by workload.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ObjectKey;
use super::denial::Denials;
use super::openness::Openness;
use crate::attachment::EnforcementPoint;
use crate::diagnostic::code::Code;
use crate::diagnostic::{Diagnostic, Location, code};
use crate::inventory::{ServiceRef, WorkloadId};
use crate::lint::place::waypoint::Waypoints;
use crate::policy_set::{Piece, PolicySet};
use crate::request::Target;
use crate::resource::{Resource, Workload};
use crate::snapshot::Snapshot;

/// Workloads named in a diagnostic; the rest is counted.
const NAMED: usize = 3;

/// True for a diagnostic that compares two sets, and so is no set's own.
#[must_use]
pub fn is_effect(diagnostic: &Diagnostic) -> bool {
    [
        &code::OPENS,
        &code::CLOSES,
        &code::WAIVES_IDENTITY,
        &code::DENIES_ALL,
        &code::UNDENIES,
    ]
    .iter()
    .any(|code| code.id == diagnostic.code)
}

/// One changed object: what it brought, and what it would bring.
pub(super) struct Changed<'c> {
    pub(super) key: &'c ObjectKey,
    pub(super) before: Vec<&'c Piece>,
    pub(super) after: Vec<&'c Piece>,
}

/// What the change of an object to `proposed` opens or closes.
pub(super) fn of(
    changed: &Changed<'_>,
    base: &Snapshot,
    proposed: &Snapshot,
    namespaces: &[Arc<Resource>],
) -> Vec<Diagnostic> {
    let pieces = || changed.before.iter().chain(&changed.after);
    let counts = |piece: &&&Piece| {
        piece.policy.is_some()
            || !piece.user.is_empty()
            || piece.closing.is_some()
            || matches!(
                piece.authentication.as_deref(),
                Some(Resource::PeerAuthentication(_))
            )
    };
    if !pieces().any(|piece| counts(&piece)) {
        return Vec::new();
    }
    let mut effect = Effect {
        denials: Denials::of(changed),
        ..Effect::default()
    };
    let waypoints = Waypoints::build(namespaces);
    for (id, workload) in proposed.inventory().workloads() {
        effect.look((id, workload), changed, base, proposed, &waypoints);
    }
    effect.told(changed)
}

/// Workloads by what becomes of them.
#[derive(Default)]
struct Effect<'c> {
    opened: BTreeSet<String>,
    closed: BTreeSet<String>,
    waived: BTreeSet<String>,
    shut: BTreeSet<String>,
    /// `None` where nothing that changes denies.
    denials: Option<Denials<'c>>,
}

impl Effect<'_> {
    fn look(
        &mut self,
        (id, workload): (WorkloadId, &Workload),
        changed: &Changed<'_>,
        base: &Snapshot,
        proposed: &Snapshot,
        waypoints: &Waypoints<'_>,
    ) {
        let (target, _) = proposed.inventory().auto_target(id);
        let root_namespace = proposed.mesh().root_namespace.as_str();
        let namespace = changed.key.namespace.as_ref();
        let in_reach = namespace == root_namespace || namespace == workload.namespace;
        // A waypoint may serve another namespace.
        if !in_reach && target != Target::Waypoint {
            return;
        }
        let point = |service| EnforcementPoint {
            workload,
            target,
            service,
            root_namespace,
        };
        let mut look_at = |point: EnforcementPoint<'_>| {
            let pieces = || changed.before.iter().chain(&changed.after);
            if pieces().any(|piece| reaches(piece, &point)) {
                let (before, after) = (base.policies(), proposed.policies());
                match (Openness::of(before, &point), Openness::of(after, &point)) {
                    (Openness::Open | Openness::Limited, Openness::Shut) => {
                        self.shut.insert(name(&point))
                    }
                    (Openness::Limited, Openness::Open) => self.opened.insert(name(&point)),
                    (Openness::Open, Openness::Limited) => self.closed.insert(name(&point)),
                    _ => false,
                };
                if let Some(denials) = &mut self.denials {
                    denials.look(&point, after, || name(&point));
                }
            }
        };
        look_at(point(None));
        if target == Target::Waypoint {
            for service in services(changed, proposed, waypoints, workload) {
                look_at(point(Some(service)));
            }
        }
        let demands = |set: &PolicySet| {
            let peers = set.peer_authentications();
            peers.effective(workload, None, target).requires_identity()
        };
        if changed.key.kind.as_ref() == "PeerAuthentication"
            && in_reach
            && demands(base.policies())
            && !demands(proposed.policies())
        {
            self.waived.insert(name(&point(None)));
        }
    }

    fn told(self, changed: &Changed<'_>) -> Vec<Diagnostic> {
        let told = |code: &Code, workloads: &BTreeSet<String>, what: &str, hint: &str| {
            if workloads.is_empty() {
                return None;
            }
            let at = Location {
                file: changed.key.file(),
                ..Location::default()
            };
            let message = format!("{what} {}", listed(workloads));
            let resource = changed.key.resource();
            Some(code.at(at, message).with_resource(resource).with_hint(hint))
        };
        let denials = self.denials.and_then(|denials| denials.told(changed));
        [
            told(
                &code::OPENS,
                &self.opened,
                "no ALLOW policy limits what is allowed any more, so whatever is not denied is allowed, for",
                "if some requests are still to be refused, keep an ALLOW policy; one without rules allows nothing",
            ),
            told(
                &code::CLOSES,
                &self.closed,
                "what no ALLOW policy allows is denied from now on, for",
                "all was allowed there until now: see that every client has its rule",
            ),
            told(
                &code::DENIES_ALL,
                &self.shut,
                "every request is denied from now on, whatever ALLOW policies allow, for",
                "a DENY rule without conditions stops everybody: say in it what is to be stopped",
            ),
            told(
                &code::WAIVES_IDENTITY,
                &self.waived,
                "clients without an identity are taken from now on, for",
                "if that is not meant, set the mode STRICT at another level",
            ),
            denials,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Whether a piece binds at `point`, whatever it does there.
fn reaches(piece: &Piece, point: &EnforcementPoint<'_>) -> bool {
    piece.policy.as_ref().is_some_and(|p| p.attaches(point))
        || piece.user.iter().any(|user| user.selects(point))
        || piece.closing.as_ref().is_some_and(|c| c.closes(point))
}

/// The services that the changed policies name and the waypoint may serve.
fn services<'s>(
    changed: &Changed<'_>,
    proposed: &'s Snapshot,
    waypoints: &Waypoints<'_>,
    waypoint: &Workload,
) -> Vec<ServiceRef<'s>> {
    let pieces = || changed.before.iter().chain(&changed.after);
    let manifests = pieces().filter_map(|piece| piece.policy.as_ref()?.manifest());
    let of_manifests = manifests.flat_map(|manifest| &manifest.target_refs);
    let user = pieces().flat_map(|piece| &piece.user);
    let of_user = user.filter_map(|user| Some(&user.attachment.as_ref()?.target_refs));
    let names: BTreeSet<&str> = of_manifests
        .chain(of_user.flatten())
        .map(|target| target.name.as_str())
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    let inventory = proposed.inventory();
    let named = inventory
        .services()
        .filter(|(_, service)| names.contains(service.name));
    let served = named.filter(
        |(id, _)| match inventory.service_resource(*id).map(AsRef::as_ref) {
            Some(Resource::Service(service)) => waypoints.may_serve(waypoint, &service.meta),
            Some(Resource::ServiceEntry(entry)) => waypoints.may_serve(waypoint, &entry.meta),
            _ => false,
        },
    );
    served.map(|(_, service)| service).collect()
}

fn name(point: &EnforcementPoint<'_>) -> String {
    let workload = point.workload;
    let (kind, namespace) = (workload.kind.as_str(), &workload.namespace);
    let of_workload = format!("{kind}/{namespace}/{}", workload.name);
    match point.service {
        Some(service) => format!("{service} at {of_workload}"),
        None => of_workload,
    }
}

/// `3 workloads: a, b and c`, or the first of them.
pub(super) fn listed(workloads: &BTreeSet<String>) -> String {
    let named: Vec<String> = workloads
        .iter()
        .take(NAMED)
        .map(|name| format!("`{name}`"))
        .collect();
    let named = named.join(", ");
    match (workloads.len(), workloads.len().saturating_sub(NAMED)) {
        (1, _) => named,
        (all, 0) => format!("{all} workloads: {named}"),
        (all, more) => format!("{all} workloads: {named} and {more} more"),
    }
}
