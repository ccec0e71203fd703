//! The reference decision: every policy of the snapshot, the full context, Cedar's own authorizer.
//!
//! Slow on purpose: no slice, no index, no lean context, no memory. Tests hold the engine against it;
//! it shares with the engine what both must mean by a fact, and nothing of how candidates are found.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use cedar_policy_core::ast::{self, EntityUIDEntry, Request as CedarRequest};
use cedar_policy_core::authorizer::{Authorizer, Decision as CedarDecision};
use cedar_policy_core::{parser, pst};

use crate::attachment::EnforcementPoint;
use crate::cedar::context::{self, FactTexts, Resource};
use crate::cedar::emit;
use crate::cedar::program::{self, FactTest};
use crate::decide::{self, Located};
use crate::decision::Verdict;
use crate::facts::Facts;
use crate::model::{Dialect, Role, Rule};
use crate::request::{Request, Target};
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// Both verdicts of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Verdict of the policies in force.
    pub verdict: Verdict,
    /// Verdict with the policies on trial.
    pub on_trial: Verdict,
    /// Ids of satisfied rules by role word, sorted; of the reading that decided.
    pub satisfied: BTreeMap<&'static str, Vec<String>>,
    /// Some policy could not be evaluated.
    pub error: bool,
}

/// A snapshot's whole policy sets.
#[derive(Debug)]
pub struct Reference {
    snapshot: Arc<Snapshot>,
    enforced: ast::PolicySet,
    on_trial: ast::PolicySet,
    triggers: ast::PolicySet,
    names: BTreeMap<String, (&'static str, String)>,
    facts: Vec<FactTest>,
}

impl Reference {
    /// Gathers every policy of every dialect.
    ///
    /// # Errors
    /// When Cedar refuses one of them.
    pub fn new(snapshot: &Arc<Snapshot>) -> Result<Self, String> {
        let mut reference = Self {
            snapshot: Arc::clone(snapshot),
            enforced: ast::PolicySet::new(),
            on_trial: ast::PolicySet::new(),
            triggers: ast::PolicySet::new(),
            names: BTreeMap::new(),
            facts: Vec::new(),
        };
        let set = snapshot.policies();
        for policy in set.policies() {
            for dialect in [Dialect::Http, Dialect::Tcp, Dialect::Ztunnel] {
                for rule in &policy.lowered(dialect).rules {
                    reference.add_rule(rule)?;
                }
            }
        }
        for user in set.all_user_policies() {
            let id = ast::PolicyID::from_string(format!("user {}", user.rule.id));
            let policy = parser::parse_policy(Some(id), &user.text).map_err(|e| e.to_string())?;
            let policy = ast::Policy::from(policy);
            let role = if user.is_permit() { "ALLOW" } else { "DENY" };
            reference
                .names
                .insert(policy.id().to_string(), (role, user.rule.id.to_string()));
            reference.add(policy, user.rule.dry_run)?;
            reference.facts.extend(user.facts.iter().cloned());
        }
        for policy in [emit::identity_required(), emit::token_verified()] {
            reference.add(ast_policy(policy.map_err(|e| e.to_string())?)?, false)?;
        }
        let default = ast_policy(emit::no_allow_policy().map_err(|e| e.to_string())?)?;
        reference.add(default, false)?;
        Ok(reference)
    }

    fn add_rule(&mut self, rule: &Rule) -> Result<(), String> {
        let policy = ast_policy(emit::policy(rule).map_err(|e| e.to_string())?)?;
        self.names.insert(
            policy.id().to_string(),
            (rule.role.as_str(), rule.id.to_string()),
        );
        self.facts.extend(program::reads(rule).1);
        match rule.role {
            Role::Audit | Role::Custom(_) if rule.dry_run => Ok(()),
            Role::Audit | Role::Custom(_) => self.triggers.add(policy).map_err(|e| e.to_string()),
            _ => self.add(policy, rule.dry_run),
        }
    }

    fn add(&mut self, policy: ast::Policy, dry_run: bool) -> Result<(), String> {
        if !dry_run {
            self.enforced
                .add(policy.clone())
                .map_err(|e| e.to_string())?;
        }
        self.on_trial.add(policy).map_err(|e| e.to_string())
    }

    /// Decides one request; `None` where the engine answers with a closed state.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Option<Answer> {
        let snapshot = &self.snapshot;
        // A worker of its own: this thread's would remember slices of another snapshot.
        let located = decide::locate(snapshot, &mut Worker::default(), request).ok()?;
        let request = &*crate::facts::peer::seen(located.resolved.target, request);
        let closed = !located.slice.closed_by.is_empty();
        if closed || decide::closed(snapshot, &located, request).is_some() {
            return None;
        }
        let paths = decide::paths(snapshot, request, located.dialect).ok()?;
        let mut answer: Option<Answer> = None;
        for view in decide::identity_views(&located, request.destination.port) {
            for path in &paths {
                let view = decide::view(request, &located, view);
                let facts = decide::facts(request, located.dialect, path.clone(), view);
                let one = self.reading(&located, &facts);
                answer = Some(match answer.take() {
                    None => one,
                    Some(other) => stricter(other, one),
                });
            }
        }
        answer
    }

    fn reading(&self, located: &Located, facts: &Facts<'_>) -> Answer {
        let snapshot = &self.snapshot;
        let Some(workload) = snapshot.inventory().workload(located.resolved.workload) else {
            return Answer {
                verdict: Verdict::Deny,
                on_trial: Verdict::Deny,
                satisfied: BTreeMap::new(),
                error: true,
            };
        };
        let verdict = |set: &ast::PolicySet, attachments: Vec<String>| {
            let resource = Resource {
                workload,
                attachments,
            };
            let request = self.request(located, facts, &resource);
            let entities = context::entities(facts, snapshot.uids(), &resource);
            let response = Authorizer::new().is_authorized(request, set, &entities);
            let satisfied: HashSet<String> = response
                .diagnostics
                .reason
                .iter()
                .map(ToString::to_string)
                .collect();
            let error = !response.diagnostics.errors.is_empty();
            let allow = response.decision == CedarDecision::Allow && !error;
            (
                if allow { Verdict::Allow } else { Verdict::Deny },
                satisfied,
                error,
            )
        };
        let (mut enforced, reasons, error) =
            verdict(&self.enforced, self.attachments(located, facts, false));
        let (mut on_trial, ..) = verdict(&self.on_trial, self.attachments(located, facts, true));
        let (_, triggers, trigger_error) =
            verdict(&self.triggers, self.attachments(located, facts, false));
        let mut satisfied: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        for id in reasons.iter().chain(&triggers) {
            if let Some((role, name)) = self.names.get(id) {
                satisfied.entry(role).or_default().push(name.clone());
            }
        }
        satisfied.values_mut().for_each(|ids| ids.sort());
        if decide::unavailable_custom(snapshot, located, facts) {
            enforced = Verdict::Deny;
            on_trial = Verdict::Deny;
        }
        Answer {
            verdict: enforced,
            on_trial,
            satisfied,
            error: error || trigger_error,
        }
    }

    fn request(
        &self,
        located: &Located,
        facts: &Facts<'_>,
        resource: &Resource<'_>,
    ) -> CedarRequest {
        let uids = self.snapshot.uids();
        let mut texts = FactTexts::default();
        for test in &self.facts {
            texts.note(test, test.holds(facts));
        }
        if facts.view.unverified_token {
            texts.note_unverified_token();
        }
        let action = if facts.http.is_some() {
            &uids.http
        } else {
            &uids.connect
        };
        let principal = facts.identities.first().copied().unwrap_or_default();
        CedarRequest::new_unchecked(
            EntityUIDEntry::known(uids.workload(principal), None),
            EntityUIDEntry::known(action.clone(), None),
            EntityUIDEntry::known(resource.uid(uids), None),
            Some(context::full(facts, located.resolved.target, uids, &texts)),
        )
    }

    /// Attachments of the destination, asked of each policy alone.
    fn attachments(&self, located: &Located, facts: &Facts<'_>, trial: bool) -> Vec<String> {
        let snapshot = &self.snapshot;
        let set = snapshot.policies();
        let resolved = &located.resolved;
        let Some(workload) = snapshot.inventory().workload(resolved.workload) else {
            return Vec::new();
        };
        let point = EnforcementPoint {
            workload,
            target: resolved.target,
            service: resolved
                .service
                .and_then(|s| snapshot.inventory().service(s)),
            root_namespace: &snapshot.mesh().root_namespace,
        };
        let mut ids = Vec::new();
        let mut allow = false;
        for policy in set.attached_policies(&point) {
            let Some(manifest) = policy.manifest() else {
                continue;
            };
            if !policy.lowered(located.dialect).applies {
                continue;
            }
            allow |=
                policy.action() == crate::resource::Action::Allow && (trial || !policy.dry_run());
            let meta = &manifest.meta;
            ids.push(emit::attachment_id(
                &meta.namespace,
                &meta.name,
                located.dialect,
            ));
        }
        allow |= set
            .all_user_policies()
            .any(|u| u.is_permit() && u.selects(&point) && (trial || !u.rule.dry_run));
        if !allow {
            ids.push(emit::NO_ALLOW_POLICY.to_owned());
        }
        let port = facts.request.destination.port;
        let effective = set
            .peer_authentications()
            .effective(workload, port, resolved.target);
        if effective.requires_identity() && resolved.target != Target::Gateway {
            ids.push(emit::IDENTITY_REQUIRED.to_owned());
        }
        if located.slice.tokens.is_some() {
            ids.push(emit::TOKEN_VERIFIED.to_owned());
        }
        ids
    }
}

fn ast_policy(policy: pst::StaticPolicy) -> Result<ast::Policy, String> {
    ast::Policy::try_from(pst::Policy::Static(policy)).map_err(|e| e.to_string())
}

fn stricter(first: Answer, second: Answer) -> Answer {
    let on_trial = if first.on_trial == Verdict::Allow {
        second.on_trial
    } else {
        first.on_trial
    };
    let chosen = if first.verdict == Verdict::Allow {
        second
    } else {
        first
    };
    Answer { on_trial, ..chosen }
}
