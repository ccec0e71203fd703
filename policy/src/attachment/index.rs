//! Ten thousand policies, a thousand workloads: which apply where, without asking each for each.

use rustc_hash::FxHashMap;

use super::{EnforcementPoint, Referent, Scope, WAYPOINT_CLASS, attaches};
use crate::inventory::GATEWAY_NAME_LABEL;

/// Policies in buckets by namespace and by one label pair or target reference each.
///
/// A bucket may hold policies that do not apply, never miss one that does; [`Index::attached`] asks
/// [`attaches`] for every candidate.
#[derive(Debug, Default)]
pub struct Index<'a> {
    scopes: Vec<Scope<'a>>,
    namespaces: FxHashMap<&'a str, Buckets<'a>>,
}

#[derive(Debug, Default)]
struct Buckets<'a> {
    /// Without targetRefs, selecting everything.
    unselective: Vec<u32>,
    /// Without targetRefs, under the rarest pair of the selector.
    by_label: FxHashMap<(&'a str, &'a str), Vec<u32>>,
    /// With targetRefs, under each of them.
    by_referent: FxHashMap<(Referent, &'a str), Vec<u32>>,
}

impl<'a> Index<'a> {
    /// Sorts policies into their buckets. [`Index::attached`] names them by their place here.
    #[must_use]
    pub fn build(policies: impl IntoIterator<Item = Scope<'a>>) -> Self {
        let scopes: Vec<Scope<'a>> = policies.into_iter().collect();
        let mut frequency: FxHashMap<(&str, &str, &str), u32> = FxHashMap::default();
        for scope in &scopes {
            for (label, value) in pairs(scope) {
                *frequency
                    .entry((scope.namespace, label, value))
                    .or_default() += 1;
            }
        }
        let mut namespaces: FxHashMap<&'a str, Buckets<'a>> = FxHashMap::default();
        for (scope, place) in scopes.iter().zip(0u32..) {
            let buckets = namespaces.entry(scope.namespace).or_default();
            if scope.target_refs.is_empty() {
                let rarest = pairs(scope)
                    .min_by_key(|(label, value)| frequency.get(&(scope.namespace, *label, *value)));
                match rarest {
                    None => buckets.unselective.push(place),
                    Some(pair) => buckets.by_label.entry(pair).or_default().push(place),
                }
            } else {
                for target in scope.target_refs {
                    if let Some(referent) = Referent::of(target) {
                        let bucket = buckets.by_referent.entry((referent, target.name.as_str()));
                        bucket.or_default().push(place);
                    }
                }
            }
        }
        Self { scopes, namespaces }
    }

    /// Places of the policies that apply at `point`, ascending, each once.
    #[must_use]
    pub fn attached(&self, point: &EnforcementPoint<'_>) -> Vec<u32> {
        let mut places = Vec::new();
        for namespace in point.namespaces() {
            let Some(buckets) = self.namespaces.get(namespace) else {
                continue;
            };
            if point.uses_selectors() {
                places.extend(&buckets.unselective);
                for (label, value) in &point.workload.labels {
                    let pair = (label.as_str(), value.as_str());
                    places.extend(buckets.by_label.get(&pair).into_iter().flatten());
                }
            }
            if point.uses_target_refs() && !buckets.by_referent.is_empty() {
                for referent in referents(point) {
                    places.extend(buckets.by_referent.get(&referent).into_iter().flatten());
                }
            }
        }
        places.sort_unstable();
        places.dedup();
        places.retain(|place| {
            self.scopes
                .get(*place as usize)
                .is_some_and(|scope| attaches(scope, point))
        });
        places
    }
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
