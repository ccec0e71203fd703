//! What a change takes out of DENY rules, workload by workload.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::effect::{Changed, listed};
use crate::attachment::EnforcementPoint;
use crate::diagnostic::{Diagnostic, Location, code};
use crate::lint::shadow::covers;
use crate::policy_set::{Piece, PolicySet};
use crate::resource::{Action, RuleSpec};
use crate::user::UserPolicy;

/// Rules named in a diagnostic; the rest is counted.
const NAMED: usize = 3;
/// Sources times operations of a rule beyond which they are not looked at one by one.
const PARTS: usize = 64;

/// The rules of DENY policies that no DENY rule covers any more, and where.
#[derive(Debug, Default)]
pub(super) struct Denials {
    lost: BTreeMap<String, BTreeSet<String>>,
}

impl Denials {
    /// True where the change can take nothing away: what it replaces denies nothing.
    pub(super) fn are_untouched(changed: &Changed<'_>) -> bool {
        !changed
            .before
            .iter()
            .any(|piece| rules(piece).next().is_some() || piece.user.iter().any(forbids))
    }

    /// Looks at one place, which shows as `name`.
    pub(super) fn look(
        &mut self,
        changed: &Changed<'_>,
        point: &EnforcementPoint<'_>,
        after: &PolicySet,
        name: impl Fn() -> String,
    ) {
        // Nothing is let in there in any case.
        if !after.closings_at(point).is_empty() || allows_nothing(after, point) {
            return;
        }
        let mut lost: Vec<String> = Vec::new();
        for piece in &changed.before {
            if piece.policy.as_ref().is_some_and(|p| p.attaches(point)) {
                let policies = after.policies_at(point);
                let left: Vec<&RuleSpec> = policies
                    .iter()
                    .filter(|policy| policy.action() == Action::Deny && !policy.dry_run())
                    .filter_map(|policy| policy.manifest()?.rules.as_ref())
                    .flatten()
                    .filter_map(|rule| rule.value.as_ref())
                    .collect();
                let gone = rules(piece).filter(|(_, rule)| !is_covered(rule, &left));
                lost.extend(gone.map(|(name, _)| name));
            }
            for user in piece.user.iter().filter(|user| forbids(user)) {
                let is_there = || {
                    let mut left = after.all_user_policies();
                    left.any(|other| {
                        let same = other.rule.id == user.rule.id || other.text == user.text;
                        same && forbids(other) && other.selects(point)
                    })
                };
                if user.selects(point) && !is_there() {
                    lost.push(user.rule.id.to_string());
                }
            }
        }
        for rule in lost {
            self.lost.entry(rule).or_default().insert(name());
        }
    }

    /// What there is to say.
    pub(super) fn told(self, changed: &Changed<'_>) -> Option<Diagnostic> {
        let rules: Vec<String> = self.lost.keys().map(|rule| format!("`{rule}`")).collect();
        let workloads: BTreeSet<String> = self.lost.into_values().flatten().collect();
        let (first, more) = rules.split_at(rules.len().min(NAMED));
        let first = first.join(", ");
        let rules = match (rules.is_empty(), more.len()) {
            (true, _) => return None,
            (false, 0) => first,
            (false, more) => format!("{first} and {more} more"),
        };
        let at = Location {
            file: changed.key.file(),
            ..Location::default()
        };
        let message = format!(
            "what {rules} denied is denied by no rule any more, for {}",
            listed(&workloads)
        );
        let hint = "whoever an ALLOW policy lets in there, everybody where there is none, gets that from now on: if it is \
                    not meant, keep the rule";
        let resource = changed.key.resource();
        let found = code::UNDENIES.at(at, message);
        Some(found.with_resource(resource).with_hint(hint))
    }
}

/// The rules of a DENY policy in force, as decisions name them.
fn rules(piece: &Piece) -> impl Iterator<Item = (String, &RuleSpec)> {
    let policy = piece.policy.as_ref().filter(|policy| !policy.dry_run());
    let manifest = policy.and_then(|policy| policy.manifest());
    let manifest = manifest.filter(|manifest| manifest.action == Action::Deny);
    manifest.into_iter().flat_map(|manifest| {
        let rules = manifest.rules.iter().flatten().enumerate();
        rules.filter_map(|(index, rule)| {
            let (namespace, name) = (&manifest.meta.namespace, &manifest.meta.name);
            let rule = rule.value.as_ref()?;
            Some((format!("{namespace}/{name}#rule[{index}]"), rule))
        })
    })
}

fn forbids(user: &Arc<UserPolicy>) -> bool {
    !user.is_permit() && !user.rule.dry_run
}

/// True where ALLOW policies are in force, and none of them has a rule.
fn allows_nothing(set: &PolicySet, point: &EnforcementPoint<'_>) -> bool {
    let policies = set.policies_at(point);
    let mut allows = policies
        .iter()
        .filter(|policy| policy.action() == Action::Allow && !policy.dry_run())
        .filter_map(|policy| policy.manifest())
        .peekable();
    let mut user = set.all_user_policies();
    allows.peek().is_some()
        && !allows.any(|manifest| manifest.rules.as_ref().is_some_and(|r| !r.is_empty()))
        && !user.any(|u| u.is_permit() && !u.rule.dry_run && u.selects(point))
}

/// True when rules of `left` together match all that `rule` matches, as far as their words tell: each of its sources
/// with each of its operations is covered by one of them.
fn is_covered(rule: &RuleSpec, left: &[&RuleSpec]) -> bool {
    let by_one = |rule: &RuleSpec| left.iter().any(|wide| covers(wide, rule));
    if by_one(rule) {
        return true;
    }
    let parts = rule.from.len().max(1) * rule.to.len().max(1);
    if parts == 1 || parts > PARTS {
        return false;
    }
    let each = |count: usize| (0..count.max(1)).map(move |n| (count > 0).then_some(n));
    each(rule.from.len()).all(|from| {
        each(rule.to.len()).all(|to| {
            by_one(&RuleSpec {
                at: rule.at.clone(),
                from: from
                    .and_then(|n| rule.from.get(n))
                    .cloned()
                    .into_iter()
                    .collect(),
                to: to
                    .and_then(|n| rule.to.get(n))
                    .cloned()
                    .into_iter()
                    .collect(),
                when: rule.when.clone(),
            })
        })
    })
}
