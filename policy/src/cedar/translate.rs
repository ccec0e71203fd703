//! A snapshot's policies as Cedar text.

use cedar_policy_formatter::{Config, policies_str_to_pretty};

use super::emit;
use crate::model::{Dialect, Rule};
use crate::policy_set::PolicySet;
use crate::snapshot::TranslatedPolicy;

/// Every rule of every policy, in document order; the ztunnel reading after the others.
#[must_use]
pub fn snapshot(set: &PolicySet) -> Vec<TranslatedPolicy> {
    let mut all = Vec::new();
    for policy in set.policies() {
        for dialect in [Dialect::Http, Dialect::Tcp, Dialect::Ztunnel] {
            all.extend(policy.lowered(dialect).rules.iter().filter_map(|r| rule(r)));
        }
    }
    all.extend(set.all_user_policies().map(|user| {
        TranslatedPolicy {
            id: user.rule.id.to_string(),
            origin: user.rule.at.clone(),
            cedar: policies_str_to_pretty(&user.text, &Config::default())
                .unwrap_or_else(|_| user.text.to_string()),
        }
    }));
    all
}

/// One rule as formatted text; `None` only if Cedar refused what strict validation accepted.
#[must_use]
pub fn rule(rule: &Rule) -> Option<TranslatedPolicy> {
    let policy = emit::policy(rule).ok()?;
    // Printed from the tree, which keeps one `when` for each of `from`, `to` and `when`.
    let text = policy.body().to_string();
    Some(TranslatedPolicy {
        id: emit::policy_id(rule),
        origin: rule.at.clone(),
        cedar: policies_str_to_pretty(&text, &Config::default()).unwrap_or(text),
    })
}
