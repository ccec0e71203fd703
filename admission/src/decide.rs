//! From a request to a verdict: a call to the engine, and what its findings lead to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_policy::diagnostic::{Diagnostic, Severity, code};
use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, ObjectKey, PolicyKind};
use portcullis_policy::snapshot::Snapshot;

use crate::break_glass::{BreakGlass, Claim};
use crate::cases::{Binding, Flips, flips};
use crate::enforcement::{Enforcement, InNamespace, Level};
use crate::in_force::{InForce, Proposed};
use crate::judge::{CaseOutcome, Flows, Judge};
use crate::object::Object;
use crate::review::{Details, Operation, Refusal, Request, excerpt};
use crate::tell;
use crate::verdict::{Cause, Verdict};

/// They delete what a namespace or an owner leaves behind: refused, it would never go.
const SWEEPERS: [&str; 2] = [
    "system:serviceaccount:kube-system:namespace-controller",
    "system:serviceaccount:kube-system:generic-garbage-collector",
];
/// Notes that say nothing to the author of a change.
const QUIET: [&str; 3] = [
    code::PASSED_OVER.id,
    code::DEFAULT_NAMESPACE.id,
    code::MESH_FIELD_OVERRIDDEN.id,
];

/// Decides requests.
pub struct Admission {
    enforcement: Enforcement,
    break_glass: BreakGlass,
    judge: Arc<dyn Judge>,
    flows: Arc<dyn Flows>,
    /// What the cases of the set in force came to.
    known: Mutex<Option<Known>>,
}

struct Known {
    snapshot: Arc<Snapshot>,
    /// By the namespaces whose cases were run; `None`: all.
    outcomes: Vec<(Option<Vec<String>>, Outcomes)>,
}

type Outcomes = Arc<Vec<CaseOutcome>>;

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("enforcement", &self.enforcement)
            .field("break_glass", &self.break_glass)
            .finish_non_exhaustive()
    }
}

impl Admission {
    /// Decides by this configuration.
    #[must_use]
    pub fn new(
        enforcement: Enforcement,
        break_glass: BreakGlass,
        judge: Arc<dyn Judge>,
        flows: Arc<dyn Flows>,
    ) -> Self {
        Self {
            enforcement,
            break_glass,
            judge,
            flows,
            known: Mutex::new(None),
        }
    }

    /// Decides one request against the set in force.
    #[must_use]
    pub fn decide(&self, request: &Request, in_force: &dyn InForce) -> Verdict {
        if !request.sub_resource.is_empty() {
            return Verdict::plain(Cause::Subresource);
        }
        let key = ObjectKey::new(&request.group, &request.kind, "", "");
        let Some(kind) = key.policy_kind() else {
            return other_kind(request);
        };
        let subject = match request.operation {
            Operation::Connect => return Verdict::plain(Cause::Subresource),
            Operation::Delete => &request.old_object,
            Operation::Create | Operation::Update => &request.object,
        };
        let Some(subject) = subject else {
            let field = match request.operation {
                Operation::Delete => "oldObject",
                _ => "object",
            };
            return Verdict::malformed(&format!(
                "a {} request without `{field}` cannot be judged",
                request.operation.as_str()
            ));
        };
        let key = match identify(request, subject) {
            Ok(key) => key,
            Err(why) => return Verdict::malformed(&why),
        };
        let claim = self.break_glass.claim(request);
        if let Claim::Refused { why } = &claim {
            return refused_claim(why);
        }
        if request.operation == Operation::Update
            && let (Some(new), Some(old)) = (&request.object, &request.old_object)
            && new.means_the_same_as(old)
        {
            let cause = match new.is_being_deleted() {
                true => Cause::BeingDeleted,
                false => Cause::Unchanged,
            };
            return Verdict::plain(cause);
        }
        self.judge(request, subject, key, kind, claim, in_force)
    }

    fn judge(
        &self,
        request: &Request,
        subject: &Object,
        key: ObjectKey,
        kind: PolicyKind,
        claim: Claim,
        in_force: &dyn InForce,
    ) -> Verdict {
        let sweeps = request.operation == Operation::Delete
            && SWEEPERS.contains(&request.user.name.as_str());
        let (holds, unknown) = match sweeps {
            true => {
                let level = Level::Audit;
                let remark = None;
                (InNamespace { level, remark }, None)
            }
            false => self.holds(&key.namespace, in_force),
        };
        let change = match request.operation {
            Operation::Delete => Change::Delete(key.clone()),
            _ => Change::Apply {
                key: key.clone(),
                text: SourceText {
                    file: key.file(),
                    bytes: subject.document(&key.namespace, &key.name).into(),
                },
            },
        };
        let Proposed { before, outcome } = in_force.propose(std::slice::from_ref(&change));
        let (diagnostics, after) = match outcome {
            Ok(proposal) => (proposal.diagnostics, Some(proposal.snapshot)),
            Err(diagnostics) => (diagnostics, None),
        };
        let changed_test = (kind == PolicyKind::PolicyTest).then(|| key.name.to_string());
        let flips = match &after {
            Some(after) => self.flips(&before, after, &key, changed_test.as_deref()),
            None => Flips::default(),
        };
        let flows = match &after {
            Some(after) => self.flows.flips(&before, after),
            None => Vec::new(),
        };
        let findings = Findings {
            key: &key,
            diagnostics,
            flips,
            flows,
        };
        let mut verdict = self.weigh(findings, &holds, claim, before.revision());
        if let Some(why) = unknown {
            verdict.note("namespace-unknown", why);
        }
        verdict
    }

    /// What holds in a namespace, and why its labels are not known.
    fn holds(&self, namespace: &str, in_force: &dyn InForce) -> (InNamespace, Option<String>) {
        match in_force.namespace_labels(namespace) {
            Ok(labels) => {
                let label = labels.get(crate::enforcement::LABEL);
                let holds = self.enforcement.in_namespace(label.map(String::as_str));
                (holds, None)
            }
            Err(why) => (self.enforcement.in_unknown_namespace(&why), Some(why)),
        }
    }

    /// What the change does to the cases that it concerns: those of its namespace and of the root namespace; one in
    /// the root namespace concerns all.
    fn flips(
        &self,
        before: &Arc<Snapshot>,
        after: &Arc<Snapshot>,
        key: &ObjectKey,
        changed_test: Option<&str>,
    ) -> Flips {
        let root = before.mesh().root_namespace.clone();
        let near = [key.namespace.as_ref(), root.as_str()];
        let namespaces = match key.namespace.as_ref() == root {
            true => None,
            false => Some(near.as_slice()),
        };
        let known = self.known(before, namespaces);
        let outcomes = self.judge.cases(after, namespaces);
        let binding = Binding {
            namespace: &key.namespace,
            root_namespace: &root,
            changed_test,
        };
        flips(&known, outcomes, binding)
    }

    /// The outcomes of the set in force, run once for each set.
    fn known(&self, snapshot: &Arc<Snapshot>, namespaces: Option<&[&str]>) -> Outcomes {
        let wanted: Option<Vec<String>> =
            namespaces.map(|all| all.iter().map(|&name| name.to_owned()).collect());
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = known.as_ref()
                && Arc::ptr_eq(&known.snapshot, snapshot)
                && let Some((_, found)) = known.outcomes.iter().find(|(names, _)| *names == wanted)
            {
                return Arc::clone(found);
            }
        }
        // Run without the lock: two requests at once may run the same cases, and come to the same.
        let found = Arc::new(self.judge.cases(snapshot, namespaces));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_mut() {
            Some(known) if Arc::ptr_eq(&known.snapshot, snapshot) => {
                known.outcomes.push((wanted, Arc::clone(&found)));
            }
            _ => {
                *known = Some(Known {
                    snapshot: Arc::clone(snapshot),
                    outcomes: vec![(wanted, Arc::clone(&found))],
                });
            }
        }
        found
    }

    fn weigh(
        &self,
        findings: Findings<'_>,
        holds: &InNamespace,
        claim: Claim,
        revision: &str,
    ) -> Verdict {
        let Findings {
            key,
            mut diagnostics,
            flips,
            flows,
        } = findings;
        // The worst first: what has no room in the answer is the least.
        diagnostics.sort_by_key(|d| std::cmp::Reverse(d.severity));
        let mut codes = BTreeMap::new();
        let (mut refusing, mut warnings) = (Vec::new(), Vec::new());
        // Errors first, cases after them, the rest at the end.
        let mut others = Vec::new();
        for diagnostic in &diagnostics {
            let level = match diagnostic.severity {
                Severity::Note if QUIET.contains(&diagnostic.code) => continue,
                _ => self.enforcement.of(diagnostic, holds.level),
            };
            let worst = codes.entry(diagnostic.code).or_insert(level);
            *worst = level.max(*worst);
            match level {
                Level::Deny => refusing.push(diagnostic),
                Level::Warn if diagnostic.is_error() => {
                    warnings.push(tell::warning(diagnostic, key));
                }
                Level::Warn => others.push(tell::warning(diagnostic, key)),
                Level::Audit => {}
            }
        }
        let breaks = !flips.broken.is_empty() && holds.level == Level::Deny;
        let refuses = |d: &Diagnostic| self.enforcement.of(d, Level::Deny) == Level::Deny;
        let would_refuse = diagnostics.iter().any(refuses) || !flips.broken.is_empty();
        if holds.level == Level::Warn {
            warnings.extend(flips.broken.iter().map(tell::case));
        }
        if holds.level >= Level::Warn {
            let elsewhere = "the change breaks cases of other namespaces";
            warnings.extend(tell::cases(elsewhere, &flips.broken_elsewhere));
            warnings.extend(tell::cases(
                "cases that do not hold",
                &flips.new_and_failing,
            ));
            let anyway = "cases that fail with the change as without it";
            warnings.extend(tell::cases(anyway, &flips.failing));
        }
        warnings.append(&mut others);
        warnings.extend(flows);
        warnings.extend(holds.remark.clone());

        let subject = format!("{} {}/{}", key.kind, key.namespace, key.name);
        let refused = match (refusing.is_empty(), breaks) {
            (true, false) => None,
            (true, true) => Some(Cause::CasesBreak),
            (false, _) => Some(Cause::Invalid),
        };
        let told = breaks.then_some(&flips);
        let mut verdict = match (refused, &claim) {
            (None, _) if would_refuse => Verdict::plain(Cause::NotEnforced),
            (None, _) => Verdict::plain(Cause::Accepted),
            (Some(_), Claim::Granted { reason }) => {
                let mut verdict = Verdict::plain(Cause::BreakGlass);
                let mut first = vec![format!(
                    "let pass by break-glass, {reason}: the findings stay"
                )];
                first.extend(refusing.iter().map(|d| tell::warning(d, key)));
                first.extend(
                    told.iter()
                        .flat_map(|flips| flips.broken.iter().map(tell::case)),
                );
                first.append(&mut warnings);
                warnings = first;
                verdict.break_glass = Some(reason.clone());
                verdict.note("break-glass", reason);
                verdict
            }
            (Some(cause), _) => {
                let mut verdict = Verdict::plain(cause);
                let details = Details {
                    name: key.name.to_string(),
                    group: key.group.to_string(),
                    kind: key.kind.to_string(),
                    causes: tell::causes(&refusing, told),
                };
                let message = tell::refusal(&subject, &refusing, told);
                verdict.answer.refusal = Some(Refusal::forbidden(message, Some(details)));
                verdict
            }
        };
        if let (Claim::Granted { reason }, false) = (&claim, verdict.cause == Cause::BreakGlass) {
            verdict.note("break-glass-unused", reason);
        }
        verdict.answer.warnings = tell::fit(warnings);
        if !codes.is_empty() {
            let all: Vec<String> = codes
                .iter()
                .map(|(code, level)| format!("{code}={}", level.as_str()))
                .collect();
            verdict.note("codes", all.join(","));
        }
        verdict.note("enforcement", holds.level.as_str());
        verdict.note("snapshot", revision);
        if !flips.broken.is_empty() {
            let names = flips
                .broken
                .iter()
                .map(|c| format!("{}/{}:{}", c.namespace, c.test, c.case));
            verdict.note("cases-broken", names.collect::<Vec<_>>().join(","));
        }
        if flips.mended > 0 {
            verdict.note("cases-mended", flips.mended.to_string());
        }
        verdict.codes = codes;
        verdict.level = Some(holds.level);
        verdict.snapshot = Some(revision.to_owned());
        verdict
    }
}

/// What was found out about a change.
struct Findings<'a> {
    key: &'a ObjectKey,
    diagnostics: Vec<Diagnostic>,
    flips: Flips,
    flows: Vec<String>,
}

fn other_kind(request: &Request) -> Verdict {
    let mut verdict = Verdict::plain(Cause::OtherKind);
    let (group, kind) = (excerpt(&request.group), excerpt(&request.kind));
    let warning = format!(
        "Portcullis does not judge `{kind}` of `{group}`: take it out of its webhook's rules"
    );
    verdict.answer.warnings = vec![warning];
    verdict
}

fn refused_claim(why: &str) -> Verdict {
    let mut verdict = Verdict::plain(Cause::BreakGlassRefused);
    verdict.answer.refusal = Some(Refusal::forbidden(why.to_owned(), None));
    verdict.break_glass = Some(why.to_owned());
    verdict.note("break-glass-refused", why);
    verdict
}

/// Which object it is; the request and the object must say the same.
fn identify(request: &Request, subject: &Object) -> Result<ObjectKey, String> {
    let (group, kind) = subject.group_kind();
    if (group, kind) != (request.group.as_str(), request.kind.as_str()) {
        return Err(format!(
            "the request is about `{}` of `{}`, its object is `{}` of `{}`",
            excerpt(&request.kind),
            excerpt(&request.group),
            excerpt(kind),
            excerpt(group)
        ));
    }
    let agree = |what: &str, asked: &str, own: &str| match asked == own
        || asked.is_empty()
        || own.is_empty()
    {
        true => Ok(()),
        false => Err(format!(
            "the request is about the {what} `{}`, its object says `{}`",
            excerpt(asked),
            excerpt(own)
        )),
    };
    let name = subject.name();
    agree("namespace", &request.namespace, subject.namespace())?;
    agree("name", &request.name, &name)?;
    let or = |first: &str, second: &str| {
        if first.is_empty() {
            second.to_owned()
        } else {
            first.to_owned()
        }
    };
    let namespace = or(&request.namespace, subject.namespace());
    let name = or(&request.name, &name);
    if namespace.is_empty() || name.is_empty() {
        let what = if name.is_empty() { "name" } else { "namespace" };
        return Err(format!(
            "neither the request nor its object says the {what}"
        ));
    }
    // What names nothing must not reach keys, logs and metrics.
    if namespace.len() > 63
        || name.len() > 253
        || [&namespace, &name].iter().any(|t| t.contains(['/', '\n']))
    {
        return Err(format!(
            "`{}/{}` names no object",
            excerpt(&namespace),
            excerpt(&name)
        ));
    }
    Ok(ObjectKey::new(
        &request.group,
        &request.kind,
        &namespace,
        &name,
    ))
}

#[cfg(test)]
mod tests;
