//! What Istio accepts though the author probably meant something else.

use super::{Places, values};
use crate::diagnostic::{Diagnostic, Severity, code};
use crate::lint::shadow::values_cover;
use crate::resource::fields::{self, Field, Form};
use crate::resource::path::Path;
use crate::resource::reader::Reader;
use crate::resource::{
    Action, AuthorizationPolicy, ConditionMatch, OperationMatch, RuleSpec, SourceMatch,
};

/// Reports what is accepted but surprising.
pub(super) fn check(policy: &AuthorizationPolicy, places: &Places, reader: &mut Reader<'_>) {
    let root = Path::Root;
    let spec = root.key("spec");
    let path = spec.key("rules");
    if policy.rules.is_none() && policy.action == Action::Allow {
        let at = places
            .rules
            .clone()
            .unwrap_or_else(|| policy.meta.at.clone());
        let note = reader
            .build(
                &code::ALLOWS_NOTHING,
                at,
                &path,
                "an ALLOW policy without rules allows nothing: it closes the workloads that it selects",
            )
            .with_hint("if every request should pass, write `rules: [{}]`");
        // `spec: {}` is the usual way to close a namespace; an empty list is no way to say it.
        reader.push(Diagnostic {
            severity: if places.rules.is_some() {
                Severity::Warning
            } else {
                note.severity
            },
            ..note
        });
    }
    for (index, rule) in policy.rules.iter().flatten().enumerate() {
        if let Some(rule) = &rule.value {
            check_rule(rule, policy.action, &path.index(index), reader);
        }
    }
}

fn check_rule(rule: &RuleSpec, action: Action, path: &Path<'_>, reader: &mut Reader<'_>) {
    let from = path.key("from");
    for (index, entry) in rule.from.iter().enumerate() {
        let path = from.index(index);
        if let Some(source) = &entry.value {
            check_source(source, action, &path.key("source"), reader);
        }
    }
    let to = path.key("to");
    for (index, entry) in rule.to.iter().enumerate() {
        let path = to.index(index);
        if let Some(operation) = &entry.value {
            check_operation(operation, action, &path.key("operation"), reader);
        }
    }
    let when = path.key("when");
    for (index, condition) in rule.when.iter().enumerate() {
        check_condition(condition, action, &when.index(index), reader);
    }
}

fn check_source(source: &SourceMatch, action: Action, path: &Path<'_>, reader: &mut Reader<'_>) {
    let all = fields::of_source(source);
    for field in &all {
        each(field, action, &path.key(field.name), reader);
    }
    contradictions(&all, path, reader);
    let set = || all.iter().filter(|field| !field.values.is_empty());
    let excluded = set().find(|f| f.is_negated() && f.identity && !is_presence(f));
    let named = set().any(|f| f.identity && !f.is_negated());
    if let (Some(field), false, Action::Allow) = (excluded, named, action) {
        only_negated(field, &path.key(field.name), reader);
    }
}

/// Each field stands before its `not`.
fn contradictions(fields: &[Field<'_>], path: &Path<'_>, reader: &mut Reader<'_>) {
    let (pairs, _) = fields.as_chunks::<2>();
    for [positive, negative] in pairs {
        contradiction(positive, negative, path, reader);
    }
}

/// More values than these are not held against each other.
const MOST_VALUES: usize = 64;

/// Nothing is left of what a field names, where its `not` excludes all of it.
fn contradiction(
    positive: &Field<'_>,
    negative: &Field<'_>,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) {
    let (named, excluded) = (positive.values, negative.values);
    let Some(first) = named.first() else { return };
    let few = named.len().max(excluded.len()) <= MOST_VALUES;
    if !few || excluded.is_empty() || !values_cover(excluded, named, positive.form) {
        return;
    }
    reader.report(
        &code::NEVER_MATCHES,
        first.at.clone(),
        &path.key(positive.name),
        format!(
            "`{}` excludes all that `{}` names: this never matches",
            negative.name, positive.name
        ),
        "keep one of the two",
    );
}

/// `["*"]`: "no identity at all" is meant when negated.
fn is_presence(field: &Field<'_>) -> bool {
    matches!(field.values.as_slice(), [only] if only.value == "*")
}

fn only_negated(field: &Field<'_>, path: &Path<'_>, reader: &mut Reader<'_>) {
    let Some(first) = field.values.first() else {
        return;
    };
    reader.report(
        &code::ONLY_NEGATED,
        first.at.clone(),
        path,
        format!(
            "`{}` alone also allows requests that have no such attribute",
            field.name
        ),
        "say what must be there too: `[\"*\"]` in the field without `not` means any",
    );
}

fn check_operation(
    operation: &OperationMatch,
    action: Action,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) {
    let all = fields::of_operation(operation);
    for field in &all {
        each(field, action, &path.key(field.name), reader);
    }
    contradictions(&all, path, reader);
}

fn check_condition(
    condition: &ConditionMatch,
    action: Action,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) {
    let key = condition.key.value.as_str();
    let Ok(form) = fields::form_of_key(key) else {
        return;
    };
    let field = |name, values| Field {
        name,
        values,
        form,
        identity: fields::is_identity_key(key),
        http: fields::is_http_key(key),
    };
    let positive = field("values", &condition.values);
    let negative = field("notValues", &condition.not_values);
    for field in [&positive, &negative] {
        each(field, action, &path.key(field.name), reader);
    }
    contradiction(&positive, &negative, path, reader);
    let optional = negative.identity || key.starts_with("request.headers");
    if action == Action::Allow && optional && condition.values.is_empty() && !is_presence(&negative)
    {
        only_negated(&negative, &path.key("notValues"), reader);
    }
    values::header_name(&condition.key, &path.key("key"), reader);
}

fn each(field: &Field<'_>, action: Action, path: &Path<'_>, reader: &mut Reader<'_>) {
    // Whether a value that matches less than meant lets through more.
    let opens = match action {
        Action::Allow => field.is_negated(),
        Action::Deny => !field.is_negated(),
        Action::Audit | Action::Custom => false,
    };
    for (index, value) in field.values.iter().enumerate() {
        let path = path.index(index);
        match field.form {
            Form::Principal => values::principal(value, &path, reader),
            Form::Address => values::address(value, &path, reader),
            Form::Method => values::method(value, &path, reader),
            Form::Path => values::path(value, opens, &path, reader),
            Form::Host => values::host(value, field.values, opens, &path, reader),
            Form::Text if !field.name.ends_with("amespaces") && field.name != "values" => {
                values::stars(value, &path, reader);
            }
            Form::Text | Form::Port | Form::ServiceAccount | Form::TrustDomain => {}
        }
    }
}
