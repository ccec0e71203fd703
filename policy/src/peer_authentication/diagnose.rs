//! What the author of a PeerAuthentication should know: that it is ignored, or opens more than it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::{PeerAuthentications, SetBy, is_namespace_wide, policy_of, selects};
use crate::diagnostic::{Diagnostic, code};
use crate::inventory::Inventory;
use crate::resource::{Metadata, PeerAuthentication, Resource, Workload};

/// Label that puts a namespace or workload into the ambient mesh, that is behind ztunnel.
const DATAPLANE_MODE_LABEL: &str = "istio.io/dataplane-mode";

impl PeerAuthentications {
    /// Warnings about policies that are ignored, for good or for some workload of `inventory`, and
    /// about ambient workloads that ztunnel leaves open. `resources` tells which namespaces are
    /// ambient.
    #[must_use]
    pub fn diagnose(&self, inventory: &Inventory, resources: &[Arc<Resource>]) -> Vec<Diagnostic> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut crowded = FxHashSet::default();
        for (namespace, policies) in &self.by_namespace {
            let policies = || policies.iter().filter_map(policy_of);
            let mut whole = policies().filter(|policy| is_namespace_wide(policy));
            if let Some(oldest) = whole.next() {
                found.extend(whole.map(|policy| ignored(policy, oldest, "")));
            }
            let mut selecting = policies().filter(|policy| !is_namespace_wide(policy));
            if *namespace == self.root_namespace {
                found.extend(selecting.map(ignored_in_root));
            } else if selecting.nth(1).is_some() {
                crowded.insert(namespace.as_str());
            }
        }
        let ambient = Ambient::build(resources);
        let mut told = FxHashSet::default();
        let mut workloads: Vec<_> = inventory.workloads().collect();
        workloads.sort_by_key(|(id, _)| inventory.order(*id));
        for (_, workload) in workloads {
            if crowded.contains(workload.namespace.as_str()) {
                let mut chosen = self
                    .of_namespace(&workload.namespace)
                    .filter(|policy| !is_namespace_wide(policy) && selects(policy, workload));
                if let Some(oldest) = chosen.next() {
                    for policy in chosen {
                        if told.insert((code::OLDER_POLICY.id, name(&policy.meta))) {
                            let of = format!(" for `{}/{}`", workload.namespace, workload.name);
                            found.push(ignored(policy, oldest, &of));
                        }
                    }
                }
            }
            if let Some(SetBy::Policy { policy, field, at }) = self.dangling(workload)
                && ambient.holds(workload)
                && told.insert((code::OPEN_IN_AMBIENT.id, policy.clone()))
            {
                let message = format!(
                    "ztunnel demands no identity on any port of `{}/{}`",
                    workload.namespace, workload.name
                );
                let hint = "set the mode of this policy, and of the namespace, to what the ports \
                            should fall back to";
                found.push(
                    code::OPEN_IN_AMBIENT
                        .at(at, message)
                        .with_resource(format!("PeerAuthentication/{policy}"))
                        .with_field(field)
                        .with_hint(hint),
                );
            }
        }
        found.sort_by(|a, b| (&a.location, a.code).cmp(&(&b.location, b.code)));
        found
    }
}

fn name(meta: &Metadata) -> String {
    format!("{}/{}", meta.namespace, meta.name)
}

fn ignored(policy: &PeerAuthentication, oldest: &PeerAuthentication, of: &str) -> Diagnostic {
    let message = format!(
        "ignored{of}: `{}` is older or comes first",
        name(&oldest.meta)
    );
    code::OLDER_POLICY
        .at(policy.meta.at.clone(), message)
        .with_resource(format!("PeerAuthentication/{}", name(&policy.meta)))
        .with_hint("merge the two into one policy")
}

fn ignored_in_root(policy: &PeerAuthentication) -> Diagnostic {
    let at = policy
        .selector
        .as_ref()
        .map_or(&policy.meta.at, |selector| &selector.at);
    code::SELECTOR_IN_ROOT
        .at(
            at.clone(),
            "ignored: a selector in the root namespace selects no workload",
        )
        .with_resource(format!("PeerAuthentication/{}", name(&policy.meta)))
        .with_field("spec.selector")
        .with_hint("move it to the namespace of its workloads, or remove the selector")
}

/// Which workloads are behind ztunnel.
struct Ambient<'a> {
    namespaces: FxHashSet<&'a str>,
}

impl<'a> Ambient<'a> {
    fn build(resources: &'a [Arc<Resource>]) -> Self {
        let namespaces = resources
            .iter()
            .filter_map(|resource| match resource.as_ref() {
                Resource::Namespace(meta) if mode(&meta.labels) == Some("ambient") => {
                    Some(meta.name.as_str())
                }
                _ => None,
            });
        Self {
            namespaces: namespaces.collect(),
        }
    }

    fn holds(&self, workload: &Workload) -> bool {
        match mode(&workload.labels) {
            Some(mode) => mode == "ambient",
            None => self.namespaces.contains(workload.namespace.as_str()),
        }
    }
}

fn mode(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels.get(DATAPLANE_MODE_LABEL).map(String::as_str)
}
