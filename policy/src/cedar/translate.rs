//! A snapshot's policies as Cedar text.

use cedar_policy_formatter::{Config, policies_str_to_pretty};

use super::emit;
use crate::diagnostic::Location;
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
    // What no manifest spells out, where it can apply.
    let own = [
        (true, emit::no_allow_policy()),
        (
            !set.peer_authentications().is_empty(),
            emit::identity_required(),
        ),
        (
            set.request_authentications().next().is_some(),
            emit::token_verified(),
        ),
    ];
    for policy in own
        .into_iter()
        .filter_map(|(here, policy)| policy.ok().filter(|_| here))
    {
        all.push(TranslatedPolicy {
            id: policy.id().0.to_string(),
            origin: Location::default(),
            cedar: pretty(&policy.body().to_string()),
        });
    }
    all
}

fn pretty(text: &str) -> String {
    policies_str_to_pretty(text, &Config::default()).unwrap_or_else(|_| text.to_owned())
}

/// One rule as formatted text; `None` only if Cedar refused what strict validation accepted.
#[must_use]
pub fn rule(rule: &Rule) -> Option<TranslatedPolicy> {
    let policy = emit::policy(rule).ok()?;
    // Printed from the tree, which keeps one `when` for each of `from`, `to` and `when`.
    Some(TranslatedPolicy {
        id: emit::policy_id(rule),
        origin: rule.at.clone(),
        cedar: pretty(&policy.body().to_string()),
    })
}
