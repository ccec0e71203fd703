//! security.istio.io AuthorizationPolicy, read as Istio's API server and decoder would.

use super::annotations;
use super::attachment::Attachment;
use super::path::Path;
use super::reader::{Reader, nearest};
use super::{
    Action, AuthorizationPolicy, ConditionMatch, Located, Metadata, OperationMatch, RuleSpec,
    SourceMatch,
};
use crate::diagnostic::{Location, code};
use crate::document::{Entry, Excerpt, Node, Value};

mod advice;
mod validate;
mod values;

const SPEC: &[&str] = &[
    "selector",
    "targetRefs",
    "targetRef",
    "rules",
    "action",
    "provider",
];
const RULE: &[&str] = &["from", "to", "when"];
const CONDITION: &[&str] = &["key", "values", "notValues"];
const SOURCE: &[&str] = &[
    "principals",
    "notPrincipals",
    "requestPrincipals",
    "notRequestPrincipals",
    "namespaces",
    "notNamespaces",
    "serviceAccounts",
    "notServiceAccounts",
    "trustDomains",
    "notTrustDomains",
    "ipBlocks",
    "notIpBlocks",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
];
const OPERATION: &[&str] = &[
    "hosts",
    "notHosts",
    "ports",
    "notPorts",
    "methods",
    "notMethods",
    "paths",
    "notPaths",
];

const ACTIONS: &[(&str, Action)] = &[
    ("ALLOW", Action::Allow),
    ("DENY", Action::Deny),
    ("AUDIT", Action::Audit),
    ("CUSTOM", Action::Custom),
];

/// Most rules of a policy, and most `from` entries of a rule.
const MOST_RULES: usize = 512;

/// Where fields stand that have no place of their own in the typed form.
#[derive(Default)]
struct Places {
    action: Option<Location>,
    provider: Option<Location>,
    rules: Option<Location>,
}

/// Reads the document; `None` when no faithful typed form exists, which is reported.
pub(super) fn read(
    root: &Node,
    meta: Metadata,
    reader: &mut Reader<'_>,
) -> Option<AuthorizationPolicy> {
    let parent = Path::Root;
    let path = parent.key("spec");
    let mut policy = AuthorizationPolicy {
        selector: None,
        target_refs: Vec::new(),
        action: Action::Allow,
        provider: None,
        rules: None,
        dry_run: meta
            .annotations
            .get(super::DRY_RUN)
            .map(|value| super::parse_bool(&value.value).unwrap_or(false)),
        meta,
    };
    let mut attachment = Attachment::default();
    let mut places = Places::default();
    let entries = match root.get("spec") {
        None => &[],
        Some(spec) => reader.object(spec, &path)?,
    };
    for entry in entries {
        let (node, field) = (&entry.value, path.key(&entry.key));
        if node.is_null() && SPEC.contains(&entry.key.as_str()) {
            continue;
        }
        match entry.key.as_str() {
            "action" => {
                places.action = Some(reader.location(node.at));
                policy.action = reader.word(node, &field, ACTIONS).unwrap_or_default();
            }
            "provider" => {
                places.provider = Some(reader.location(entry.key_at));
                policy.provider = provider(node, &field, reader);
            }
            "rules" => {
                places.rules = Some(reader.location(node.at));
                policy.rules = rules(node, &field, reader);
            }
            name => {
                let key_at = reader.location(entry.key_at);
                if !attachment.take(name, key_at, node, &field, reader) {
                    reader.unknown_field(entry, &path, SPEC);
                }
            }
        }
    }
    attachment.check(&path, reader);
    policy.selector = attachment.selector;
    policy.target_refs = attachment.target_refs;
    if reader.is_unreadable() {
        return None;
    }
    annotations::check(&policy.meta, Some(policy.action), reader);
    validate::check(&policy, &places, reader);
    advice::check(&policy, &places, reader);
    Some(policy)
}

/// `provider.name`; an empty name when the object has none.
fn provider(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<Located<String>> {
    let mut name = None;
    for entry in reader.object(node, path)? {
        match entry.key.as_str() {
            "name" if entry.value.is_null() => {}
            "name" => name = reader.string(&entry.value, &path.key("name")),
            _ => reader.unknown_field(entry, path, &["name"]),
        }
    }
    Some(name.unwrap_or_else(|| Located {
        value: String::new(),
        at: reader.location(node.at),
    }))
}

/// `rules`; `[]` decodes as absent.
fn rules(
    node: &Node,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Vec<Located<Option<RuleSpec>>>> {
    let nodes = reader.list(node, path)?;
    if nodes.len() > MOST_RULES {
        reader.report(
            &code::OUT_OF_BOUNDS,
            reader.location(node.at),
            path,
            format!("{} rules, more than {MOST_RULES}", nodes.len()),
            "split the policy",
        );
    }
    let rules: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let path = path.index(index);
            Located {
                value: rule(node, &path, reader),
                at: reader.location(node.at),
            }
        })
        .collect();
    (!rules.is_empty()).then_some(rules)
}

fn rule(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<RuleSpec> {
    // Unlike other wrong types it has a faithful form: istiod skips it.
    if node.is_null() {
        reader.report(
            &code::NULL_ENTRY,
            reader.location(node.at),
            path,
            "a rule is null",
            "`{}` is the rule that matches everything",
        );
        return None;
    }
    let mut rule = RuleSpec {
        at: reader.location(node.at),
        from: Vec::new(),
        to: Vec::new(),
        when: Vec::new(),
    };
    for entry in reader.object(node, path)? {
        let (node, path) = (&entry.value, path.key(&entry.key));
        if node.is_null() && RULE.contains(&entry.key.as_str()) {
            continue;
        }
        match entry.key.as_str() {
            "from" => {
                if node.as_list().is_some_and(|nodes| nodes.len() > MOST_RULES) {
                    reader.report(
                        &code::OUT_OF_BOUNDS,
                        reader.location(node.at),
                        &path,
                        format!("more than {MOST_RULES} sources"),
                        "split the rule",
                    );
                }
                rule.from = alternatives(node, &path, ("from", "source"), SOURCE, reader, source);
            }
            "to" => {
                rule.to = alternatives(
                    node,
                    &path,
                    ("to", "operation"),
                    OPERATION,
                    reader,
                    operation,
                );
            }
            "when" => rule.when = conditions(node, &path, reader),
            _ => reader.unknown_field(entry, path.parent(), RULE),
        }
    }
    Some(rule)
}

/// Entries of `from` or `to`: objects whose only field is `inner`.
fn alternatives<T>(
    node: &Node,
    path: &Path<'_>,
    (outer, inner): (&str, &str),
    fields: &[&str],
    reader: &mut Reader<'_>,
    read: fn(&Node, &Path<'_>, &mut Reader<'_>) -> Option<T>,
) -> Vec<Located<Option<T>>> {
    let Some(nodes) = reader.list(node, path) else {
        return Vec::new();
    };
    if nodes.is_empty() {
        reader.report(
            &code::EMPTY_LIST,
            reader.location(node.at),
            path,
            format!("`{outer}: []` reads as not set: it matches any {inner}"),
            format!("remove `{outer}`, or list what it should match"),
        );
    }
    let mut found = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let path = path.index(index);
        let at = reader.location(node.at);
        // Reported as an entry without its one field.
        if node.is_null() {
            found.push(Located { value: None, at });
            continue;
        }
        let mut value = None;
        for entry in reader.object(node, &path).unwrap_or_default() {
            if entry.key == inner {
                if !entry.value.is_null() {
                    value = read(&entry.value, &path.key(inner), reader);
                }
            } else if let Some(field) = nearest(&entry.key, fields) {
                reader.report(
                    &code::UNKNOWN_FIELD,
                    reader.location(entry.key_at),
                    &path.key(&entry.key),
                    format!("unknown field `{}`", Excerpt(&entry.key)),
                    format!("`{field}` belongs one level deeper, under `{inner}:`"),
                );
            } else {
                reader.unknown_field(entry, &path, &[inner]);
            }
        }
        found.push(Located { value, at });
    }
    found
}

fn source(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<SourceMatch> {
    let mut source = SourceMatch::default();
    let entries = reader.object(node, path)?;
    for entry in entries {
        let field = match entry.key.as_str() {
            "principals" => &mut source.principals,
            "notPrincipals" => &mut source.not_principals,
            "requestPrincipals" => &mut source.request_principals,
            "notRequestPrincipals" => &mut source.not_request_principals,
            "namespaces" => &mut source.namespaces,
            "notNamespaces" => &mut source.not_namespaces,
            "serviceAccounts" => &mut source.service_accounts,
            "notServiceAccounts" => &mut source.not_service_accounts,
            "trustDomains" => &mut source.trust_domains,
            "notTrustDomains" => &mut source.not_trust_domains,
            "ipBlocks" => &mut source.ip_blocks,
            "notIpBlocks" => &mut source.not_ip_blocks,
            "remoteIpBlocks" => &mut source.remote_ip_blocks,
            "notRemoteIpBlocks" => &mut source.not_remote_ip_blocks,
            _ => {
                reader.unknown_field(entry, path, SOURCE);
                continue;
            }
        };
        *field = list_of(entry, path, reader);
    }
    exclusive(entries, path, reader);
    Some(source)
}

/// The schema counts fields that are there, even as `[]`.
fn exclusive(entries: &[Entry], path: &Path<'_>, reader: &mut Reader<'_>) {
    let present = |names: &[&str]| {
        entries
            .iter()
            .find(|entry| names.contains(&entry.key.as_str()) && !entry.value.is_null())
    };
    let accounts = present(&["serviceAccounts", "notServiceAccounts"]);
    let others = present(&["principals", "notPrincipals", "namespaces", "notNamespaces"]);
    if let (Some(accounts), Some(other)) = (accounts, others) {
        reader.report(
            &code::SERVICE_ACCOUNTS_EXCLUSIVE,
            reader.location(accounts.key_at),
            &path.key(&accounts.key),
            format!("`{}` beside `{}` in one source", accounts.key, other.key),
            "put them into two entries of `from`, or keep one of them",
        );
    }
}

fn operation(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<OperationMatch> {
    let mut operation = OperationMatch::default();
    for entry in reader.object(node, path)? {
        let field = match entry.key.as_str() {
            "hosts" => &mut operation.hosts,
            "notHosts" => &mut operation.not_hosts,
            "ports" => &mut operation.ports,
            "notPorts" => &mut operation.not_ports,
            "methods" => &mut operation.methods,
            "notMethods" => &mut operation.not_methods,
            "paths" => &mut operation.paths,
            "notPaths" => &mut operation.not_paths,
            _ => {
                reader.unknown_field(entry, path, OPERATION);
                continue;
            }
        };
        *field = list_of(entry, path, reader);
    }
    Some(operation)
}

fn list_of(entry: &Entry, path: &Path<'_>, reader: &mut Reader<'_>) -> super::Values {
    if entry.value.is_null() {
        return super::Values::new();
    }
    let path = path.key(&entry.key);
    if matches!(&entry.value.value, Value::Sequence(nodes) if nodes.is_empty()) {
        reader.report(
            &code::EMPTY_LIST,
            reader.location(entry.value.at),
            &path,
            format!("`{}: []` reads as not set", entry.key),
            format!("remove `{}`, or list what it should match", entry.key),
        );
    }
    reader.strings(&entry.value, &path)
}

fn conditions(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Vec<ConditionMatch> {
    let nodes = reader.list(node, path).unwrap_or_default();
    let mut conditions = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let path = path.index(index);
        let mut condition = ConditionMatch {
            key: Located {
                value: String::new(),
                at: reader.location(node.at),
            },
            values: Vec::new(),
            not_values: Vec::new(),
        };
        // Reported as a condition without a key.
        if node.is_null() {
            conditions.push(condition);
            continue;
        }
        for entry in reader.object(node, &path).unwrap_or_default() {
            match entry.key.as_str() {
                "key" if entry.value.is_null() => {}
                "key" => {
                    if let Some(key) = reader.string(&entry.value, &path.key("key")) {
                        condition.key = key;
                    }
                }
                "values" => condition.values = list_of(entry, &path, reader),
                "notValues" => condition.not_values = list_of(entry, &path, reader),
                _ => reader.unknown_field(entry, &path, CONDITION),
            }
        }
        conditions.push(condition);
    }
    conditions
}
