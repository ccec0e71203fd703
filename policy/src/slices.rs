//! The slices of a policy set, made when a destination is asked for, or ahead of requests.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustc_hash::FxHashMap;

use crate::attachment::EnforcementPoint;
use crate::inventory::{Candidate, Inventory};
use crate::model::Dialect;
use crate::request::Target;
use crate::resource::Resource;
use crate::slice::{Contents, Slice};

/// Where a slice applies: workload, service of a waypoint, target, dialect.
pub(crate) type Place<'a> = (
    &'a Arc<Resource>,
    Option<&'a Arc<Resource>>,
    Target,
    Dialect,
);

/// Slices by place and by contents. A clone is the same.
///
/// A place is known by its resources themselves: a pod that changed is another place, one that did not
/// is the same in every snapshot that has these policies.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    by_place: Arc<Mutex<Places>>,
    /// Shared by every set that came from this one, so that equal contents stay one slice.
    by_contents: Arc<Mutex<Pool>>,
}

#[derive(Debug, Default)]
struct Places {
    slices: FxHashMap<Key, Held>,
    /// At this many, those whose workload is gone are forgotten.
    swept_at: usize,
}

/// Addresses of the resources, which the weak references keep from being given to others.
type Key = (usize, usize, Target, Dialect);

#[derive(Clone, Debug)]
struct Held {
    workload: Weak<Resource>,
    service: Option<Weak<Resource>>,
    namespaces: (Arc<str>, Option<Arc<str>>),
    slice: Arc<Slice>,
}

#[derive(Debug, Default)]
struct Pool {
    slices: FxHashMap<Contents, (u64, Arc<Slice>)>,
    /// Counts the sets that drew from this.
    generation: u64,
}

/// Slices made ahead of requests hold at most this many rules together; the rest is made on demand.
const RULES_MADE_AHEAD: usize = 4_000_000;
/// Fewer places than this are never swept.
const FEW: usize = 4_096;
/// A slice that no place has is forgotten after this many sets.
const GENERATIONS: u64 = 8;

impl Slices {
    /// Makes the slices of every workload on its own target.
    pub(crate) fn ahead(
        &self,
        inventory: &Inventory,
        make: impl Fn(Candidate, Dialect) -> Option<Arc<Slice>>,
    ) {
        let mut rules = 0usize;
        for (workload, _) in inventory.workloads() {
            let (target, _) = inventory.auto_target(workload);
            if target == Target::Waypoint {
                continue; // hangs on the service that a request is for
            }
            let candidate = Candidate {
                workload,
                target,
                service: None,
            };
            for dialect in [Dialect::Http, Dialect::Tcp] {
                let made = make(candidate, dialect);
                // One that a place before has as well counts once.
                let new = made.filter(|slice| Arc::strong_count(slice) <= 3);
                rules = rules.saturating_add(new.map_or(0, |slice| slice.rules.len()));
            }
            if rules > RULES_MADE_AHEAD {
                break;
            }
        }
    }

    /// The slice of one place, made of `contents` where it is not known.
    pub(crate) fn at(
        &self,
        place: Place<'_>,
        point: &EnforcementPoint<'_>,
        contents: impl FnOnce() -> Contents,
    ) -> Arc<Slice> {
        let (workload, service, target, dialect) = place;
        let address = |resource: &Arc<Resource>| Arc::as_ptr(resource) as usize;
        let key = (
            address(workload),
            service.map_or(0, address),
            target,
            dialect,
        );
        if let Some(held) = lock(&self.by_place).slices.get(&key) {
            return Arc::clone(&held.slice);
        }
        let slice = lock(&self.by_contents).slice(contents());
        let held = Held {
            workload: Arc::downgrade(workload),
            service: service.map(Arc::downgrade),
            namespaces: (
                Arc::from(point.workload.namespace.as_str()),
                point.service.map(|service| Arc::from(service.namespace)),
            ),
            slice: Arc::clone(&slice),
        };
        lock(&self.by_place).insert(key, held);
        slice
    }

    /// Those of the places whose namespaces are all kept; another set's from here on.
    pub(crate) fn keeping(&self, keep: impl Fn(&str) -> bool) -> Self {
        let places = lock(&self.by_place);
        let kept = places.slices.iter().filter(|(_, held)| {
            let (own, of_service) = &held.namespaces;
            held.is_there() && keep(own) && of_service.as_deref().is_none_or(&keep)
        });
        let slices: FxHashMap<Key, Held> = kept.map(|(key, held)| (*key, held.clone())).collect();
        drop(places);
        lock(&self.by_contents).next();
        Self {
            by_place: Arc::new(Mutex::new(Places {
                slices,
                swept_at: 0,
            })),
            by_contents: Arc::clone(&self.by_contents),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    fn is_there(&self) -> bool {
        let there = |resource: &Weak<Resource>| resource.strong_count() > 0;
        there(&self.workload) && self.service.as_ref().is_none_or(there)
    }
}

impl Places {
    fn insert(&mut self, key: Key, held: Held) {
        if self.slices.len() >= self.swept_at.max(FEW) {
            self.slices.retain(|_, held| held.is_there());
            self.swept_at = self.slices.len().saturating_mul(2);
        }
        self.slices.insert(key, held);
    }
}

impl Pool {
    fn slice(&mut self, contents: Contents) -> Arc<Slice> {
        let generation = self.generation;
        if let Some((used, slice)) = self.slices.get_mut(&contents) {
            *used = generation;
            return Arc::clone(slice);
        }
        let slice = Arc::new(Slice::build(contents.clone()));
        self.slices
            .insert(contents, (generation, Arc::clone(&slice)));
        slice
    }

    /// One more set draws from here: what nobody has had for long is forgotten.
    fn next(&mut self) {
        self.generation = self.generation.saturating_add(1);
        let since = self.generation.saturating_sub(GENERATIONS);
        self.slices
            .retain(|_, (used, slice)| *used >= since || Arc::strong_count(slice) > 1);
    }
}
