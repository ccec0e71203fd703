//! The steps of an evaluation in Istio's order, one sentence each.

use super::{Explanation, Outcome, RuleReport};
use crate::decide::Located;
use crate::decision::Reason;
use crate::facts::Facts;
use crate::request::{Request, Target};
use crate::resource::MtlsMode;

/// Note of what stands for a policy without rules.
pub(super) const NO_RULES: &str = "the policy has no rules and matches nothing";

/// Tells each step of the evaluation up to the one that refused.
pub(super) fn layers(
    told: &mut Explanation,
    located: &Located,
    request: &Request,
    facts: &Facts<'_>,
    reports: &[RuleReport],
) {
    let slice = &located.slice;
    let reason = told.decision.reason;
    let mut say = |s: String| told.steps.push(s);
    let (mode, rule) = slice.mtls(request.destination.port);
    let by = rule
        .filter(|r| !r.id.name.is_empty())
        .map_or_else(String::new, |r| format!(" by {}", r.id));
    let peer = match facts.identities.first() {
        Some(id) => format!("the peer is `{id}`"),
        None if facts.peer_certificate() => "the peer's certificate has no name".to_owned(),
        None => "the peer presented no identity".to_owned(),
    };
    say(match (located.resolved.target, mode) {
        (Target::Waypoint, _) => format!("a waypoint's own listener requires an identity: {peer}"),
        (Target::Gateway, _) => format!("a gateway takes peers with and without identity: {peer}"),
        (_, MtlsMode::Strict) => format!("peer authentication is STRICT{by}: {peer}"),
        (_, MtlsMode::Disable) => {
            "peer authentication is DISABLE: no identity can be seen".to_owned()
        }
        (_, MtlsMode::Permissive | MtlsMode::Unset) => {
            format!("peer authentication is PERMISSIVE: {peer}")
        }
    });
    if reason == Reason::MtlsRequired {
        return say("refused here: no rule was asked".to_owned());
    }
    if let Some(tokens) = &slice.tokens {
        let state = match (&request.jwt, facts.view.unverified_token) {
            (Some(_), _) => "the proxy verified one",
            (None, true) => "one is there and nobody verified it",
            (None, false) => "none is there",
        };
        say(format!(
            "tokens are looked for by {}: {state}",
            tokens.policies().join(", ")
        ));
        if reason == Reason::TokenUnverified {
            return say("refused here: no rule was asked".to_owned());
        }
    }
    let custom = count(reports, &["CUSTOM"]);
    say_count(&mut say, "CUSTOM", &custom);
    if reason == Reason::CustomProviderUnavailable {
        return say("refused here: the provider cannot be asked".to_owned());
    }
    say_count(&mut say, "AUDIT", &count(reports, &["AUDIT"]));
    say_count(&mut say, "DENY", &count(reports, &["DENY", "forbid"]));
    if reason == Reason::DeniedBy {
        return say("refused here: ALLOW rules were not asked".to_owned());
    }
    let allow = count(reports, &["ALLOW", "permit"]);
    if !slice.has_allow {
        say("ALLOW: no policy selects the workload, so what is not denied is allowed".to_owned());
    } else if allow.all + allow.not_here == 0 {
        say(
            "ALLOW: only policies without rules select the workload, and they allow nothing".into(),
        );
    } else {
        say_count(&mut say, "ALLOW", &allow);
    }
    let missing = request.missing.any();
    match reason {
        Reason::InvalidRequest | Reason::RemoteAddressUnknown if missing => say(
            "the request does not carry an address or a port that every proxy sends; some value of \
             it would have been allowed, so deny wins"
                .to_owned(),
        ),
        Reason::RemoteAddressUnknown => say(
            "the client's address is not known: x-forwarded-for is there and nothing says how many \
             proxies to trust; another address would have been allowed, so deny wins"
                .to_owned(),
        ),
        _ => {}
    }
}

/// Rules in force of some actions.
struct Count {
    all: usize,
    matched: usize,
    not_here: usize,
}

fn count(reports: &[RuleReport], actions: &[&str]) -> Count {
    let of = || {
        reports
            .iter()
            .filter(|r| actions.contains(&r.action.as_str()) && !r.dry_run)
    };
    let outcome = |o: Outcome| of().filter(|r| r.outcome == o).count();
    let empty = of().filter(|r| is_empty_policy(r)).count();
    let matched = outcome(Outcome::Matched);
    Count {
        all: matched
            .saturating_add(outcome(Outcome::Failed))
            .saturating_sub(empty),
        matched,
        not_here: outcome(Outcome::NotApplicable),
    }
}

/// Stands for a policy without rules.
pub(super) fn is_empty_policy(report: &RuleReport) -> bool {
    report.outcome == Outcome::Failed && report.note.as_deref() == Some(NO_RULES)
}

fn say_count(say: &mut impl FnMut(String), word: &str, count: &Count) {
    if count.all + count.not_here == 0 {
        return;
    }
    let rest = match count.not_here {
        0 => String::new(),
        1 => "; 1 more does not exist on this target and protocol".to_owned(),
        n => format!("; {n} more do not exist on this target and protocol"),
    };
    say(format!(
        "{word}: {} of {} matched{rest}",
        count.matched,
        counted(count.all)
    ));
}

fn counted(rules: usize) -> String {
    if rules == 1 {
        "1 rule".to_owned()
    } else {
        format!("{rules} rules")
    }
}
