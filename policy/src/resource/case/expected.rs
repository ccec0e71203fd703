//! What the decision of a case must be.

use std::fmt;

use serde::Serialize;

use crate::decision::{Decision, DryRun, Reason, Shadow, Verdict};
use crate::diagnostic::code;
use crate::document::Node;
use crate::resource::path::Path;
use crate::resource::reader::Reader;

const VERDICTS: &[(&str, Verdict)] = &[("allow", Verdict::Allow), ("deny", Verdict::Deny)];
const TRIAL: &[&str] = &["decision", "reason", "policies", "shadow"];

/// What a case says of its decision; what it does not say is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// The verdict.
    pub decision: Verdict,
    /// Why.
    pub reason: Reason,
    /// Determining policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<String>>,
    /// AUDIT rules that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Vec<String>>,
    /// The provider to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The verdict with policies on trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<ExpectedTrial>,
}

/// What a case says of the verdict with policies on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExpectedTrial {
    /// The verdict.
    pub decision: Verdict,
    /// Why.
    pub reason: Reason,
    /// Determining policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<String>>,
    /// Dry-run rules that matched on their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
}

impl Expected {
    /// True when the decision is all that the case says; what it does not say is not compared.
    #[must_use]
    pub fn holds(&self, decision: &Decision) -> bool {
        let said = |wanted: &Option<Vec<String>>, got: &Vec<String>| {
            wanted.as_ref().is_none_or(|wanted| wanted == got)
        };
        self.decision == decision.decision
            && self.reason == decision.reason
            && said(&self.policies, &decision.policies)
            && said(&self.audit, &decision.audit)
            && (self.provider.is_none() || self.provider == decision.provider)
            && self.dry_run.as_ref().is_none_or(|wanted| {
                decision.dry_run.as_ref().is_some_and(|got| {
                    wanted.decision == got.decision
                        && wanted.reason == got.reason
                        && said(&wanted.policies, &got.policies)
                        && wanted.shadow.as_ref().is_none_or(|s| *s == got.shadow)
                })
            })
    }

    /// The one decision that holds where what the case does not say is empty; of no snapshot.
    #[must_use]
    pub fn exactly(&self) -> Decision {
        let dry_run = self.dry_run.as_ref().map(|trial| DryRun {
            decision: trial.decision,
            reason: trial.reason,
            policies: trial.policies.clone().unwrap_or_default(),
            shadow: trial.shadow.clone().unwrap_or_default(),
        });
        Decision {
            decision: self.decision,
            reason: self.reason,
            policies: self.policies.clone().unwrap_or_default(),
            audit: self.audit.clone().unwrap_or_default(),
            provider: self.provider.clone(),
            dry_run,
            snapshot: String::new(),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policies = self.policies.as_deref().unwrap_or_default();
        f.write_str(&told(self.decision, self.reason, policies))?;
        if let Some(audit) = &self.audit {
            write!(f, ", audit {audit:?}")?;
        }
        if let Some(provider) = &self.provider {
            write!(f, ", provider `{provider}`")?;
        }
        if let Some(trial) = &self.dry_run {
            let policies = trial.policies.as_deref().unwrap_or_default();
            let trial = told(trial.decision, trial.reason, policies);
            write!(f, ", on trial {trial}")?;
        }
        Ok(())
    }
}

/// A decision in the words of [`Expected`].
pub(super) fn words(decision: &Decision) -> String {
    let mut text = told(decision.decision, decision.reason, &decision.policies);
    if !decision.audit.is_empty() {
        text.push_str(&format!(", audit {:?}", decision.audit));
    }
    if let Some(provider) = &decision.provider {
        text.push_str(&format!(", provider `{provider}`"));
    }
    if let Some(trial) = &decision.dry_run {
        let trial = told(trial.decision, trial.reason, &trial.policies);
        text.push_str(&format!(", on trial {trial}"));
    }
    text
}

fn told(decision: Verdict, reason: Reason, policies: &[String]) -> String {
    let (decision, reason) = (decision.as_str(), reason.as_str());
    if policies.is_empty() {
        return format!("{decision} ({reason})");
    }
    format!("{decision} ({reason} {})", policies.join(", "))
}

/// Reads what the case says; `None` when that cannot be a decision, which is reported.
pub(super) fn read(case: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<Expected> {
    let (decision, reason) = verdict(case, path, reader)?;
    let strings = |key: &'static str, reader: &mut Reader<'_>| {
        case.get(key)
            .map(|node| strings(node, &path.key(key), reader))
    };
    let (policies, audit) = (strings("policies", reader), strings("audit", reader));
    let provider = match case.get("provider") {
        None => None,
        Some(node) => Some(reader.string(node, &path.key("provider"))?.value),
    };
    let dry_run = match case.get("dry_run") {
        None => None,
        Some(node) => Some(trial(node, &path.key("dry_run"), reader)?),
    };
    Some(Expected {
        decision,
        reason,
        policies,
        audit,
        provider,
        dry_run,
    })
}

fn trial(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<ExpectedTrial> {
    for entry in reader.object(node, path)? {
        if !TRIAL.contains(&entry.key.as_str()) {
            reader.unknown_field(entry, path, TRIAL);
        }
    }
    let (decision, reason) = verdict(node, path, reader)?;
    let policies = node
        .get("policies")
        .map(|node| strings(node, &path.key("policies"), reader));
    let shadow = match node.get("shadow") {
        None => None,
        Some(node) => Some(shadow(node, &path.key("shadow"), reader)?),
    };
    Some(ExpectedTrial {
        decision,
        reason,
        policies,
        shadow,
    })
}

fn shadow(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<Shadow> {
    let mut shadow = Shadow::default();
    for entry in reader.object(node, path)? {
        let rule = match entry.key.as_str() {
            "allow" => &mut shadow.allow,
            "deny" => &mut shadow.deny,
            _ => {
                reader.unknown_field(entry, path, &["allow", "deny"]);
                continue;
            }
        };
        if !entry.value.is_null() {
            *rule = Some(reader.string(&entry.value, &path.key(&entry.key))?.value);
        }
    }
    Some(shadow)
}

fn strings(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Vec<String> {
    let values = reader.strings(node, path);
    values.into_iter().map(|value| value.value).collect()
}

/// `decision` and `reason`, which must belong together.
fn verdict(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<(Verdict, Reason)> {
    let mut missing = false;
    for key in ["decision", "reason"] {
        if node.get(key).is_none() {
            missing = true;
            reader.report(
                &code::MISSING_FIELD,
                reader.location(node.at),
                &path.key(key),
                format!("`{key}` is missing"),
                "a denial for another reason is another denial: a case says both",
            );
        }
    }
    if missing {
        return None;
    }
    let reasons = Reason::ALL.map(|reason| (reason.as_str(), reason));
    let (decision, reason) = (node.get("decision")?, node.get("reason")?);
    let verdict = reader.word(decision, &path.key("decision"), VERDICTS);
    let because = reader.word(reason, &path.key("reason"), &reasons);
    let (verdict, because) = (verdict?, because?);
    if because.verdict() != verdict {
        reader.report(
            &code::CASE_REASON,
            reader.location(reason.at),
            &path.key("reason"),
            format!(
                "`{}` is never a reason to {}",
                because.as_str(),
                verdict.as_str()
            ),
            format!(
                "write `decision: {}`, or another reason",
                because.verdict().as_str()
            ),
        );
        return None;
    }
    Some((verdict, because))
}
