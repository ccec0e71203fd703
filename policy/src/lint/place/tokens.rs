//! Claims of tokens that nobody verifies: without a RequestAuthentication a request has none.

use super::Place;
use crate::diagnostic::{Diagnostic, code};
use crate::document::Excerpt;
use crate::lint::about;
use crate::request::Target;
use crate::resource::{Action, AuthorizationPolicy, Located, Resource, RuleSpec};

/// Reports rules on claims where no RequestAuthentication reaches any place of the policy.
pub(super) fn check(
    policy: &AuthorizationPolicy,
    places: &[Place<'_, '_>],
    found: &mut Vec<Diagnostic>,
) {
    if !matches!(policy.action, Action::Allow | Action::Deny) {
        return;
    }
    let claims = policy.rules.iter().flatten().enumerate();
    let claims: Vec<_> = claims
        .filter_map(|(index, rule)| Some((index, claim(rule.value.as_ref()?)?)))
        .collect();
    let Some(first) = places.first().filter(|_| !claims.is_empty()) else {
        return;
    };
    if places.iter().any(|place| has_tokens(place)) {
        return;
    }
    for (index, claim) in claims {
        let so = match (policy.action, claim.negated) {
            (Action::Allow, false) => "lets nobody in",
            (Action::Allow, true) => "lets in whoever meets the rest of the rule",
            (_, false) => "denies nothing",
            (_, true) => "denies whatever meets the rest of the rule",
        };
        let message = format!(
            "no RequestAuthentication verifies tokens for `{}`, so no request has {} there: this {so}",
            first.name(),
            claim.name
        );
        found.push(about(
            &code::NO_TOKENS,
            &claim.at.at,
            ("AuthorizationPolicy", &policy.meta),
            format!("spec.rules[{index}].{}", claim.field),
            message,
            "add a RequestAuthentication for these workloads, in their namespace or the root namespace, unless a filter of your own verifies them",
        ));
    }
}

fn has_tokens(place: &Place<'_, '_>) -> bool {
    let world = place.world;
    let point = world.point(place.spot, place.service);
    let verifies = |resource: &Resource| match resource {
        Resource::RequestAuthentication(r) => !r.jwt_rules.is_empty(),
        _ => false,
    };
    if world.set.tokens_at(&point).iter().any(|r| verifies(r)) {
        return true;
    }
    // What is attached to one of the Services behind it, a waypoint knows by Service.
    place.spot.target == Target::Waypoint
        && place.service.is_none()
        && world
            .set
            .request_authentications()
            .any(|r| !r.target_refs.is_empty())
}

/// The first look of a rule at claims.
struct Claim<'a> {
    name: String,
    field: String,
    at: &'a Located<String>,
    negated: bool,
}

fn claim(rule: &RuleSpec) -> Option<Claim<'_>> {
    for (f, from) in rule.from.iter().enumerate() {
        let Some(source) = &from.value else { continue };
        let fields = [
            ("requestPrincipals", &source.request_principals, false),
            ("notRequestPrincipals", &source.not_request_principals, true),
        ];
        for (name, values, negated) in fields {
            if let Some(at) = values.first() {
                let field = format!("from[{f}].source.{name}");
                return Some(Claim {
                    name: "a request principal".to_owned(),
                    field,
                    at,
                    negated,
                });
            }
        }
    }
    for (w, condition) in rule.when.iter().enumerate() {
        if !condition.key.value.starts_with("request.auth.") {
            continue;
        }
        return Some(Claim {
            name: format!("`{}`", Excerpt(&condition.key.value)),
            field: format!("when[{w}]"),
            at: &condition.key,
            negated: condition.values.is_empty(),
        });
    }
    None
}
