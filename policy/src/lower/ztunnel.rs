//! Rules as ztunnel reads them: layer 4 only (policy.md 1.8).
//!
//! Each entry of `from` and `to` and each condition is one match; a match that lost every field is
//! skipped, not satisfied, which turns an all-HTTP DENY into nothing. Trust domains are not
//! translated and aliases not expanded.

use std::sync::Arc;

use crate::model::{Alternative, Clause, IdentityField, Matcher, Role, Rule};
use crate::resource::{OperationMatch, RuleSpec, SourceMatch, Values};
use crate::text::{Cidr, Pattern};

/// Fills `rule` from its spec.
///
/// # Errors
/// Why an ALLOW rule is left out: it has a part that ztunnel cannot see.
pub fn fill(mut rule: Rule, spec: &RuleSpec) -> Result<Rule, String> {
    if rule.role == Role::Allow
        && let Some(part) = layer_7(spec)
    {
        return Err(format!(
            "ztunnel cannot see `{part}` and leaves the ALLOW rule out"
        ));
    }
    let namespace = Arc::clone(&rule.id.namespace);
    for (index, entry) in spec.to.iter().enumerate() {
        let clauses = entry.value.as_ref().map(operation).unwrap_or_default();
        rule.to.push(alternative(index, clauses));
    }
    for (index, entry) in spec.from.iter().enumerate() {
        let clauses = entry
            .value
            .as_ref()
            .map(|s| source(s, &namespace))
            .unwrap_or_default();
        rule.from.push(alternative(index, clauses));
    }
    for (index, condition) in spec.when.iter().enumerate() {
        let before = rule.when.len();
        let read: fn(&str) -> Option<Matcher> = match condition.key.value.as_str() {
            "source.ip" => source_ip,
            "source.namespace" => namespace_match,
            "source.principal" => principal,
            "destination.ip" => destination_ip,
            "destination.port" => destination_port,
            _ => |_| None,
        };
        for (values, negated) in [(&condition.values, false), (&condition.not_values, true)] {
            push(
                &mut rule.when,
                &condition.key.value,
                Some(index),
                negated,
                values,
                read,
            );
        }
        if rule.when.len() == before {
            // An empty match is skipped: no clause of the rule can be satisfied.
            rule.never = true;
        }
    }
    Ok(rule)
}

fn alternative(index: usize, clauses: Vec<Clause>) -> Alternative {
    Alternative {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        never: clauses.is_empty(),
        clauses,
    }
}

fn push(
    clauses: &mut Vec<Clause>,
    field: &str,
    when_index: Option<usize>,
    negated: bool,
    values: &Values,
    read: impl Fn(&str) -> Option<Matcher>,
) {
    let any: Vec<Matcher> = values.iter().filter_map(|v| read(&v.value)).collect();
    if let (false, Some(first)) = (any.is_empty(), values.first()) {
        clauses.push(Clause {
            field: Arc::from(field),
            when_index: when_index.map(|i| u32::try_from(i).unwrap_or(u32::MAX)),
            negated,
            any,
            at: first.at.clone(),
        });
    }
}

fn source(s: &SourceMatch, policy_namespace: &str) -> Vec<Clause> {
    let mut clauses = Vec::new();
    let account = |v: &str| Some(service_account(v, policy_namespace));
    let c = &mut clauses;
    push(c, "ipBlocks", None, false, &s.ip_blocks, source_ip);
    push(c, "notIpBlocks", None, true, &s.not_ip_blocks, source_ip);
    push(c, "namespaces", None, false, &s.namespaces, namespace_match);
    push(
        c,
        "notNamespaces",
        None,
        true,
        &s.not_namespaces,
        namespace_match,
    );
    push(
        c,
        "serviceAccounts",
        None,
        false,
        &s.service_accounts,
        account,
    );
    push(
        c,
        "notServiceAccounts",
        None,
        true,
        &s.not_service_accounts,
        account,
    );
    push(c, "principals", None, false, &s.principals, principal);
    push(c, "notPrincipals", None, true, &s.not_principals, principal);
    clauses
}

fn operation(o: &OperationMatch) -> Vec<Clause> {
    let mut clauses = Vec::new();
    push(
        &mut clauses,
        "ports",
        None,
        false,
        &o.ports,
        destination_port,
    );
    push(
        &mut clauses,
        "notPorts",
        None,
        true,
        &o.not_ports,
        destination_port,
    );
    clauses
}

fn source_ip(value: &str) -> Option<Matcher> {
    Cidr::parse(value).ok().map(Matcher::SourceIp)
}

fn destination_ip(value: &str) -> Option<Matcher> {
    Cidr::parse(value).ok().map(Matcher::DestinationIp)
}

fn destination_port(value: &str) -> Option<Matcher> {
    super::envoy::port(value).ok().map(Matcher::DestinationPort)
}

fn namespace_match(value: &str) -> Option<Matcher> {
    Some(Matcher::Identity(
        IdentityField::ZtunnelNamespace,
        Pattern::string(value),
    ))
}

fn principal(value: &str) -> Option<Matcher> {
    Some(Matcher::Identity(
        IdentityField::ZtunnelPrincipal,
        Pattern::string(value),
    ))
}

fn service_account(value: &str, policy_namespace: &str) -> Matcher {
    let full = if value.contains('/') {
        value.to_owned()
    } else {
        format!("{policy_namespace}/{value}")
    };
    Matcher::Identity(IdentityField::ZtunnelServiceAccount, Pattern::exact(&full))
}

/// The first part of the rule that ztunnel cannot see.
pub(crate) fn layer_7(spec: &RuleSpec) -> Option<String> {
    let first = |fields: &[(&str, &Values)]| {
        fields
            .iter()
            .find(|(_, v)| !v.is_empty())
            .map(|(name, _)| (*name).to_owned())
    };
    let to = spec
        .to
        .iter()
        .filter_map(|t| t.value.as_ref())
        .find_map(|o| {
            first(&[
                ("hosts", &o.hosts),
                ("notHosts", &o.not_hosts),
                ("methods", &o.methods),
                ("notMethods", &o.not_methods),
                ("paths", &o.paths),
                ("notPaths", &o.not_paths),
            ])
        });
    let from = || {
        spec.from
            .iter()
            .filter_map(|f| f.value.as_ref())
            .find_map(|s| {
                first(&[
                    ("remoteIpBlocks", &s.remote_ip_blocks),
                    ("notRemoteIpBlocks", &s.not_remote_ip_blocks),
                    ("requestPrincipals", &s.request_principals),
                    ("notRequestPrincipals", &s.not_request_principals),
                ])
            })
    };
    let when = || {
        spec.when
            .iter()
            .map(|c| c.key.value.as_str())
            .find(|key| {
                !matches!(
                    *key,
                    "source.ip"
                        | "source.namespace"
                        | "source.principal"
                        | "destination.ip"
                        | "destination.port"
                )
            })
            .map(str::to_owned)
    };
    to.or_else(from).or_else(when)
}
