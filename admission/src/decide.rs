//! From a request to a verdict: a call to the engine, and what its findings lead to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use portcullis_policy::diagnostic::{Diagnostic, Severity, code};
use portcullis_policy::document::SourceText;
use portcullis_policy::live::{Change, ObjectKey, PolicyKind};
use portcullis_policy::snapshot::Snapshot;

use crate::break_glass::{BreakGlass, Claim};
use crate::cases::{Changed, Flips, Late, flips};
use crate::enforcement::{Enforcement, InNamespace, Level};
use crate::in_force::{InForce, Proposed};
use crate::judge::{Flows, Judge};
use crate::object::Object;
use crate::review::{Details, Operation, Refusal, Request, excerpt};
use crate::tell;
use crate::verdict::{Cause, Verdict};

/// It deletes what is left in a namespace that goes: refused, the namespace would never be gone. The garbage collector
/// is judged as anyone: whoever may write owners into a policy could have it delete what he may not.
const NAMESPACE_CONTROLLER: &str = "system:serviceaccount:kube-system:namespace-controller";
/// Most cases of the PolicyTests in a namespace unless told otherwise.
pub const CASES: usize = 1000;
/// What comes of an object that is let in with its errors: the opposite of what they may say of the policy alone.
const NOT_TAKEN: &str = "the engine does not take this object as it is: its last good version stays in force, and where there is none, what it \
    selects is denied";
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
    /// Most cases of the PolicyTests in a namespace.
    cases: usize,
}

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
            cases: CASES,
        }
    }

    /// Refuses PolicyTests that bring a namespace more than `most` cases.
    #[must_use]
    pub fn with_cases(mut self, most: usize) -> Self {
        self.cases = most;
        self
    }

    /// Decides one request against the set in force; no case of a PolicyTest is begun after `until`.
    ///
    /// # Errors
    /// There was no time for cases that bind the change.
    pub fn decide(
        &self,
        request: &Request,
        in_force: &dyn InForce,
        until: Instant,
    ) -> Result<Verdict, Late> {
        match self.prepare(request) {
            Ok((subject, key, kind, claim)) => {
                self.judge(request, subject, key, kind, claim, in_force, until)
            }
            Err(verdict) => Ok(*verdict),
        }
    }

    /// What is to be judged, or a verdict that needs no judging.
    fn prepare<'a>(
        &self,
        request: &'a Request,
    ) -> Result<(&'a Object, ObjectKey, PolicyKind, Claim), Box<Verdict>> {
        if !request.sub_resource.is_empty() {
            return Err(Box::new(Verdict::plain(Cause::Subresource)));
        }
        let key = ObjectKey::new(&request.group, &request.kind, "", "");
        let Some(kind) = key.policy_kind() else {
            return Err(Box::new(other_kind(request)));
        };
        let subject = match request.operation {
            Operation::Connect => return Err(Box::new(Verdict::plain(Cause::Subresource))),
            Operation::Delete => &request.old_object,
            Operation::Create | Operation::Update => &request.object,
        };
        let Some(subject) = subject else {
            let field = match request.operation {
                Operation::Delete => "oldObject",
                _ => "object",
            };
            return Err(Box::new(Verdict::malformed(&format!(
                "a {} request without `{field}` cannot be judged",
                request.operation.as_str()
            ))));
        };
        let key = match identify(request, subject) {
            Ok(key) => key,
            Err(why) => return Err(Box::new(Verdict::malformed(&why))),
        };
        let claim = self.break_glass.claim(request);
        if let Claim::Refused { why } = &claim {
            return Err(Box::new(refused_claim(why)));
        }
        if request.operation == Operation::Update
            && let (Some(new), Some(old)) = (&request.object, &request.old_object)
            && new.means_the_same_as(old)
        {
            let cause = match new.is_being_deleted() {
                true => Cause::BeingDeleted,
                false => Cause::Unchanged,
            };
            return Err(Box::new(Verdict::plain(cause)));
        }
        Ok((subject, key, kind, claim))
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `decide`")]
    fn judge(
        &self,
        request: &Request,
        subject: &Object,
        key: ObjectKey,
        kind: PolicyKind,
        claim: Claim,
        in_force: &dyn InForce,
        until: Instant,
    ) -> Result<Verdict, Late> {
        let sweeps = request.operation == Operation::Delete
            && request.user.name == NAMESPACE_CONTROLLER
            && in_force.is_going(&key.namespace);
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
        if let (PolicyKind::PolicyTest, Some(after)) = (kind, &after)
            && let Some(verdict) = self.too_many_cases(&key, &before, after)
        {
            return Ok(verdict);
        }
        let flips = match &after {
            Some(after) => {
                let changed = Changed {
                    namespace: &key.namespace,
                    test: (kind == PolicyKind::PolicyTest).then_some(key.name.as_ref()),
                    root_namespace: &before.mesh().root_namespace,
                };
                match flips(self.judge.as_ref(), &before, after, changed, until) {
                    // Where cases do not refuse, nobody waits for them.
                    Err(Late { left }) if holds.level < Level::Deny => Flips {
                        not_run: left,
                        ..Flips::default()
                    },
                    found => found?,
                }
            }
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
        Ok(verdict)
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

    /// Refuses what brings a namespace more cases than it may have.
    fn too_many_cases(
        &self,
        key: &ObjectKey,
        before: &Snapshot,
        after: &Snapshot,
    ) -> Option<Verdict> {
        let count = |snapshot: &Snapshot| -> usize {
            let tests = snapshot.policies().tests();
            let own = tests.filter(|test| test.meta.namespace == *key.namespace);
            own.map(|test| test.cases.len()).sum()
        };
        let cases = count(after);
        if cases <= self.cases || cases <= count(before) {
            return None;
        }
        let mut verdict = Verdict::plain(Cause::Invalid);
        let message = format!(
            "PolicyTest {}/{}: its namespace would have {cases} cases, and `admission.limits.cases` allows {}: leave some out",
            key.namespace, key.name, self.cases
        );
        verdict.answer.refusal = Some(Refusal::forbidden(message, None));
        Some(verdict)
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
        let unheard =
            |d: &Diagnostic| d.is_error() && self.enforcement.of(d, holds.level) == Level::Warn;
        if key.policy_kind() != Some(PolicyKind::PolicyTest) && diagnostics.iter().any(unheard) {
            warnings.push(NOT_TAKEN.to_owned());
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
            warnings.extend(flips.new_and_failing.iter().map(tell::failing));
            if flips.not_run > 0 {
                let left = flips.not_run;
                warnings.push(format!(
                    "{left} cases of PolicyTests were not run: there was no time, and they do not bind"
                ));
            }
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
        if flips.not_run > 0 {
            verdict.note("cases-not-run", flips.not_run.to_string());
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
