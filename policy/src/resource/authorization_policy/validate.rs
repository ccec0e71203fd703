//! What Istio's webhook refuses in an AuthorizationPolicy, and what Envoy cannot load.

use super::Places;
use crate::diagnostic::{Location, code};
use crate::document::Excerpt;
use crate::path::{PathTemplate, TemplateError};
use crate::resource::fields;
use crate::resource::path::Path;
use crate::resource::reader::Reader;
use crate::resource::{
    Action, AuthorizationPolicy, ConditionMatch, Located, OperationMatch, RuleSpec, SourceMatch,
    Values,
};
use crate::text::{Cidr, InvalidCidr};

/// Most service accounts of one list.
const MOST_ACCOUNTS: usize = 16;
/// Longest service account.
const LONGEST_ACCOUNT: usize = 320;

/// Reports everything that would keep the policy out of a mesh.
pub(super) fn check(policy: &AuthorizationPolicy, places: &Places, reader: &mut Reader<'_>) {
    let root = Path::Root;
    let spec = root.key("spec");
    let place = |at: &Option<Location>| at.clone().unwrap_or_else(|| policy.meta.at.clone());
    let custom = policy.action == Action::Custom;
    if policy.rules.is_none() && (custom || policy.action == Action::Deny) {
        let action = if custom { "CUSTOM" } else { "DENY" };
        reader.report(
            &code::NO_RULES,
            place(
                places
                    .rules
                    .as_ref()
                    .map_or(&places.action, |_| &places.rules),
            ),
            &spec.key("rules"),
            format!("a {action} policy without rules is never triggered"),
            "add `rules: [{}]` if it is meant for every request",
        );
    }
    let provider = spec.key("provider");
    match &policy.provider {
        Some(_) if !custom => reader.report(
            &code::PROVIDER_UNEXPECTED,
            place(&places.provider),
            &provider,
            "a provider on a policy that is not CUSTOM",
            "remove `provider`, or write `action: CUSTOM`",
        ),
        None if custom && policy.rules.is_some() => reader.report(
            &code::PROVIDER_MISSING,
            place(&places.action),
            &provider.key("name"),
            "a CUSTOM policy without a provider",
            "name one of MeshConfig's `extensionProviders`",
        ),
        Some(name) if custom && policy.rules.is_some() && name.value.is_empty() => reader.report(
            &code::PROVIDER_MISSING,
            name.at.clone(),
            &provider.key("name"),
            "a provider without a name",
            "name one of MeshConfig's `extensionProviders`",
        ),
        _ => {}
    }
    let path = spec.key("rules");
    for (index, rule) in policy.rules.iter().flatten().enumerate() {
        if let Some(rule) = &rule.value {
            check_rule(rule, custom, &path.index(index), reader);
        }
    }
}

fn check_rule(rule: &RuleSpec, custom: bool, path: &Path<'_>, reader: &mut Reader<'_>) {
    let from = path.key("from");
    for (index, entry) in rule.from.iter().enumerate() {
        let path = from.index(index);
        let path = path.key("source");
        match &entry.value {
            Some(source) => check_source(source, &entry.at, custom, &path, reader),
            None => reader.report(
                &code::EMPTY_SOURCE,
                entry.at.clone(),
                &path,
                "an entry of `from` without a source",
                "write `source:` with what it matches, or remove the entry",
            ),
        }
    }
    let to = path.key("to");
    for (index, entry) in rule.to.iter().enumerate() {
        let path = to.index(index);
        let path = path.key("operation");
        match &entry.value {
            Some(operation) => check_operation(operation, &entry.at, &path, reader),
            None => reader.report(
                &code::EMPTY_OPERATION,
                entry.at.clone(),
                &path,
                "an entry of `to` without an operation",
                "write `operation:` with what it matches, or remove the entry",
            ),
        }
    }
    let when = path.key("when");
    for (index, condition) in rule.when.iter().enumerate() {
        check_condition(condition, custom, &when.index(index), reader);
    }
}

fn check_source(
    source: &SourceMatch,
    at: &Location,
    custom: bool,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) {
    let all = fields::of_source(source);
    if all.iter().all(|field| field.values.is_empty()) {
        reader.report(
            &code::EMPTY_SOURCE,
            at.clone(),
            path,
            "an empty source",
            "say what it matches, or remove the entry",
        );
    }
    for field in &all {
        let path = path.key(field.name);
        if custom
            && field.identity
            && let Some(first) = field.values.first()
        {
            custom_field(field.name, first, &path, reader);
        }
        match field.form {
            fields::Form::Address => each(field.values, &path, reader, address),
            fields::Form::ServiceAccount => service_accounts(field.values, &path, reader),
            fields::Form::TrustDomain => each(field.values, &path, reader, trust_domain),
            _ => each(field.values, &path, reader, not_empty),
        }
    }
}

fn check_operation(
    operation: &OperationMatch,
    at: &Location,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) {
    let all = fields::of_operation(operation);
    if all.iter().all(|field| field.values.is_empty()) {
        reader.report(
            &code::EMPTY_OPERATION,
            at.clone(),
            path,
            "an empty operation",
            "say what it matches, or remove the entry",
        );
    }
    for field in &all {
        let path = path.key(field.name);
        match field.form {
            fields::Form::Port => each(field.values, &path, reader, port),
            fields::Form::Path => each(field.values, &path, reader, path_template),
            _ => each(field.values, &path, reader, not_empty),
        }
    }
}

fn check_condition(
    condition: &ConditionMatch,
    custom: bool,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) {
    let key = &condition.key;
    let key_path = path.key("key");
    if key.value.is_empty() {
        reader.report(
            &code::EMPTY_KEY,
            key.at.clone(),
            &key_path,
            "a condition without a key",
            "name an attribute, such as `request.headers[x-token]`",
        );
        return;
    }
    let is_identity = fields::is_identity_key(&key.value);
    if custom && is_identity {
        custom_field(&key.value, key, &key_path, reader);
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        reader.report(
            &code::NO_VALUES,
            key.at.clone(),
            path,
            format!("no `values` for `{}`", Excerpt(&key.value)),
            "add `values` or `notValues`",
        );
        return;
    }
    let form = match fields::form_of_key(&key.value) {
        Ok(form) => form,
        Err(fault) => {
            fault.report(key, &key_path, reader);
            return;
        }
    };
    for (name, values) in [
        ("values", &condition.values),
        ("notValues", &condition.not_values),
    ] {
        let path = path.key(name);
        match form {
            fields::Form::Address => each(values, &path, reader, address),
            fields::Form::ServiceAccount => service_accounts(values, &path, reader),
            fields::Form::TrustDomain => each(values, &path, reader, wildcard),
            fields::Form::Port => each(values, &path, reader, port),
            _ => each(values, &path, reader, not_empty),
        }
    }
}

/// What a check of one value looks like.
type Check = fn(&Located<String>, &Path<'_>, &mut Reader<'_>) -> bool;

fn each(values: &Values, path: &Path<'_>, reader: &mut Reader<'_>, check: Check) {
    for (index, value) in values.iter().enumerate() {
        check(value, &path.index(index), reader);
    }
}

fn custom_field(name: &str, value: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) {
    reader.report(
        &code::CUSTOM_FIELD,
        value.at.clone(),
        path,
        format!("a CUSTOM policy cannot match on `{}`", Excerpt(name)),
        "let the provider look at identities and tokens, or use a DENY policy beside it",
    );
}

fn not_empty(value: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) -> bool {
    if value.value.is_empty() {
        reader.report(
            &code::EMPTY_VALUE,
            value.at.clone(),
            path,
            "an empty string",
            "write a value, or remove the entry",
        );
    }
    !value.value.is_empty()
}

fn address(value: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) -> bool {
    if !not_empty(value, path, reader) {
        return false;
    }
    if let Err(error) = Cidr::parse(&value.value) {
        let message = match &error {
            InvalidCidr::Address(text) => format!("`{}` is not an address", Excerpt(text)),
            _ => format!("`{}` is not a block: {error}", Excerpt(&value.value)),
        };
        reader.report(
            &code::BAD_ADDRESS,
            value.at.clone(),
            path,
            message,
            "write an address such as `10.1.2.3`, or a block such as `10.1.0.0/16`: no port, no leading zeros",
        );
        return false;
    }
    true
}

fn port(value: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) -> bool {
    if !not_empty(value, path, reader) {
        return false;
    }
    // Go's ParseUint: leading zeros yes, signs no.
    let digits = value.value.bytes().all(|b| b.is_ascii_digit());
    let number = value.value.trim_start_matches('0');
    let ok = digits && (number.is_empty() || number.parse::<u16>().is_ok());
    if !ok {
        reader.report(
            &code::BAD_PORT,
            value.at.clone(),
            path,
            format!("`{}` is not a port", Excerpt(&value.value)),
            "ports are 0 to 65535, one by one: no names, no ranges",
        );
    }
    ok
}

fn path_template(value: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) -> bool {
    if !not_empty(value, path, reader) {
        return false;
    }
    let refused = if PathTemplate::is_template(&value.value) {
        PathTemplate::parse(&value.value).err()
    } else {
        PathTemplate::check(&value.value)
            .err()
            .map(TemplateError::Invalid)
    };
    match &refused {
        None => {}
        Some(TemplateError::Invalid(fault)) => reader.report(
            &code::BAD_TEMPLATE,
            value.at.clone(),
            path,
            format!(
                "`{}` is not a path template: {fault}",
                Excerpt(&value.value)
            ),
            "write `{*}` for one segment and `{**}` for the rest, each between slashes",
        ),
        Some(TemplateError::RefusedByEnvoy(fault)) => reader.report(
            &code::ABORTS_ENVOY,
            value.at.clone(),
            path,
            format!("Envoy cannot load `{}`: {fault}", Excerpt(&value.value)),
            "Istio accepts it, and then every proxy that receives it fails: mend the template",
        ),
    }
    refused.is_none()
}

fn service_accounts(values: &Values, path: &Path<'_>, reader: &mut Reader<'_>) {
    if let Some(extra) = values.get(MOST_ACCOUNTS) {
        reader.report(
            &code::OUT_OF_BOUNDS,
            extra.at.clone(),
            path,
            format!(
                "{} service accounts, more than {MOST_ACCOUNTS}",
                values.len()
            ),
            "spread them over several entries",
        );
    }
    each(values, path, reader, service_account);
}

fn service_account(value: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) -> bool {
    if !not_empty(value, path, reader) {
        return false;
    }
    let text = value.value.as_str();
    let parts: Vec<&str> = text.splitn(3, '/').collect();
    let fault = if text.contains('*') {
        Some("it has a wildcard")
    } else if parts.len() > 2 {
        Some("it has more than one `/`")
    } else if text.len() > LONGEST_ACCOUNT {
        Some("it has more than 320 characters")
    } else if parts.iter().any(|part| part.is_empty()) {
        Some("one side of the `/` is empty")
    } else {
        None
    };
    if let Some(fault) = fault {
        reader.report(
            &code::BAD_SERVICE_ACCOUNT,
            value.at.clone(),
            path,
            format!("`{}` is not a service account: {fault}", Excerpt(text)),
            "write `name` or `namespace/name`; for wildcards use `principals`",
        );
    }
    fault.is_none()
}

/// A trust domain in `when`: wildcards as below, `/` not looked at.
fn wildcard(value: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) -> bool {
    if !not_empty(value, path, reader) {
        return false;
    }
    let text = value.value.as_str();
    let fault = match text.matches('*').count() {
        0 => None,
        1 if text.starts_with('*') || text.ends_with('*') => None,
        1 => Some("`*` may stand at one of its ends only"),
        _ => Some("it has more than one `*`"),
    };
    if let Some(fault) = fault {
        bad_trust_domain(value, fault, path, reader);
    }
    fault.is_none()
}

fn trust_domain(value: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) -> bool {
    if !wildcard(value, path, reader) {
        return false;
    }
    let slash = value.value.contains('/');
    if slash {
        bad_trust_domain(value, "it has a `/`", path, reader);
    }
    !slash
}

fn bad_trust_domain(
    value: &Located<String>,
    fault: &str,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) {
    reader.report(
        &code::BAD_TRUST_DOMAIN,
        value.at.clone(),
        path,
        format!("`{}` is not a trust domain: {fault}", Excerpt(&value.value)),
        "write a name such as `cluster.local`, with at most one `*` at an end",
    );
}
