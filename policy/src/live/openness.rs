//! How open a place is, as far as rules without conditions tell.

use crate::attachment::EnforcementPoint;
use crate::policy_set::{Policy, PolicySet};
use crate::resource::Action;

/// What policies in force make of the requests to one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Openness {
    /// All is allowed that is not denied: no ALLOW policy selects the place, or one allows everything.
    Open,
    /// What no ALLOW policy allows is denied.
    Limited,
    /// A DENY rule without conditions stops everything.
    Shut,
}

impl Openness {
    pub(super) fn of(set: &PolicySet, point: &EnforcementPoint<'_>) -> Self {
        let all = set.policies_at(point);
        let in_force = |action| {
            let of_action = all.iter().filter(move |p| p.action() == action);
            of_action.filter(|p| !p.dry_run())
        };
        let user = |permit| {
            let user = set.all_user_policies();
            let of_effect = user.filter(move |u: &&_| u.is_permit() == permit);
            of_effect.filter(|u| !u.rule.dry_run && u.selects(point))
        };
        let any = |action, permit| {
            in_force(action).any(|p| matches_everything(p)) || user(permit).any(|u| u.unconditional)
        };
        if any(Action::Deny, false) {
            return Self::Shut;
        }
        if !set.closings_at(point).is_empty() {
            return Self::Limited;
        }
        let limits = in_force(Action::Allow).next().is_some() || user(true).next().is_some();
        if limits && !any(Action::Allow, true) {
            Self::Limited
        } else {
            Self::Open
        }
    }
}

/// True for a policy with a rule that says nothing, `{}`.
fn matches_everything(policy: &Policy) -> bool {
    let rules = policy.manifest().and_then(|p| p.rules.as_ref());
    let mut rules = rules.into_iter().flatten().filter_map(|r| r.value.as_ref());
    rules.any(|rule| rule.from.is_empty() && rule.to.is_empty() && rule.when.is_empty())
}
