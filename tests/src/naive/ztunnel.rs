//! One rule against one connection at ztunnel (policy.md 1.8): parsed identity, layer 4 only.

use serde_json::Value;

use super::rule::strings;
use super::text::string_match;
use super::{Facts, address};

/// Conditions that ztunnel is told about.
const KEYS: [&str; 5] = [
    "source.ip",
    "source.namespace",
    "source.principal",
    "destination.ip",
    "destination.port",
];

/// Fields that make an ALLOW rule vanish.
const LAYER_7: [&str; 10] = [
    "hosts",
    "notHosts",
    "methods",
    "notMethods",
    "paths",
    "notPaths",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
    "requestPrincipals",
    "notRequestPrincipals",
];

/// Whether the rule matches.
#[must_use]
pub fn matches(rule: &Value, home: &str, action: &str, facts: &Facts) -> bool {
    if rule.is_null() {
        return false;
    }
    let list = |field: &str| rule[field].as_array().cloned().unwrap_or_default();
    let (from, to, when) = (list("from"), list("to"), list("when"));
    let layer_7 = |entry: &Value| {
        LAYER_7
            .iter()
            .any(|field| !strings(&entry[*field]).is_empty())
    };
    let dropped = from.iter().any(|entry| layer_7(&entry["source"]))
        || to.iter().any(|entry| layer_7(&entry["operation"]))
        || when
            .iter()
            .any(|entry| !KEYS.contains(&entry["key"].as_str().unwrap_or("")));
    if action == "ALLOW" && dropped {
        return false;
    }
    let any = |entries: &[Value], matches: &dyn Fn(&Value) -> Option<bool>| {
        entries.is_empty() || entries.iter().any(|entry| matches(entry) == Some(true))
    };
    any(&from, &|entry| source(&entry["source"], home, facts))
        && any(&to, &|entry| operation(&entry["operation"], facts))
        && when
            .iter()
            .all(|entry| condition(entry, facts) == Some(true))
}

/// ANDs the clauses that are there; a match without any is passed over (`None`).
fn all(clauses: &[Option<bool>]) -> Option<bool> {
    let told: Vec<bool> = clauses.iter().copied().flatten().collect();
    (!told.is_empty()).then(|| told.into_iter().all(|held| held))
}

/// Values ORed; unreadable ones are dropped, and a field without any readable one is not there.
fn clause(values: &Value, matches: impl Fn(&str) -> Result<bool, ()>) -> Option<bool> {
    let told: Vec<bool> = strings(values)
        .iter()
        .filter_map(|value| matches(value).ok())
        .collect();
    (!told.is_empty()).then(|| told.into_iter().any(|hit| hit))
}

fn source(source: &Value, home: &str, facts: &Facts) -> Option<bool> {
    let both = |field: &str, not: &str, matches: &dyn Fn(&str) -> Result<bool, ()>| {
        all(&[
            clause(&source[field], matches),
            clause(&source[not], matches).map(|hit| !hit),
        ])
    };
    all(&[
        both("principals", "notPrincipals", &|value| {
            Ok(principal(value, facts))
        }),
        both("namespaces", "notNamespaces", &|value| {
            Ok(namespace(value, facts))
        }),
        both("serviceAccounts", "notServiceAccounts", &|value| {
            let (namespace, account) = value.split_once('/').unwrap_or((home, value));
            Ok(identity(facts).is_some_and(|(_, ns, sa)| ns == namespace && sa == account))
        }),
        both("ipBlocks", "notIpBlocks", &|value| {
            address::in_block(value, facts.source_ip)
        }),
    ])
}

fn operation(operation: &Value, facts: &Facts) -> Option<bool> {
    all(&[
        clause(&operation["ports"], |value| port(value, facts)),
        clause(&operation["notPorts"], |value| port(value, facts)).map(|hit| !hit),
    ])
}

fn condition(condition: &Value, facts: &Facts) -> Option<bool> {
    let key = condition["key"].as_str().unwrap_or("");
    let matches = |value: &str| match key {
        "source.ip" => address::in_block(value, facts.source_ip),
        "source.namespace" => Ok(namespace(value, facts)),
        "source.principal" => Ok(principal(value, facts)),
        "destination.ip" => address::in_block(value, facts.destination_ip),
        "destination.port" => port(value, facts),
        _ => Err(()),
    };
    all(&[
        clause(&condition["values"], matches),
        clause(&condition["notValues"], matches).map(|hit| !hit),
    ])
}

fn port(value: &str, facts: &Facts) -> Result<bool, ()> {
    Ok(Some(address::port(value)?) == facts.destination_port)
}

/// Trust domain, namespace and service account of a SPIFFE ID in Istio's form.
#[must_use]
pub fn identity(facts: &Facts) -> Option<(&str, &str, &str)> {
    let id = facts.uri_sans.first()?.strip_prefix("spiffe://")?;
    match id.split('/').collect::<Vec<_>>()[..] {
        [domain, "ns", namespace, "sa", account] => Some((domain, namespace, account)),
        _ => None,
    }
}

fn principal(value: &str, facts: &Facts) -> bool {
    identity(facts).is_some_and(|(domain, namespace, account)| {
        string_match(value, &format!("{domain}/ns/{namespace}/sa/{account}"))
    })
}

fn namespace(value: &str, facts: &Facts) -> bool {
    let namespace = identity(facts).map_or("", |(_, namespace, _)| namespace);
    string_match(value, namespace)
}
