//! The slices of a snapshot: made for every workload at compilation, and on demand for targets that
//! only requests name.

use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use crate::attachment::EnforcementPoint;
use crate::inventory::{Candidate, Inventory};
use crate::mesh::Mesh;
use crate::model::Dialect;
use crate::policy_set::{Attacher, PolicySet};
use crate::request::Target;
use crate::slice::{Contents, Slice};

/// Where a slice applies.
pub type Place = (Candidate, Dialect);

/// Slices by place and by contents.
#[derive(Debug, Default)]
pub struct Slices {
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    by_place: FxHashMap<Place, Arc<Slice>>,
    by_contents: FxHashMap<Contents, Arc<Slice>>,
}

/// Slices made ahead of requests hold at most this many rules together; the rest is made on demand.
const RULES_MADE_AHEAD: usize = 4_000_000;

impl Slices {
    /// Makes the slices of every workload on its own target.
    #[must_use]
    pub fn ahead(inventory: &Inventory, set: &PolicySet, mesh: &Mesh) -> Self {
        let attacher = Attacher::new(set);
        let mut made = Made::default();
        let mut rules = 0usize;
        for (workload, of) in inventory.workloads() {
            let (target, _) = inventory.auto_target(workload);
            if target == Target::Waypoint {
                continue; // hangs on the service that a request is for
            }
            let candidate = Candidate {
                workload,
                target,
                service: None,
            };
            let point = EnforcementPoint {
                workload: of,
                target,
                service: None,
                root_namespace: &mesh.root_namespace,
            };
            let (policies, tokens) = (attacher.policies(&point), attacher.tokens(&point));
            for dialect in [Dialect::Http, Dialect::Tcp] {
                let contents = Contents::at(&point, dialect, set, policies.clone(), tokens.clone());
                let slice = made.slice(contents, set, &mut rules);
                made.by_place.insert((candidate, dialect), slice);
            }
            if rules > RULES_MADE_AHEAD {
                break;
            }
        }
        Self {
            made: Mutex::new(made),
        }
    }

    /// The slice of one place; `None` for a workload of another inventory.
    #[must_use]
    pub fn at(
        &self,
        candidate: Candidate,
        dialect: Dialect,
        inventory: &Inventory,
        set: &PolicySet,
        mesh: &Mesh,
    ) -> Option<Arc<Slice>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slice) = made.by_place.get(&(candidate, dialect)) {
            return Some(Arc::clone(slice));
        }
        let point = EnforcementPoint {
            workload: inventory.workload(candidate.workload)?,
            target: candidate.target,
            service: candidate.service.and_then(|s| inventory.service(s)),
            root_namespace: &mesh.root_namespace,
        };
        let (policies, tokens) = (set.attached_policies(&point), set.attached_tokens(&point));
        let contents = Contents::at(&point, dialect, set, policies, tokens);
        let slice = made.slice(contents, set, &mut 0);
        made.by_place
            .insert((candidate, dialect), Arc::clone(&slice));
        Some(slice)
    }
}

impl Made {
    fn slice(&mut self, contents: Contents, set: &PolicySet, rules: &mut usize) -> Arc<Slice> {
        if let Some(slice) = self.by_contents.get(&contents) {
            return Arc::clone(slice);
        }
        let slice = Arc::new(Slice::build(contents.clone(), set));
        *rules = rules.saturating_add(slice.rules.len());
        self.by_contents.insert(contents, Arc::clone(&slice));
        slice
    }
}
