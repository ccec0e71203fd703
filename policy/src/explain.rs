//! A decision told to a person: what applied, in order, what matched or failed, field by field.

mod steps;
mod story;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::decision::Decision;
use crate::diagnostic::Location;

pub(crate) use story::explain;

/// How one rule fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every clause held.
    Matched,
    /// A clause failed.
    Failed,
    /// The rule does not exist on this target or protocol (`note` says why).
    NotApplicable,
}

/// One clause of a rule against one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClauseReport {
    /// Path inside the policy, such as `spec.rules[0].from[1].source.notPrincipals`.
    pub field: String,
    /// Where the field's first value stands.
    pub at: Location,
    /// True for a `not…` field.
    pub negated: bool,
    /// The values written.
    pub wanted: Vec<String>,
    /// What the request had instead, in words; `none` when it had nothing.
    pub had: String,
    /// Whether the clause held.
    pub passed: bool,
}

/// One alternative of `from` or `to`: clauses ANDed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlternativeReport {
    /// Path inside the policy, such as `spec.rules[0].from[1]`; `spec.rules[0].when` for conditions.
    pub field: String,
    /// Its clauses.
    pub clauses: Vec<ClauseReport>,
    /// True when every clause held.
    pub passed: bool,
}

/// One rule against one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// `namespace/name#rule[i]`.
    pub id: String,
    /// `ALLOW`, `DENY`, `AUDIT`, `CUSTOM`, `permit`, `forbid` or `PeerAuthentication`.
    pub action: String,
    /// True when the rule is on trial.
    pub dry_run: bool,
    /// Where the rule starts.
    pub at: Location,
    /// How it fared.
    pub outcome: Outcome,
    /// Why the rule does not exist here, or another remark.
    pub note: Option<String>,
    /// Alternatives of `from`; at least one must pass. Empty: any source.
    pub from: Vec<AlternativeReport>,
    /// Alternatives of `to`; at least one must pass. Empty: any operation.
    pub to: Vec<AlternativeReport>,
    /// Conditions; all must pass.
    pub when: Option<AlternativeReport>,
    /// Number of clauses that failed on the best alternatives: the nearness of a miss.
    pub failed_clauses: usize,
}

/// The whole story of one decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The decision itself.
    pub decision: Decision,
    /// The destination, `kind/namespace/name`, when found.
    pub destination: Option<String>,
    /// The fact that told the destination and the target.
    pub destination_from: String,
    /// Target: sidecar, gateway, waypoint or ztunnel.
    pub target: Option<String>,
    /// `http` or `tcp`.
    pub protocol: Cow<'static, str>,
    /// The path that rules saw, when it differs from the one that arrived.
    pub normalised_path: Option<String>,
    /// One sentence per step of the evaluation, in order (PeerAuthentication, tokens, CUSTOM,
    /// DENY, ALLOW).
    pub steps: Vec<String>,
    /// The rules that told: those that matched, else the nearest misses first. With `all`, every
    /// rule that selects the workload.
    pub rules: Vec<RuleReport>,
}
