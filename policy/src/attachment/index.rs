//! Ten thousand policies, a thousand workloads: which apply where, without asking each for each.

use std::hash::BuildHasher;
use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::{EnforcementPoint, Referent, Scope, WAYPOINT_CLASS, attaches};
use crate::inventory::GATEWAY_NAME_LABEL;

/// What applies where its scope says.
pub trait Attached {
    /// Where; `None`: nowhere.
    fn scope(&self) -> Option<Scope<'_>>;
}

impl Attached for Scope<'_> {
    fn scope(&self) -> Option<Scope<'_>> {
        Some(*self)
    }
}

/// Policies in buckets by namespace and by one label pair or target reference each.
///
/// A bucket may hold policies that do not apply, never miss one that does; [`Index::attached`] asks
/// [`attaches`] for every candidate. A copy shares every namespace that does not change.
#[derive(Clone, Debug)]
pub struct Index<T> {
    namespaces: FxHashMap<Arc<str>, Arc<Buckets<T>>>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            namespaces: FxHashMap::default(),
        }
    }
}

#[derive(Debug)]
struct Buckets<T> {
    policies: Vec<T>,
    /// Without targetRefs, selecting everything.
    unselective: Vec<u32>,
    /// Without targetRefs, under the rarest pair of the selector, by its hash.
    by_label: FxHashMap<u64, Vec<u32>>,
    /// With targetRefs, under each of them, by its hash.
    by_referent: FxHashMap<u64, Vec<u32>>,
}

impl<T: Attached + Clone> Index<T> {
    /// Sorts policies into their buckets.
    #[must_use]
    pub fn build(policies: impl IntoIterator<Item = T>) -> Self {
        let mut namespaces: FxHashMap<Arc<str>, Vec<T>> = FxHashMap::default();
        for policy in policies {
            let Some(scope) = policy.scope() else {
                continue;
            };
            if let Some(of_namespace) = namespaces.get_mut(scope.namespace) {
                of_namespace.push(policy);
            } else {
                namespaces.insert(Arc::from(scope.namespace), vec![policy]);
            }
        }
        let buckets = namespaces
            .into_iter()
            .map(|(namespace, policies)| (namespace, Arc::new(Buckets::build(policies))));
        Self {
            namespaces: buckets.collect(),
        }
    }

    /// Makes the buckets of one namespace anew, of those of `policies` that are its own.
    pub(crate) fn replace(&mut self, namespace: &str, policies: &[T]) {
        let own = |policy: &&T| policy.scope().is_some_and(|s| s.namespace == namespace);
        let policies: Vec<T> = policies.iter().filter(own).cloned().collect();
        if policies.is_empty() {
            self.namespaces.remove(namespace);
        } else {
            let buckets = Arc::new(Buckets::build(policies));
            self.namespaces.insert(Arc::from(namespace), buckets);
        }
    }

    /// The policies that apply at `point`, each once: namespace by namespace, in the order in which
    /// they came.
    #[must_use]
    pub fn attached(&self, point: &EnforcementPoint<'_>) -> Vec<&T> {
        let mut found = Vec::new();
        for namespace in point.namespaces() {
            let Some(buckets) = self.namespaces.get(namespace) else {
                continue;
            };
            let mut places = buckets.candidates(point);
            places.sort_unstable();
            places.dedup();
            let policies = places
                .into_iter()
                .filter_map(|place| buckets.policies.get(place as usize));
            found.extend(policies.filter(|policy| {
                let scope = policy.scope();
                scope.is_some_and(|scope| attaches(&scope, point))
            }));
        }
        found
    }
}

impl<T: Attached> Buckets<T> {
    fn build(policies: Vec<T>) -> Self {
        let mut frequency: FxHashMap<(&str, &str), u32> = FxHashMap::default();
        let scopes = || policies.iter().filter_map(T::scope);
        for pair in scopes().flat_map(|scope| pairs(&scope)) {
            *frequency.entry(pair).or_default() += 1;
        }
        let mut unselective = Vec::new();
        let mut by_label: FxHashMap<u64, Vec<u32>> = FxHashMap::default();
        let mut by_referent: FxHashMap<u64, Vec<u32>> = FxHashMap::default();
        for (policy, place) in policies.iter().zip(0u32..) {
            let Some(scope) = policy.scope() else {
                continue;
            };
            if scope.target_refs.is_empty() {
                let rarest = pairs(&scope).min_by_key(|pair| frequency.get(pair));
                match rarest {
                    None => unselective.push(place),
                    Some(pair) => by_label.entry(hash(pair)).or_default().push(place),
                }
            } else {
                for target in scope.target_refs {
                    if let Some(referent) = Referent::of(target) {
                        let bucket = by_referent.entry(hash((referent, target.name.as_str())));
                        bucket.or_default().push(place);
                    }
                }
            }
        }
        drop(frequency);
        Self {
            policies,
            unselective,
            by_label,
            by_referent,
        }
    }

    fn candidates(&self, point: &EnforcementPoint<'_>) -> Vec<u32> {
        let mut places = Vec::new();
        if point.uses_selectors() {
            places.extend(&self.unselective);
            for (label, value) in &point.workload.labels {
                let pair = hash((label.as_str(), value.as_str()));
                places.extend(self.by_label.get(&pair).into_iter().flatten());
            }
        }
        if point.uses_target_refs() && !self.by_referent.is_empty() {
            for referent in referents(point) {
                let bucket = self.by_referent.get(&hash(referent));
                places.extend(bucket.into_iter().flatten());
            }
        }
        places
    }
}

fn hash(value: impl std::hash::Hash) -> u64 {
    FxBuildHasher.hash_one(value)
}

fn pairs<'a>(scope: &Scope<'a>) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    scope
        .selector
        .into_iter()
        .flat_map(|selector| &selector.match_labels)
        .map(|(label, value)| (label.as_str(), value.as_str()))
}

/// Every object whose name in a targetRef could mean this point.
fn referents<'a>(
    point: &EnforcementPoint<'a>,
) -> impl Iterator<Item = (Referent, &'a str)> + use<'a> {
    let gateway = point.workload.labels.get(GATEWAY_NAME_LABEL);
    let service = point.waypoint_service();
    [
        gateway.map(|name| (Referent::Gateway, name.as_str())),
        service.map(|service| (Referent::Service(service.kind), service.name)),
        Some((Referent::GatewayClass, WAYPOINT_CLASS)),
    ]
    .into_iter()
    .flatten()
}
