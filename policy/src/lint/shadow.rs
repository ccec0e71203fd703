//! ALLOW rules that never let anything in, because a DENY rule stops all that they match.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{about, authorization_policies};
use crate::diagnostic::{Diagnostic, code};
use crate::resource::fields::{self, Field, Form};
use crate::resource::{
    Action, AuthorizationPolicy, ConditionMatch, Resource, RuleSpec, Selector, Values,
};

/// More DENY rules of one namespace are not held against every ALLOW rule.
const MOST_DENIES: usize = 64;

/// A DENY rule in force.
struct Deny<'a> {
    policy: &'a AuthorizationPolicy,
    index: usize,
    rule: &'a RuleSpec,
}

/// Reports ALLOW rules that a DENY rule covers wherever they apply. What is compared is what is written: a rule
/// that is covered in another way is not reported. `only` are the files of which one must hold either rule.
pub(crate) fn check(
    resources: &[Arc<Resource>],
    root_namespace: &str,
    only: Option<&[Arc<str>]>,
    found: &mut Vec<Diagnostic>,
) {
    let concerns = |policy: &AuthorizationPolicy| {
        only.is_none_or(|files| files.contains(&policy.meta.at.file))
    };
    let mut denies: FxHashMap<&str, Vec<Deny<'_>>> = FxHashMap::default();
    // The first that covers a rule is named: the same one in whatever order the objects came.
    let mut policies: Vec<&AuthorizationPolicy> = authorization_policies(resources)
        .filter(|policy| policy.action == Action::Deny && policy.dry_run != Some(true))
        .collect();
    policies.sort_by(|a, b| a.meta.at.cmp(&b.meta.at));
    for policy in policies {
        let of = denies.entry(policy.meta.namespace.as_str()).or_default();
        for (index, rule) in policy.rules.iter().flatten().enumerate() {
            if let (Some(rule), true) = (&rule.value, of.len() < MOST_DENIES) {
                of.push(Deny {
                    policy,
                    index,
                    rule,
                });
            }
        }
    }
    if denies.is_empty() {
        return;
    }
    for policy in authorization_policies(resources) {
        if policy.action != Action::Allow {
            continue;
        }
        let namespace = policy.meta.namespace.as_str();
        let root = (namespace != root_namespace).then_some(root_namespace);
        let nearby = std::iter::once(namespace).chain(root);
        let nearby: Vec<&Deny<'_>> = nearby
            .filter_map(|namespace| denies.get(namespace))
            .flatten()
            .filter(|deny| applies_wherever(deny.policy, policy))
            .collect();
        if !concerns(policy) && !nearby.iter().any(|deny| concerns(deny.policy)) {
            continue;
        }
        for (index, rule) in policy.rules.iter().flatten().enumerate() {
            let Some(rule) = &rule.value else { continue };
            let Some(deny) = nearby.iter().find(|deny| covers(deny.rule, rule)) else {
                continue;
            };
            // Where another DENY rule comes before, the one of `only` changes nothing.
            if !concerns(policy) && !concerns(deny.policy) {
                continue;
            }
            let (of, name) = (&deny.policy.meta.namespace, &deny.policy.meta.name);
            found.push(about(
                &code::RULE_SHADOWED,
                &rule.at,
                ("AuthorizationPolicy", &policy.meta),
                format!("spec.rules[{index}]"),
                format!(
                    "rule {index} lets nothing in: `{of}/{name}#rule[{}]` denies all that it matches",
                    deny.index
                ),
                "a DENY comes first: narrow it, or remove this rule",
            ));
        }
    }
}

/// True when the DENY policy applies to every workload of the ALLOW policy.
fn applies_wherever(deny: &AuthorizationPolicy, allow: &AuthorizationPolicy) -> bool {
    if !deny.target_refs.is_empty() || !allow.target_refs.is_empty() {
        let same = |a: &crate::resource::TargetRef, b: &crate::resource::TargetRef| {
            (&a.group, &a.kind, &a.name) == (&b.group, &b.kind, &b.name)
        };
        return deny.meta.namespace == allow.meta.namespace
            && !allow.target_refs.is_empty()
            && allow
                .target_refs
                .iter()
                .all(|target| deny.target_refs.iter().any(|other| same(other, target)));
    }
    let labels = |selector: &Option<Selector>| {
        let labels = selector.as_ref().map(|s| s.match_labels.clone());
        labels.unwrap_or_default()
    };
    let (wide, narrow) = (labels(&deny.selector), labels(&allow.selector));
    wide.iter()
        .all(|(key, value)| narrow.get(key) == Some(value))
}

/// True when every request that `narrow` matches is matched by `wide`, as far as their words tell.
pub(crate) fn covers(wide: &RuleSpec, narrow: &RuleSpec) -> bool {
    let from = wide.from.is_empty()
        || (!narrow.from.is_empty()
            && narrow.from.iter().all(|narrow| {
                let narrow = narrow.value.as_ref().map(fields::of_source);
                narrow.is_some_and(|narrow| {
                    wide.from.iter().any(|wide| {
                        let wide = wide.value.as_ref().map(fields::of_source);
                        wide.is_some_and(|wide| entry_covers(&wide, &narrow))
                    })
                })
            }));
    let to = wide.to.is_empty()
        || (!narrow.to.is_empty()
            && narrow.to.iter().all(|narrow| {
                let narrow = narrow.value.as_ref().map(fields::of_operation);
                narrow.is_some_and(|narrow| {
                    wide.to.iter().any(|wide| {
                        let wide = wide.value.as_ref().map(fields::of_operation);
                        wide.is_some_and(|wide| entry_covers(&wide, &narrow))
                    })
                })
            }));
    let when = wide.when.iter().all(|wide| {
        let mut all = narrow.when.iter();
        all.any(|narrow| condition_covers(wide, narrow))
    });
    from && to && when
}

/// Fields of one entry are ANDed: each that `wide` has must be narrower in `narrow`. An entry without fields,
/// which Istio refuses, is held against nothing.
fn entry_covers(wide: &[Field<'_>], narrow: &[Field<'_>]) -> bool {
    let written = wide.iter().any(|field| !field.values.is_empty());
    written
        && wide.iter().zip(narrow).all(|(wide, narrow)| {
            if wide.values.is_empty() {
                return true;
            }
            if narrow.values.is_empty() {
                return false;
            }
            if wide.is_negated() {
                // "None of these" is wider the fewer there are.
                wide.values
                    .iter()
                    .all(|w| narrow.values.iter().any(|n| n.value == w.value))
            } else {
                values_cover(wide.values, narrow.values, wide.form)
            }
        })
}

fn condition_covers(wide: &ConditionMatch, narrow: &ConditionMatch) -> bool {
    let same = |a: &Values, b: &Values| {
        a.len() == b.len()
            && a.iter()
                .all(|one| b.iter().any(|other| other.value == one.value))
    };
    wide.key.value == narrow.key.value
        && same(&wide.values, &narrow.values)
        && same(&wide.not_values, &narrow.not_values)
}

pub(crate) fn values_cover(wide: &Values, narrow: &Values, form: Form) -> bool {
    narrow.iter().all(|narrow| {
        wide.iter()
            .any(|wide| value_covers(&wide.value, &narrow.value, form))
    })
}

/// Equal words, presence, or a prefix of what is exact.
fn value_covers(wide: &str, narrow: &str, form: Form) -> bool {
    if wide == narrow {
        return true;
    }
    if !matches!(form, Form::Path | Form::Principal | Form::Method) {
        return false;
    }
    let special = |text: &str| text.contains(['*', '{', '}']);
    let prefix = wide.strip_suffix('*').filter(|prefix| !special(prefix));
    // A principal may stand for those of other trust domains too; only presence is wider than all of them.
    let prefix = prefix.filter(|prefix| form != Form::Principal || prefix.is_empty());
    prefix
        .is_some_and(|prefix| !special(narrow) && !narrow.is_empty() && narrow.starts_with(prefix))
}
