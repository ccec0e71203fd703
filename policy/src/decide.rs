//! From a request to its decision.
//!
//! 1. Find the destination; without one the answer is a closed state.
//! 2. Bring the path into the form that rules see.
//! 3. Per reading of the request (there are two where something is not known, and allow needs both):
//!    the index names candidates, the matcher leaves the rules that match, Cedar has the last word.
//! 4. Combine: peer identity, token, CUSTOM, DENY, ALLOW, in Istio's order (policy.md 1.2).

mod custom;
mod uncertain;
mod user;

pub use uncertain::{Closed, closed};
pub use user::answers as user_answers;

use std::borrow::Cow;
use std::sync::Arc;

use crate::decision::{Decision, DryRun, Reason, Shadow};
use crate::facts::{Facts, IdentityView, View, peer};
use crate::inventory::{Candidate, Resolved, Unresolved};
use crate::model::{Dialect, Role, Rule};
use crate::path;
use crate::request::{PathForm, Request, Target, Tokens};
use crate::resource::MtlsMode;
use crate::slice::{self, Slice};
use crate::snapshot::Snapshot;
use crate::worker::{Answer, Worker};

pub use custom::{CustomMatch, Way, matching as custom_matches, unavailable as unavailable_custom};

/// A request at its destination: what deciding and explaining start from.
#[derive(Debug)]
pub struct Located {
    /// The destination and how it was found.
    pub resolved: Resolved,
    /// Which reading of the policies.
    pub dialect: Dialect,
    /// The policies there.
    pub slice: Arc<Slice>,
}

/// Finds destination and slice.
///
/// # Errors
/// Why the request has no destination.
pub fn locate(
    snapshot: &Snapshot,
    worker: &mut Worker,
    request: &Request,
) -> Result<Located, Unresolved> {
    let http = request.http.is_some();
    let mut slice_of = |candidate: Candidate| {
        let dialect = slice::dialect(candidate.target, http);
        let found = worker.slice((candidate, dialect), || snapshot.slice(candidate, dialect));
        found.map(|slice| (slice, dialect))
    };
    let cell = std::cell::RefCell::new(&mut slice_of);
    let resolved = snapshot.inventory().resolve(request, |candidates| {
        let mut slice_of = cell.borrow_mut();
        let mut slices = candidates
            .iter()
            .map(|c| slice_of(*c).map(|(slice, _)| slice));
        let Some(Some(first)) = slices.next() else {
            return false;
        };
        // User policies can read the destination's own name and labels, which differ.
        first.user.is_empty() && slices.all(|s| s.is_some_and(|s| Arc::ptr_eq(&s, &first)))
    })?;
    let candidate = Candidate {
        workload: resolved.workload,
        target: resolved.target,
        service: resolved.service,
    };
    let (slice, dialect) = slice_of(candidate).ok_or(Unresolved::NoWorkload)?;
    Ok(Located {
        resolved,
        dialect,
        slice,
    })
}

/// The forms of the path that rules must agree on.
///
/// # Errors
/// When Envoy would answer 400.
pub fn paths<'r>(
    snapshot: &Snapshot,
    request: &'r Request,
    dialect: Dialect,
) -> Result<Vec<Option<Cow<'r, str>>>, path::InvalidPath> {
    let http = match (&request.http, dialect) {
        (Some(http), Dialect::Http) => http,
        _ => return Ok(vec![None]),
    };
    let mode = snapshot.mesh().path_normalization;
    match request.path_form {
        PathForm::Raw => Ok(vec![Some(path::normalise(&http.path, mode)?)]),
        PathForm::Normalised => {
            let mut forms = vec![Some(Cow::Borrowed(http.path.as_str()))];
            if !path::is_stable(&http.path, mode) {
                forms.push(Some(path::second_pass(&http.path, mode)?));
            }
            Ok(forms)
        }
    }
}

/// The views of the peer's identities that rules must agree on.
#[must_use]
pub fn identity_views(located: &Located, port: Option<u16>) -> Vec<IdentityView> {
    match located.resolved.target {
        Target::Waypoint => vec![IdentityView::UriOnly],
        // The proxy that follows DISABLE cannot have seen an identity; one that reports it anyway
        // did not follow it. Allow needs both readings.
        Target::Sidecar if located.slice.mtls(port).0 == MtlsMode::Disable => {
            vec![IdentityView::All, IdentityView::Hidden]
        }
        Target::Ztunnel => vec![IdentityView::Ztunnel],
        Target::Sidecar | Target::Gateway => vec![IdentityView::All],
    }
}

/// Decides one request.
pub fn decide(snapshot: &Snapshot, worker: &mut Worker, request: &Request) -> Decision {
    let located = match locate(snapshot, worker, request) {
        Ok(located) => located,
        Err(why) => return Decision::closed(why.reason(), snapshot.revision()),
    };
    if let Some(decision) = invalid_resource(snapshot, &located.slice) {
        return decision;
    }
    let request = &*peer::seen(located.resolved.target, request);
    if let Some(why) = uncertain::closed(snapshot, &located, request) {
        return Decision::closed(why.reason(), snapshot.revision());
    }
    let Ok(paths) = paths(snapshot, request, located.dialect) else {
        return Decision::closed(Reason::InvalidRequest, snapshot.revision());
    };
    let mut decision: Option<Decision> = None;
    for identities in identity_views(&located, request.destination.port) {
        for path in &paths {
            let one = reading(
                snapshot,
                worker,
                request,
                &located,
                path.clone(),
                identities,
            );
            decision = Some(match decision.take() {
                None => one,
                Some(other) => other.or_stricter(one),
            });
        }
    }
    decision.unwrap_or_else(|| Decision::closed(Reason::InvalidRequest, snapshot.revision()))
}

/// The answer to every request where a policy was left out closed, on trial as well: what is on trial
/// stands beside what is missing.
fn invalid_resource(snapshot: &Snapshot, slice: &Slice) -> Option<Decision> {
    if slice.closed_by.is_empty() {
        return None;
    }
    let reason = Reason::InvalidResource;
    let policies: Vec<String> = slice.closed_by.iter().map(|c| c.name()).collect();
    let dry_run = slice.has_trial.then(|| DryRun {
        decision: reason.verdict(),
        reason,
        policies: policies.clone(),
        shadow: Shadow::default(),
    });
    Some(Decision {
        policies,
        dry_run,
        ..Decision::closed(reason, snapshot.revision())
    })
}

fn reading(
    snapshot: &Snapshot,
    worker: &mut Worker,
    request: &Request,
    located: &Located,
    path: Option<Cow<'_, str>>,
    identities: IdentityView,
) -> Decision {
    let slice = &located.slice;
    let view = view(request, located, identities);
    let facts = facts(request, located.dialect, path, view);
    let mut found = std::mem::take(&mut worker.found);
    slice.index.candidates(&facts, &mut found);
    let mut matching: Vec<&Arc<Rule>> = Vec::with_capacity(found.len().min(16));
    matching.extend(synthetic(slice, request));
    matching.extend(
        found
            .iter()
            .filter_map(|place| slice.rules.get(*place as usize)),
    );
    worker.found = found;
    matching.retain(|rule| facts.rule(rule));
    let mut answers = worker.evaluate(&facts, &matching, snapshot.uids());
    answers.extend(user::answers(snapshot, worker, located, &facts));
    matching.extend(slice.user.iter().map(|user| &user.rule));
    let satisfied = Satisfied::new(&matching, &answers);
    let enforced = combine(snapshot, request, slice, &satisfied, Trial::No);
    let dry_run = slice.has_trial.then(|| {
        let together = combine(snapshot, request, slice, &satisfied, Trial::Yes);
        let together = uncertain::hanging(together, request, slice, || {
            uncertain::favourable(snapshot, worker, located, request, &facts, Trial::Yes)
        });
        DryRun {
            decision: together.reason.verdict(),
            reason: together.reason,
            policies: together.policies,
            shadow: satisfied.shadow(&enforced),
        }
    });
    let enforced = uncertain::hanging(enforced, request, slice, || {
        uncertain::favourable(snapshot, worker, located, request, &facts, Trial::No)
    });
    Decision {
        decision: enforced.reason.verdict(),
        reason: enforced.reason,
        policies: enforced.policies,
        audit: if enforced.reached_audit {
            satisfied.ids(&Role::Audit, Trial::No)
        } else {
            Vec::new()
        },
        provider: enforced.provider,
        dry_run,
        snapshot: snapshot.revision().to_owned(),
    }
}

/// What of the view follows from destination and request.
#[must_use]
pub fn view<'r>(request: &Request, located: &'r Located, identities: IdentityView) -> View<'r> {
    let tokens = located.slice.tokens.as_ref();
    let unverified = match (request.checked.tokens, &request.http, tokens) {
        (Tokens::ByProxy, Some(http), Some(tokens)) => {
            request.jwt.is_none() && tokens.token_present(http)
        }
        (Tokens::Invalid, _, tokens) => tokens.is_some(),
        (Tokens::ByProxy | Tokens::Verified, ..) => false,
    };
    View {
        identities,
        token_rules: tokens,
        unverified_token: unverified,
        favourable: false,
    }
}

/// The facts of one reading.
#[must_use]
pub fn facts<'r>(
    request: &'r Request,
    dialect: Dialect,
    path: Option<Cow<'r, str>>,
    view: View<'r>,
) -> Facts<'r> {
    let mut facts = Facts::new(request, path, view);
    if dialect != Dialect::Http {
        // What works on layer 4 sees nothing of HTTP.
        facts.http = None;
    }
    facts
}

/// The rules that stand behind every request there.
pub fn synthetic<'s>(slice: &'s Slice, request: &Request) -> impl Iterator<Item = &'s Arc<Rule>> {
    let (_, mtls) = slice.mtls(request.destination.port);
    mtls.into_iter().chain(slice.token_rule())
}

/// Whether policies on trial count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    No,
    Yes,
}

/// The rules that Cedar found satisfied, in Envoy's order within each role.
struct Satisfied<'m> {
    rules: Vec<(&'m Rule, Answer)>,
}

impl<'m> Satisfied<'m> {
    fn new(matching: &'m [&'m Arc<Rule>], answers: &[Answer]) -> Self {
        let rules = matching
            .iter()
            .zip(answers)
            .filter(|(_, answer)| **answer != Answer::Not)
            .map(|(rule, answer)| (rule.as_ref(), *answer))
            .collect();
        Self { rules }
    }

    fn of(&self, trial: Trial) -> impl Iterator<Item = &'m Rule> {
        self.rules
            .iter()
            .filter(move |(rule, answer)| {
                *answer == Answer::Satisfied && (trial == Trial::Yes || !rule.dry_run)
            })
            .map(|(rule, _)| *rule)
    }

    fn ids(&self, role: &Role, trial: Trial) -> Vec<String> {
        self.of(trial)
            .filter(|r| r.role == *role)
            .map(|r| r.id.text())
            .collect()
    }

    fn error(&self, trial: Trial) -> Option<&'m Rule> {
        self.rules
            .iter()
            .find(|(rule, answer)| {
                *answer == Answer::Error && (trial == Trial::Yes || !rule.dry_run)
            })
            .map(|(rule, _)| *rule)
    }

    /// What Envoy's shadow engines report: each filter evaluates its shadow rules when the request
    /// gets there (policy.md 1.10, 1.15.10).
    fn shadow(&self, enforced: &Outcome) -> Shadow {
        let first = |role: &Role, reached: bool| {
            self.rules
                .iter()
                .find(|(rule, answer)| {
                    reached && rule.dry_run && rule.role == *role && *answer == Answer::Satisfied
                })
                .map(|(rule, _)| rule.id.text())
        };
        Shadow {
            allow: first(&Role::Allow, enforced.reached_allow),
            deny: first(&Role::Deny, enforced.reached_audit),
        }
    }
}

/// A reason with its policies, and how far the request got.
struct Outcome {
    reason: Reason,
    policies: Vec<String>,
    provider: Option<String>,
    /// AUDIT and DENY filters were reached.
    reached_audit: bool,
    /// The ALLOW filter was reached.
    reached_allow: bool,
}

impl Outcome {
    fn early(reason: Reason, policies: Vec<String>) -> Self {
        Self {
            reason,
            policies,
            provider: None,
            reached_audit: false,
            reached_allow: false,
        }
    }
}

fn combine(
    snapshot: &Snapshot,
    request: &Request,
    slice: &Slice,
    satisfied: &Satisfied<'_>,
    trial: Trial,
) -> Outcome {
    if let Some(rule) = satisfied.error(trial) {
        return Outcome::early(Reason::EvaluationError, vec![rule.id.text()]);
    }
    let token = match request.checked.tokens {
        Tokens::Invalid => Reason::TokenInvalid,
        Tokens::ByProxy | Tokens::Verified => Reason::TokenUnverified,
    };
    for (role, reason) in [(Role::Mtls, Reason::MtlsRequired), (Role::Token, token)] {
        if let Some(rule) = satisfied.of(trial).find(|r| r.role == role) {
            let named = !rule.id.name.is_empty();
            let policies = if named {
                vec![rule.id.text()]
            } else {
                Vec::new()
            };
            return Outcome::early(reason, policies);
        }
    }
    let mut provider: Option<String> = None;
    let mut asked: Vec<String> = Vec::new();
    for name in custom::names(satisfied, trial) {
        match custom::way(snapshot, &name, request.checked.providers.as_ref()) {
            Way::Reported => provider = provider.or(Some(name.to_string())),
            Way::Allowed => {
                asked.extend(satisfied.ids(&Role::Custom(Arc::clone(&name)), trial));
                provider = provider.or(Some(name.to_string()));
            }
            Way::NotTriggered => {}
            Way::Ask | Way::Unavailable => {
                // A provider that MeshConfig does not know only denies for policies in force.
                let policies = satisfied.ids(&Role::Custom(Arc::clone(&name)), trial);
                if !policies.is_empty() {
                    return Outcome {
                        provider: Some(name.to_string()),
                        ..Outcome::early(Reason::CustomProviderUnavailable, policies)
                    };
                }
            }
        }
    }
    let denied = satisfied.ids(&Role::Deny, trial);
    let (reason, policies, reached_allow) = if denied.is_empty() {
        let allowed = satisfied.ids(&Role::Allow, trial);
        let has_allow = if trial == Trial::Yes {
            slice.has_allow_on_trial
        } else {
            slice.has_allow
        };
        if !has_allow && !asked.is_empty() {
            (Reason::CustomAllowed, asked, true)
        } else if !has_allow {
            (Reason::NoAllowPolicy, Vec::new(), true)
        } else if allowed.is_empty() {
            (Reason::NoAllowMatched, Vec::new(), true)
        } else {
            (Reason::AllowedBy, allowed, true)
        }
    } else {
        (Reason::DeniedBy, denied, false)
    };
    Outcome {
        reason,
        policies,
        provider,
        reached_audit: true,
        reached_allow,
    }
}
