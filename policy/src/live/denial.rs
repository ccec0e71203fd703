//! What a change takes out of DENY rules, workload by workload.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::effect::{Changed, listed};
use crate::attachment::EnforcementPoint;
use crate::diagnostic::{Diagnostic, Location, code};
use crate::lint::shadow::covers;
use crate::policy_set::{Piece, Policy, PolicySet};
use crate::resource::{Action, RuleSpec};
use crate::user::UserPolicy;

/// Rules named in a diagnostic; the rest is counted.
const NAMED: usize = 3;
/// Sources times operations of a rule beyond which they are not looked at one by one.
const PARTS: usize = 64;

/// The rules of DENY policies that no DENY rule covers any more, and where.
#[derive(Debug)]
pub(super) struct Denials<'c> {
    /// What denied before, part by part.
    parts: Vec<Part<'c>>,
    forbids: Vec<&'c Arc<UserPolicy>>,
    /// Whether a policy, by its address, covers a part: the same everywhere.
    known: FxHashMap<(usize, *const Policy), bool>,
    lost: BTreeMap<String, BTreeSet<String>>,
}

/// One source of a rule with one of its operations.
#[derive(Debug)]
struct Part<'c> {
    policy: &'c Policy,
    rule: Arc<str>,
    spec: RuleSpec,
}

impl<'c> Denials<'c> {
    /// What the change replaces; `None` where that denies nothing.
    pub(super) fn of(changed: &Changed<'c>) -> Option<Self> {
        let before = changed.before.iter().copied();
        let users = before.clone().flat_map(|piece| &piece.user);
        let denials = Self {
            parts: before.flat_map(parts).collect(),
            forbids: users.filter(|user| forbids(user)).collect(),
            known: FxHashMap::default(),
            lost: BTreeMap::new(),
        };
        (!denials.parts.is_empty() || !denials.forbids.is_empty()).then_some(denials)
    }

    /// Looks at one place, which shows as `name`.
    pub(super) fn look(
        &mut self,
        point: &EnforcementPoint<'_>,
        after: &PolicySet,
        name: impl Fn() -> String,
    ) {
        let policies = after.policies_at(point);
        // Nothing is let in there in any case.
        if !after.closings_at(point).is_empty() || allows_nothing(&policies, after, point) {
            return;
        }
        let mut lost: BTreeSet<Arc<str>> = BTreeSet::new();
        for (number, part) in self.parts.iter().enumerate() {
            if lost.contains(&part.rule) || !part.policy.attaches(point) {
                continue;
            }
            let mut left = policies.iter().filter(|policy| denies(policy));
            let is_covered = left.any(|policy| {
                let key = (number, Arc::as_ptr(policy));
                let known = self.known.entry(key);
                *known.or_insert_with(|| rules(policy).any(|(_, wide)| covers(wide, &part.spec)))
            });
            if !is_covered {
                lost.insert(Arc::clone(&part.rule));
            }
        }
        for user in self.forbids.iter().filter(|user| user.selects(point)) {
            let mut left = after.all_user_policies();
            let is_there = left.any(|other| {
                let same = other.rule.id == user.rule.id || other.text == user.text;
                same && forbids(other) && other.selects(point)
            });
            if !is_there {
                lost.insert(user.rule.id.to_string().into());
            }
        }
        for rule in lost {
            let places = self.lost.entry(rule.to_string()).or_default();
            places.insert(name());
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

/// The rules of a DENY policy in force, each source of them with each operation.
fn parts(piece: &Piece) -> Vec<Part<'_>> {
    let Some(policy) = piece.policy.as_deref().filter(|policy| denies(policy)) else {
        return Vec::new();
    };
    let rules = rules(policy).flat_map(|(name, rule)| {
        let name: Arc<str> = name.into();
        let specs = each(rule).into_iter();
        specs.map(move |spec| Part {
            policy,
            rule: Arc::clone(&name),
            spec,
        })
    });
    rules.collect()
}

/// A rule matches what one of these matches.
fn each(rule: &RuleSpec) -> Vec<RuleSpec> {
    let (from, to) = (rule.from.chunks(1), rule.to.chunks(1));
    if from.len().max(1).saturating_mul(to.len().max(1)) > PARTS {
        return vec![rule.clone()];
    }
    // Without sources, or operations, it is about all of them.
    let from: Vec<_> = match rule.from.is_empty() {
        true => vec![&[][..]],
        false => from.collect(),
    };
    let to: Vec<_> = match rule.to.is_empty() {
        true => vec![&[][..]],
        false => to.collect(),
    };
    let pairs = from
        .iter()
        .flat_map(|from| to.iter().map(move |to| (from, to)));
    let specs = pairs.map(|(from, to)| RuleSpec {
        at: rule.at.clone(),
        from: from.to_vec(),
        to: to.to_vec(),
        when: rule.when.clone(),
    });
    specs.collect()
}

fn denies(policy: &Policy) -> bool {
    policy.action() == Action::Deny && !policy.dry_run()
}

/// The rules of a policy, as decisions name them.
fn rules(policy: &Policy) -> impl Iterator<Item = (String, &RuleSpec)> {
    policy.manifest().into_iter().flat_map(|manifest| {
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
fn allows_nothing(policies: &[Arc<Policy>], set: &PolicySet, point: &EnforcementPoint<'_>) -> bool {
    let mut allows = policies
        .iter()
        .filter(|policy| policy.action() == Action::Allow && !policy.dry_run())
        .peekable();
    let mut user = set.all_user_policies();
    allows.peek().is_some()
        && !allows.any(|policy| rules(policy).next().is_some())
        && !user.any(|u| u.is_permit() && !u.rule.dry_run && u.selects(point))
}
