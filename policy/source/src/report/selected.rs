//! How many workloads each policy selects, by the file that it is known by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_policy::attachment::EnforcementPoint;
use portcullis_policy::inventory::{ServiceId, WorkloadId};
use portcullis_policy::live::ObjectKey;
use portcullis_policy::policy_set::PolicySet;
use portcullis_policy::request::Target;
use portcullis_policy::resource::{Resource, TargetRef};
use portcullis_policy::snapshot::Snapshot;

/// Workloads of each policy.
#[derive(Debug, Default)]
pub(super) struct Selected {
    counts: BTreeMap<Arc<str>, usize>,
    /// Workloads behind the services that a policy targets.
    behind: BTreeMap<Arc<str>, BTreeSet<WorkloadId>>,
    /// Workloads where a narrower PeerAuthentication is in force.
    overridden: BTreeMap<Arc<str>, usize>,
    trials: BTreeSet<Arc<str>>,
}

impl Selected {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let (set, inventory) = (snapshot.policies(), snapshot.inventory());
        let root_namespace = snapshot.mesh().root_namespace.as_str();
        let mut selected = Self::default();
        let targets = selected.name(set);
        for (id, workload) in inventory.workloads() {
            let (target, _) = inventory.auto_target(id);
            let point = EnforcementPoint {
                workload,
                target,
                service: None,
                root_namespace,
            };
            for file in at(set, &point) {
                selected.count_one(&file);
            }
            for (policy, in_force) in set.peer_authentications().chosen(workload, target) {
                let file = &policy.meta.at.file;
                if in_force {
                    selected.count_one(file);
                } else {
                    *selected.overridden.entry(Arc::clone(file)).or_default() += 1;
                }
            }
        }
        let named = inventory
            .services()
            .filter(|(_, service)| targets.contains(&(service.namespace, service.name)));
        let named: Vec<ServiceId> = named.map(|(id, _)| id).collect();
        for service in named {
            selected.count_behind(service, snapshot);
        }
        selected
    }

    /// Enters every policy; the services that some target, as (namespace, name).
    fn name<'s>(&mut self, set: &'s PolicySet) -> BTreeSet<(&'s str, &'s str)> {
        let mut targets = BTreeSet::new();
        let mut target = |namespace: &'s str, refs: &'s [TargetRef]| {
            let services = refs
                .iter()
                .filter(|r| matches!(r.kind.as_str(), "Service" | "ServiceEntry"));
            targets.extend(services.map(|r| (namespace, r.name.as_str())));
        };
        for policy in set.policies() {
            let Some(manifest) = policy.manifest() else {
                continue;
            };
            let file = &manifest.meta.at.file;
            if policy.dry_run() {
                self.trials.insert(Arc::clone(file));
            }
            self.counts.insert(Arc::clone(file), 0);
            target(&manifest.meta.namespace, &manifest.target_refs);
        }
        for resource in set.request_authentications() {
            let file = &resource.meta.at.file;
            self.counts.insert(Arc::clone(file), 0);
            target(&resource.meta.namespace, &resource.target_refs);
        }
        for resource in set.peer_authentications().iter() {
            self.counts.insert(Arc::clone(&resource.meta.at.file), 0);
        }
        for user in set.all_user_policies() {
            let file = &user.rule.at.file;
            if user.rule.dry_run {
                self.trials.insert(Arc::clone(file));
            }
            self.counts.insert(Arc::clone(file), 0);
            if let Some(attachment) = user.attachment.as_deref() {
                target(&attachment.namespace, &attachment.target_refs);
            }
        }
        targets
    }

    /// What a waypoint enforces for a service is enforced for the workloads behind it; for one that leads out of the
    /// cluster, at the waypoint.
    fn count_behind(&mut self, id: ServiceId, snapshot: &Snapshot) {
        let (set, inventory) = (snapshot.policies(), snapshot.inventory());
        let waypoints = inventory.waypoints_of(id);
        let first = waypoints.first().and_then(|id| inventory.workload(*id));
        let (Some(workload), Some(service)) = (first, inventory.service(id)) else {
            return;
        };
        let point = |service| EnforcementPoint {
            workload,
            target: Target::Waypoint,
            service,
            root_namespace: &snapshot.mesh().root_namespace,
        };
        // What binds the waypoint in any case was counted there.
        let without = at(set, &point(None));
        let mut through = at(set, &point(Some(service)));
        through.retain(|file| !without.contains(file));
        if through.is_empty() {
            return;
        }
        let behind = match inventory.behind(id) {
            none if none.is_empty() => waypoints,
            behind => behind,
        };
        for file in through {
            let all = self.behind.entry(file).or_default();
            all.extend(behind.iter().copied());
        }
    }

    fn count_one(&mut self, file: &Arc<str>) {
        *self.counts.entry(Arc::clone(file)).or_default() += 1;
    }

    /// Workloads that a policy is in force on; `None` of what none are counted for.
    pub(super) fn count(&self, key: &ObjectKey, file: &str) -> Option<usize> {
        if key.kind.as_ref() == "PolicyTest" {
            return None;
        }
        let direct = self.counts.get(file).copied().unwrap_or(0);
        let behind = self.behind.get(file).map_or(0, BTreeSet::len);
        Some(direct.saturating_add(behind))
    }

    /// Workloads that a PeerAuthentication selects and where a narrower one is in force, if any.
    pub(super) fn overridden(&self, file: &str) -> Option<usize> {
        self.overridden.get(file).copied()
    }

    /// Whether something of it is on trial.
    pub(super) fn is_trial(&self, file: &str) -> bool {
        self.trials.contains(file)
    }
}

/// The files of what binds at `point`, each once.
fn at(set: &PolicySet, point: &EnforcementPoint<'_>) -> Vec<Arc<str>> {
    let policies = set.policies_at(point);
    let policies = policies.iter().filter_map(|policy| policy.manifest());
    let policies = policies.map(|manifest| &manifest.meta.at.file);
    let tokens = set.tokens_at(point);
    let tokens = tokens.iter().filter_map(|token| match token.as_ref() {
        Resource::RequestAuthentication(policy) => Some(&policy.meta.at.file),
        _ => None,
    });
    // One document may hold several Cedar policies, which stand together.
    let users = set.user_policies_at(point);
    let mut users: Vec<&Arc<str>> = users.iter().map(|user| &user.rule.at.file).collect();
    users.dedup();
    policies.chain(tokens).chain(users).cloned().collect()
}
