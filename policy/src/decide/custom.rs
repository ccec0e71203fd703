//! CUSTOM rules: who is to be asked, and what becomes of a rule whose provider cannot be.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Located, Satisfied, Trial, facts, identity_views, locate, paths, view};
use crate::facts::{Facts, peer};
use crate::model::{Role, Rule};
use crate::request::Request;
use crate::settings::CustomProvider;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// What is done about a provider whose rule matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Somebody else asks it, or we are off-line.
    Reported,
    /// The service in front of the engine asks it, and has not.
    Ask,
    /// It was asked and let the request pass.
    Allowed,
    /// The service asked whoever had to be, and this provider was not among them: its rule did not
    /// match the request as it was then.
    NotTriggered,
    /// It cannot be asked.
    Unavailable,
}

/// A provider whose CUSTOM rules match a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomMatch {
    /// Its name.
    pub provider: Arc<str>,
    /// The rules that matched, `namespace/name#rule[i]`.
    pub policies: Vec<String>,
    /// What is done about it.
    pub way: Way,
}

/// The providers whose rules match the request, in name order; none where the request is refused
/// before any of them, so that [`decide`](super::decide) denies it.
pub fn matching(snapshot: &Snapshot, worker: &mut Worker, request: &Request) -> Vec<CustomMatch> {
    let Ok(located) = locate(snapshot, worker, request) else {
        return Vec::new();
    };
    let custom = |rule: &&Arc<Rule>| matches!(rule.role, Role::Custom(_)) && !rule.dry_run;
    let closed = !located.slice.closed_by.is_empty();
    if closed || !located.slice.rules.iter().any(|rule| custom(&rule)) {
        return Vec::new();
    }
    let request = &*peer::seen(located.resolved.target, request);
    let Ok(paths) = paths(snapshot, request, located.dialect) else {
        return Vec::new();
    };
    let mut found: Vec<CustomMatch> = Vec::new();
    for identities in identity_views(&located, request.destination.port) {
        for path in &paths {
            let view = view(request, &located, identities);
            let facts = facts(request, located.dialect, path.clone(), view);
            let (_, mtls) = located.slice.mtls(request.destination.port);
            if mtls.is_some_and(|rule| facts.rule(rule)) {
                return Vec::new();
            }
            for rule in located.slice.rules.iter().filter(custom) {
                let Role::Custom(name) = &rule.role else {
                    continue;
                };
                if !facts.rule(rule) {
                    continue;
                }
                let id = rule.id.to_string();
                match found.iter_mut().find(|m| m.provider == *name) {
                    Some(known) if known.policies.contains(&id) => {}
                    Some(known) => known.policies.push(id),
                    None => found.push(CustomMatch {
                        provider: Arc::clone(name),
                        policies: vec![id],
                        way: way(snapshot, name, None),
                    }),
                }
            }
        }
    }
    found.sort_by(|a, b| a.provider.cmp(&b.provider));
    found
}

/// Providers of the CUSTOM rules that are satisfied, in name order.
pub(super) fn names(satisfied: &Satisfied<'_>, trial: Trial) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = satisfied
        .of(trial)
        .filter_map(|rule| match &rule.role {
            Role::Custom(name) => Some(Arc::clone(name)),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// True when a CUSTOM rule in force matches whose provider cannot be asked. Native alone: for the
/// reference, which has no other way to speak of providers.
#[must_use]
pub fn unavailable(snapshot: &Snapshot, located: &Located, facts: &Facts<'_>) -> bool {
    located.slice.rules.iter().any(|rule| match &rule.role {
        Role::Custom(name) => {
            !rule.dry_run
                && matches!(way(snapshot, name, None), Way::Unavailable | Way::Ask)
                && facts.rule(rule)
        }
        _ => false,
    })
}

/// What is done about a provider, `asked` being those that were asked and allowed.
pub(super) fn way(snapshot: &Snapshot, name: &str, asked: Option<&BTreeSet<String>>) -> Way {
    let known = snapshot
        .mesh()
        .extension_providers
        .iter()
        .find(|p| p.name == name);
    if known.is_none_or(|p| p.ext_authz.is_none()) {
        return Way::Unavailable;
    }
    match (snapshot.custom_provider(name), asked) {
        (Some(CustomProvider::Own | CustomProvider::Proxy), _) => Way::Reported,
        (Some(CustomProvider::Call), Some(asked)) if asked.contains(name) => Way::Allowed,
        (Some(CustomProvider::Call), Some(_)) => Way::NotTriggered,
        (Some(CustomProvider::Call), None) if snapshot.serving() => Way::Ask,
        (None, _) if snapshot.serving() => Way::Unavailable,
        (Some(CustomProvider::Call) | None, _) => Way::Reported,
    }
}
