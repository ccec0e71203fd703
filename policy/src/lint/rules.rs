//! Rules that another rule of the same policy makes pointless.

use std::fmt::Write as _;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::shadow::covers;
use super::{about, authorization_policies};
use crate::diagnostic::{Diagnostic, code};
use crate::lower::layer_7;
use crate::resource::fields::{self, Field};
use crate::resource::{Action, AuthorizationPolicy, Located, Resource, RuleSpec};

/// Reports rules that are covered by an equal or a plainly wider one.
pub(super) fn check(resources: &[Arc<Resource>], found: &mut Vec<Diagnostic>) {
    for policy in authorization_policies(resources) {
        check_policy(policy, found);
    }
}

fn check_policy(policy: &AuthorizationPolicy, found: &mut Vec<Diagnostic>) {
    let rules = policy.rules.as_deref().unwrap_or_default();
    if rules.len() < 2 {
        return;
    }
    let parts: Vec<Option<[String; 3]>> = rules
        .iter()
        .map(|rule| rule.value.as_ref().and_then(parts))
        .collect();
    // The first rule of each content.
    let mut seen: FxHashMap<[&str; 3], usize> = FxHashMap::default();
    for (index, parts) in parts.iter().enumerate() {
        if let Some([from, to, when]) = parts {
            seen.entry([from, to, when]).or_insert(index);
        }
    }
    for (index, parts) in parts.iter().enumerate() {
        let Some([from, to, when]) = parts else {
            continue;
        };
        let Some(rule) = rules.get(index) else {
            continue;
        };
        let by = wider(&seen, [from, to, when], index);
        let Some(by) = by.or_else(|| covered(policy, rules, index)) else {
            continue;
        };
        found.push(about(
            &code::RULE_IN_VAIN,
            &rule.at,
            ("AuthorizationPolicy", &policy.meta),
            format!("spec.rules[{index}]"),
            format!("rule {index} adds nothing: rule {by} matches all that it matches"),
            "remove it, or say what it was meant to say",
        ));
    }
}

/// A rule that says the same, or leaves out some of `from`, `to` and `when` and says the rest.
fn wider(seen: &FxHashMap<[&str; 3], usize>, parts: [&str; 3], index: usize) -> Option<usize> {
    let [from, to, when] = parts;
    for mask in 0..8_u8 {
        let part = |bit: u8, text| if mask & bit == 0 { text } else { "" };
        let candidate = [part(1, from), part(2, to), part(4, when)];
        let Some(other) = seen.get(&candidate) else {
            continue;
        };
        // Of equal rules the first stays.
        if candidate == parts && *other >= index {
            continue;
        }
        return Some(*other);
    }
    None
}

/// More rules than these are not held against each other one by one, nor are longer ones.
const MOST_RULES: usize = 32;
const MOST_VALUES: usize = 256;

/// A rule whose words match all that those of the rule at `index` match. Of two that match the same, the first stays.
fn covered(
    policy: &AuthorizationPolicy,
    rules: &[Located<Option<RuleSpec>>],
    index: usize,
) -> Option<usize> {
    let narrow = rules.get(index)?.value.as_ref().filter(|r| is_short(r))?;
    if rules.len() > MOST_RULES {
        return None;
    }
    // ztunnel passes over what is left of a DENY rule of HTTP fields alone: there the narrower one denies more.
    let at_ztunnel = |wide: &RuleSpec| {
        policy.action != Action::Deny || layer_7(wide).is_none() || layer_4(narrow) == layer_4(wide)
    };
    let mut others = rules.iter().enumerate();
    let (other, _) = others.find(|(other, rule)| {
        *other != index
            && rule.value.as_ref().is_some_and(|wide| {
                is_short(wide)
                    && at_ztunnel(wide)
                    && covers(wide, narrow)
                    && (*other < index || !covers(narrow, wide))
            })
    })?;
    Some(other)
}

fn is_short(rule: &RuleSpec) -> bool {
    let from = rule.from.iter().filter_map(|e| e.value.as_ref());
    let from = from.flat_map(fields::of_source);
    let to = rule.to.iter().filter_map(|e| e.value.as_ref());
    let to = to.flat_map(fields::of_operation);
    let values: usize = from.chain(to).map(|field| field.values.len()).sum();
    let when = rule
        .when
        .iter()
        .map(|c| c.values.len() + c.not_values.len());
    values + when.sum::<usize>() <= MOST_VALUES
}

/// How many fields and keys of a rule are no HTTP.
fn layer_4(rule: &RuleSpec) -> usize {
    let from = rule.from.iter().filter_map(|e| e.value.as_ref());
    let to = rule.to.iter().filter_map(|e| e.value.as_ref());
    let fields = from
        .flat_map(fields::of_source)
        .chain(to.flat_map(fields::of_operation));
    let when = rule
        .when
        .iter()
        .filter(|c| !fields::is_http_key(&c.key.value));
    fields.filter(|f| !f.http && !f.values.is_empty()).count() + when.count()
}

/// `from`, `to` and `when` as comparable texts, empty for "any"; `None` for a rule that holds
/// something Istio would refuse.
fn parts(rule: &RuleSpec) -> Option<[String; 3]> {
    let mut from = Vec::new();
    for entry in &rule.from {
        from.push(text(&fields::of_source(entry.value.as_ref()?)));
    }
    let mut to = Vec::new();
    for entry in &rule.to {
        to.push(text(&fields::of_operation(entry.value.as_ref()?)));
    }
    let mut when = Vec::new();
    for condition in &rule.when {
        let mut out = format!("{:?}", condition.key.value);
        for (name, values) in [
            ("values", &condition.values),
            ("notValues", &condition.not_values),
        ] {
            let mut values: Vec<&str> = values.iter().map(|v| v.value.as_str()).collect();
            values.sort_unstable();
            let _ = write!(out, " {name}={values:?}");
        }
        when.push(out);
    }
    Some([from, to, when].map(|mut entries| {
        entries.sort_unstable();
        entries.join("\n")
    }))
}

fn text(fields: &[Field<'_>]) -> String {
    let mut out = String::new();
    for field in fields {
        let mut values: Vec<&str> = field.values.iter().map(|v| v.value.as_str()).collect();
        if !values.is_empty() {
            values.sort_unstable();
            let _ = write!(out, "{}={values:?} ", field.name);
        }
    }
    out
}
