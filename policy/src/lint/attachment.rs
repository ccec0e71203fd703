//! Selectors and targets that reach nothing.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::about;
use crate::diagnostic::{Diagnostic, code};
use crate::resource::{Metadata, Resource, Selector, TargetRef, Workload};

/// Reports policies that attach to nothing in the set.
pub(super) fn check(
    resources: &[Arc<Resource>],
    root_namespace: &str,
    found: &mut Vec<Diagnostic>,
) {
    let selecting = resources.iter().filter(|r| has_selector(r)).count();
    let workloads = Workloads::build(resources, selecting);
    let targets = Targets::build(resources);
    for resource in resources {
        let (kind, meta, selector, target_refs): (_, &Metadata, _, &[TargetRef]) =
            match resource.as_ref() {
                Resource::AuthorizationPolicy(p) => {
                    ("AuthorizationPolicy", &p.meta, &p.selector, &p.target_refs)
                }
                Resource::RequestAuthentication(p) => (
                    "RequestAuthentication",
                    &p.meta,
                    &p.selector,
                    &p.target_refs,
                ),
                Resource::CedarPolicy(p) => ("CedarPolicy", &p.meta, &p.selector, &p.target_refs),
                // One with a selector in the root namespace is ignored, which is said elsewhere.
                Resource::PeerAuthentication(p) if p.meta.namespace != root_namespace => {
                    ("PeerAuthentication", &p.meta, &p.selector, &[])
                }
                _ => continue,
            };
        let policy = (kind, meta);
        if let Some(selector) = selector.as_ref().filter(|s| !s.match_labels.is_empty()) {
            let everywhere = meta.namespace == root_namespace;
            if !workloads.any(selector, (!everywhere).then_some(&meta.namespace)) {
                let place = if everywhere {
                    "the mesh".to_owned()
                } else {
                    format!("namespace `{}`", meta.namespace)
                };
                found.push(about(
                    &code::SELECTS_NOTHING,
                    &selector.at,
                    policy,
                    "spec.selector",
                    format!("no workload of {place} in this set has these labels"),
                    "compare with the labels of the pod template, not of the Deployment",
                ));
            }
        }
        for (index, target) in target_refs.iter().enumerate() {
            let field = format!("spec.targetRefs[{index}]");
            if target.kind == "GatewayClass" && meta.namespace != root_namespace {
                found.push(about(
                    &code::CLASS_OUTSIDE_ROOT,
                    &target.at,
                    policy,
                    field,
                    "a GatewayClass is a target for policies of the root namespace only",
                    format!("move the policy to `{root_namespace}`, or target a Gateway"),
                ));
            } else if targets.is_missing(target, &meta.namespace) {
                found.push(about(
                    &code::TARGET_NOT_FOUND,
                    &target.at,
                    policy,
                    field,
                    format!(
                        "no {} `{}` in namespace `{}` of this set",
                        target.kind, target.name, meta.namespace
                    ),
                    "a target lives in the policy's own namespace: check its name",
                ));
            }
        }
    }
}

fn has_selector(resource: &Resource) -> bool {
    match resource {
        Resource::AuthorizationPolicy(p) => p.selector.is_some(),
        Resource::RequestAuthentication(p) => p.selector.is_some(),
        Resource::CedarPolicy(p) => p.selector.is_some(),
        Resource::PeerAuthentication(p) => p.selector.is_some(),
        _ => false,
    }
}

/// For this many selectors it is faster to look through the workloads than to index them.
const FEW: usize = 8;

/// Workloads by namespace and label.
struct Workloads<'a> {
    present: bool,
    /// All of them, where they are not indexed.
    few: Option<Vec<&'a Workload>>,
    by_label: FxHashMap<(&'a str, &'a str), Vec<&'a Workload>>,
    by_namespace: FxHashMap<(&'a str, &'a str, &'a str), Vec<&'a Workload>>,
}

impl<'a> Workloads<'a> {
    fn build(resources: &'a [Arc<Resource>], selecting: usize) -> Self {
        let mut workloads = Self {
            present: false,
            few: (selecting <= FEW).then(Vec::new),
            by_label: FxHashMap::default(),
            by_namespace: FxHashMap::default(),
        };
        for resource in resources {
            let Resource::Workload(workload) = resource.as_ref() else {
                continue;
            };
            workloads.present = true;
            if let Some(few) = &mut workloads.few {
                few.push(workload);
                continue;
            }
            for (key, value) in &workload.labels {
                workloads
                    .by_label
                    .entry((key, value))
                    .or_default()
                    .push(workload);
                workloads
                    .by_namespace
                    .entry((&workload.namespace, key, value))
                    .or_default()
                    .push(workload);
            }
        }
        workloads
    }

    /// Whether anything is selected, in `namespace` or anywhere; true where there is no inventory.
    fn any(&self, selector: &Selector, namespace: Option<&String>) -> bool {
        if !self.present {
            return true;
        }
        if let Some(few) = &self.few {
            return few.iter().any(|workload| {
                let here = namespace.is_none_or(|n| *n == workload.namespace);
                let mut labels = selector.match_labels.iter();
                here && labels.all(|(key, value)| workload.labels.get(key) == Some(value))
            });
        }
        // The rarest label leaves the fewest to look at.
        let mut rarest: Option<&[&Workload]> = None;
        for (key, value) in &selector.match_labels {
            let with = match namespace {
                Some(namespace) => {
                    self.by_namespace
                        .get(&(namespace.as_str(), key.as_str(), value.as_str()))
                }
                None => self.by_label.get(&(key.as_str(), value.as_str())),
            };
            let with = with.map_or(&[][..], Vec::as_slice);
            if rarest.is_none_or(|fewest| with.len() < fewest.len()) {
                rarest = Some(with);
            }
        }
        rarest.unwrap_or_default().iter().any(|workload| {
            selector
                .match_labels
                .iter()
                .all(|(key, value)| workload.labels.get(key) == Some(value))
        })
    }
}

/// Objects that targets can name, by kind, namespace and name.
#[derive(Default)]
struct Targets<'a> {
    kinds: Vec<&'static str>,
    objects: rustc_hash::FxHashSet<(&'static str, &'a str, &'a str)>,
}

impl<'a> Targets<'a> {
    fn build(resources: &'a [Arc<Resource>]) -> Self {
        let mut targets = Self::default();
        for resource in resources {
            let (kind, meta) = match resource.as_ref() {
                Resource::Service(service) => ("Service", &service.meta),
                Resource::ServiceEntry(entry) => ("ServiceEntry", &entry.meta),
                Resource::Gateway(gateway) => ("Gateway", &gateway.meta),
                Resource::GatewayClass(class) => ("GatewayClass", &class.meta),
                _ => continue,
            };
            if !targets.kinds.contains(&kind) {
                targets.kinds.push(kind);
            }
            targets.objects.insert((kind, &meta.namespace, &meta.name));
        }
        targets
    }

    fn is_missing(&self, target: &TargetRef, namespace: &str) -> bool {
        let Some(kind) = self.kinds.iter().find(|kind| **kind == target.kind) else {
            return false;
        };
        let namespace = if *kind == "GatewayClass" {
            ""
        } else {
            namespace
        };
        !self
            .objects
            .contains(&(*kind, namespace, target.name.as_str()))
    }
}
