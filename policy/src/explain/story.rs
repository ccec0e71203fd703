//! Telling a decision: native matching, clause by clause, on the reading that decided.

use std::borrow::Cow;
use std::sync::Arc;

use super::{AlternativeReport, ClauseReport, Explanation, Outcome, RuleReport, steps};
use crate::closing::Closing;
use crate::decide::{self, Located};
use crate::decision::{Decision, Reason};
use crate::facts::{Facts, IdentityView};
use crate::lower::Dropped;
use crate::model::{Alternative, Clause, Dialect, Matcher, Role, Rule};
use crate::request::Request;
use crate::resource::Action;
use crate::slice::Same;
use crate::snapshot::Snapshot;
use crate::user::UserPolicy;
use crate::worker::{Answer, Worker};

/// Nearest misses told when nothing allowed.
const NEAREST: usize = 3;

pub(crate) fn explain(
    snapshot: &Snapshot,
    worker: &mut Worker,
    request: &Request,
    decision: Decision,
    all: bool,
) -> Explanation {
    let mut told = Explanation {
        protocol: if request.http.is_some() {
            "http".into()
        } else {
            "tcp".into()
        },
        destination: None,
        destination_from: String::new(),
        target: None,
        normalised_path: None,
        steps: Vec::new(),
        rules: Vec::new(),
        decision,
    };
    let located = match decide::locate(snapshot, worker, request) {
        Ok(located) => located,
        Err(why) => {
            told.steps
                .push(format!("the destination is not known: {why}"));
            return told;
        }
    };
    destination(&mut told, snapshot, &located);
    if !located.slice.closed_by.is_empty() {
        told.steps
            .extend(located.slice.closed_by.iter().map(closed));
        told.steps
            .push("refused here: no rule was asked".to_owned());
        return told;
    }
    let request = &*crate::facts::peer::seen(located.resolved.target, request);
    if let Some(why) = decide::closed(snapshot, &located, request) {
        told.steps.push(why.to_string());
        return told;
    }
    let paths = match decide::paths(snapshot, request, located.dialect) {
        Ok(paths) => paths,
        Err(why) => {
            told.steps.push(format!(
                "the path is refused as Envoy refuses it, with 400: {why}"
            ));
            return told;
        }
    };
    let views = decide::identity_views(&located, request.destination.port);
    if paths.len() > 1 {
        told.steps.push(
            "the path arrived normalised but would change if normalised again: both forms are \
             decided and allow needs both"
                .to_owned(),
        );
    }
    if views.len() > 1 {
        told.steps.push(
            "PeerAuthentication DISABLE hides identities, and the request carries one: both ways \
             are decided and allow needs both"
                .to_owned(),
        );
    }
    let (path, view) = deciding_reading(snapshot, &located, request, &paths, &views);
    if let (Some(path), Some(http)) = (&path, &request.http)
        && **path != http.path
    {
        told.normalised_path = Some(path.to_string());
    }
    let facts = decide::facts(
        request,
        located.dialect,
        path,
        decide::view(request, &located, view),
    );
    let mut reports: Vec<RuleReport> = located
        .slice
        .rules
        .iter()
        .map(|r| report(r, &facts))
        .collect();
    reports.extend(user_reports(snapshot, worker, &located, &facts));
    reports.extend(dropped(&located));
    steps::layers(&mut told, &located, request, &facts, &reports);
    told.rules = rules(reports, &told.decision, all);
    told
}

/// What a policy does that was never seen good.
fn closed(closing: &Arc<Closing>) -> String {
    format!(
        "closed by `{}`: it is refused, and no good version of it was seen ({}: {})",
        closing.key.resource(),
        closing.why.code,
        closing.why.message
    )
}

fn destination(told: &mut Explanation, snapshot: &Snapshot, located: &Located) {
    let resolved = &located.resolved;
    if let Some(w) = snapshot.inventory().workload(resolved.workload) {
        told.destination = Some(format!("{}/{}/{}", w.kind.as_str(), w.namespace, w.name));
    }
    told.destination_from = resolved.workload_found.to_string();
    told.target = Some(resolved.target.as_str().to_owned());
    told.steps.push(format!(
        "target {}: {}",
        resolved.target.as_str(),
        resolved.target_found
    ));
    if let Some(service) = resolved
        .service
        .and_then(|s| snapshot.inventory().service(s))
    {
        let how = resolved
            .service_found
            .map_or_else(String::new, |f| format!(": {f}"));
        told.steps.push(format!(
            "service {}/{}{how}",
            service.namespace, service.name
        ));
    }
}

/// The reading whose native outcome has the decision's verdict; the first where all have.
fn deciding_reading<'r>(
    snapshot: &Snapshot,
    located: &'r Located,
    request: &'r Request,
    paths: &[Option<Cow<'r, str>>],
    views: &[IdentityView],
) -> (Option<Cow<'r, str>>, IdentityView) {
    let first = (
        paths.first().cloned().flatten(),
        views.first().copied().unwrap_or(IdentityView::All),
    );
    let _ = snapshot;
    for view in views {
        for path in paths {
            let facts = decide::facts(
                request,
                located.dialect,
                path.clone(),
                decide::view(request, located, *view),
            );
            let stops = |r: &&Arc<Rule>| {
                !r.dry_run && matches!(r.role, Role::Deny | Role::Mtls | Role::Token)
            };
            let allows = |r: &&Arc<Rule>| !r.dry_run && r.role == Role::Allow;
            let all = || decide::synthetic(&located.slice, request).chain(&located.slice.rules);
            let denied = all().filter(stops).any(|r| facts.rule(r));
            let allowed = !located.slice.has_allow || all().filter(allows).any(|r| facts.rule(r));
            if denied || !allowed {
                return (path.clone(), *view);
            }
        }
    }
    first
}

/// The reports that told, or all of them, in an order worth reading.
fn rules(mut reports: Vec<RuleReport>, decision: &Decision, all: bool) -> Vec<RuleReport> {
    let rank = |r: &RuleReport| match r.action.as_str() {
        "CUSTOM" => 0,
        "DENY" | "forbid" => 1,
        "ALLOW" | "permit" => 2,
        _ => 3,
    };
    if all {
        reports.sort_by_key(|r| (rank(r), miss(r)));
        return reports;
    }
    // On trial, a rule that matched tells why the verdict would change.
    let on_trial = |r: &RuleReport| r.dry_run && r.outcome == Outcome::Matched;
    match decision.reason {
        Reason::MtlsRequired | Reason::TokenUnverified => Vec::new(),
        Reason::NoAllowMatched | Reason::RemoteAddressUnknown | Reason::InvalidRequest
            if decision.policies.is_empty() =>
        {
            // Why not: the nearest rules that would have allowed, and those that fell away.
            reports.retain(|r| {
                on_trial(r) || (matches!(r.action.as_str(), "ALLOW" | "permit") && !r.dry_run)
            });
            reports.sort_by_key(miss);
            let (mut near, mut far): (Vec<_>, Vec<_>) = reports
                .into_iter()
                .partition(|r| r.outcome != Outcome::NotApplicable && !r.dry_run);
            near.truncate(NEAREST);
            far.truncate(NEAREST);
            near.append(&mut far);
            near
        }
        reason => {
            let last = match reason {
                Reason::CustomProviderUnavailable => 0,
                Reason::DeniedBy => 1,
                _ => 3,
            };
            let reached = |r: &RuleReport| rank(r) <= last || rank(r) == 3 || r.dry_run;
            reports.retain(|r| r.outcome == Outcome::Matched && reached(r));
            reports.sort_by_key(rank);
            reports
        }
    }
}

/// How far a rule is from matching. Of rules with as many failed clauses that one is nearer whose
/// operation matched: the request was meant for it, and the peer was not.
fn miss(report: &RuleReport) -> (usize, usize) {
    let failed = match report.outcome {
        Outcome::Matched => 0,
        Outcome::Failed if steps::is_empty_policy(report) => usize::MAX - 1,
        Outcome::Failed => report.failed_clauses.max(1),
        Outcome::NotApplicable => usize::MAX,
    };
    (failed, fewest_failed(&report.to))
}

/// Failed clauses of the best alternative; an alternative that can never hold counts as one.
fn fewest_failed(list: &[AlternativeReport]) -> usize {
    let failed = |a: &AlternativeReport| {
        let clauses = a.clauses.iter().filter(|c| !c.passed).count();
        clauses.max(usize::from(!a.passed))
    };
    list.iter().map(failed).min().unwrap_or(0)
}

fn report(rule: &Rule, facts: &Facts<'_>) -> RuleReport {
    let certainty = rule.role.needs_certainty();
    let index = rule.id.index.unwrap_or_default();
    let base = format!("spec.rules[{index}]");
    let clause = |clause: &Clause, at: &str| ClauseReport {
        field: format!("{at}.{}", clause.field),
        at: clause.at.clone(),
        negated: clause.negated,
        wanted: clause.any.iter().map(wanted).collect(),
        had: clause
            .any
            .first()
            .map_or_else(String::new, |m| facts.describe(m)),
        passed: facts.clause(clause).holds(certainty),
    };
    let alternative = |a: &Alternative, list: &str, inner: &str| {
        let field = format!("{base}.{list}[{}]", a.index);
        let at = format!("{field}.{inner}");
        let clauses: Vec<ClauseReport> = a.clauses.iter().map(|c| clause(c, &at)).collect();
        AlternativeReport {
            passed: !a.never && clauses.iter().all(|c| c.passed),
            field,
            clauses,
        }
    };
    let from: Vec<_> = rule
        .from
        .iter()
        .map(|a| alternative(a, "from", "source"))
        .collect();
    let to: Vec<_> = rule
        .to
        .iter()
        .map(|a| alternative(a, "to", "operation"))
        .collect();
    let when = (!rule.when.is_empty()).then(|| {
        let clauses: Vec<ClauseReport> = rule
            .when
            .iter()
            .map(|c| {
                let values = if c.negated { "notValues" } else { "values" };
                let report = clause(c, &base);
                ClauseReport {
                    field: format!("{base}.when[{}].{values}", c.when_index.unwrap_or_default()),
                    // The path does not tell which attribute is meant.
                    had: format!("{} as `{}`", report.had, c.field),
                    ..report
                }
            })
            .collect();
        AlternativeReport {
            field: format!("{base}.when"),
            passed: clauses.iter().all(|c| c.passed),
            clauses,
        }
    });
    let failed_clauses = fewest_failed(&from)
        .saturating_add(fewest_failed(&to))
        .saturating_add(fewest_failed(when.as_slice()))
        .saturating_add(usize::from(rule.never));
    RuleReport {
        id: rule.id.to_string(),
        action: rule.role.as_str().to_owned(),
        dry_run: rule.dry_run,
        at: rule.at.clone(),
        outcome: if facts.rule(rule) {
            Outcome::Matched
        } else {
            Outcome::Failed
        },
        note: rule.never.then(|| match rule.dialect {
            Dialect::Ztunnel
                if !rule.when.is_empty() || !rule.from.is_empty() || !rule.to.is_empty() =>
            {
                "ztunnel skips a match that has nothing it can see".to_owned()
            }
            _ => steps::NO_RULES.to_owned(),
        }),
        from,
        to,
        when,
        failed_clauses,
    }
}

/// User-written Cedar says whether it is satisfied, not which clause failed.
fn user_reports(
    snapshot: &Snapshot,
    worker: &mut Worker,
    located: &Located,
    facts: &Facts<'_>,
) -> Vec<RuleReport> {
    let user = &located.slice.user;
    let answers = decide::user_answers(snapshot, worker, located, facts);
    let report = |(policy, answer): (&Arc<UserPolicy>, Answer)| RuleReport {
        id: policy.rule.id.to_string(),
        action: if policy.is_permit() {
            "permit"
        } else {
            "forbid"
        }
        .to_owned(),
        dry_run: policy.rule.dry_run,
        at: policy.rule.at.clone(),
        outcome: match answer {
            Answer::Satisfied => Outcome::Matched,
            Answer::Not | Answer::Error => Outcome::Failed,
        },
        note: (answer == Answer::Error).then(|| "the policy could not be evaluated".to_owned()),
        from: Vec::new(),
        to: Vec::new(),
        when: None,
        failed_clauses: usize::from(answer != Answer::Satisfied),
    };
    user.iter().zip(answers).map(report).collect()
}

fn wanted(matcher: &Matcher) -> String {
    match matcher {
        Matcher::Identity(_, p)
        | Matcher::Sni(p)
        | Matcher::Header(_, p)
        | Matcher::Method(p)
        | Matcher::Host(p)
        | Matcher::Path(p)
        | Matcher::Claim(_, p) => p.text().to_owned(),
        Matcher::SourceIp(c) | Matcher::RemoteIp(c) | Matcher::DestinationIp(c) => {
            c.text().to_owned()
        }
        Matcher::DestinationPort(port) => port.to_string(),
        Matcher::Template(t) => t.text().to_owned(),
        Matcher::RequestPrincipal(p) => p.text.to_string(),
        Matcher::Metadata {
            list: true, value, ..
        } => format!("[{}]", value.text()),
        Matcher::Metadata { value, .. } => value.text().to_owned(),
        Matcher::PeerCertificate => "a certificate".to_owned(),
        Matcher::UnverifiedToken => "an unverified token".to_owned(),
    }
}

/// Rules that do not exist in this dialect.
fn dropped(located: &Located) -> Vec<RuleReport> {
    let mut reports = Vec::new();
    for Same(policy) in &located.slice.contents.policies {
        let Some(manifest) = policy.manifest() else {
            continue;
        };
        for Dropped { index, at, why } in &policy.lowered(located.dialect).dropped {
            reports.push(RuleReport {
                id: format!(
                    "{}/{}#rule[{index}]",
                    manifest.meta.namespace, manifest.meta.name
                ),
                action: action(manifest.action).to_owned(),
                dry_run: policy.dry_run(),
                at: at.clone(),
                outcome: Outcome::NotApplicable,
                note: Some(why.clone()),
                from: Vec::new(),
                to: Vec::new(),
                when: None,
                failed_clauses: 0,
            });
        }
    }
    reports
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
        Action::Audit => "AUDIT",
        Action::Custom => "CUSTOM",
    }
}
