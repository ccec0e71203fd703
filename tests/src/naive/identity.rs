//! Peer identities: principals, namespaces, service accounts, trust domains (policy.md 1.4, 1.9).

use regex::escape;

use super::text::full_match;
use super::{Facts, Mesh, Target, World};

/// The names that identity fields are tried on: everything in the certificate, each alone; at a
/// waypoint its URI SANs as one text, which is what Istio's filter state holds there.
#[must_use]
pub fn names(world: &World, facts: &Facts) -> Vec<String> {
    if world.target == Target::Waypoint {
        let joined = facts.uri_sans.join(",");
        return Some(joined)
            .filter(|text| !text.is_empty())
            .into_iter()
            .collect();
    }
    let uris = facts.uri_sans.iter();
    uris.chain(&facts.dns_sans)
        .chain(&facts.subject)
        .cloned()
        .collect()
}

/// `principals`, with the mesh's trust domains exchanged for each other.
#[must_use]
pub fn principal(value: &str, mesh: &Mesh, name: &str) -> bool {
    migrated(value, mesh).iter().any(|value| {
        if value == "*" {
            !name.is_empty()
        } else if let Some(suffix) = value.strip_prefix('*') {
            full_match(&format!("spiffe://.*{}", escape(suffix)), name)
        } else if let Some(prefix) = value.strip_suffix('*') {
            name.starts_with(&format!("spiffe://{prefix}"))
        } else {
            name == format!("spiffe://{value}")
        }
    })
}

/// `namespaces`: every star is a wildcard.
#[must_use]
pub fn namespace(value: &str, name: &str) -> bool {
    let parts: Vec<String> = value.split('*').map(escape).collect();
    full_match(&format!(".*/ns/{}/.*", parts.join(".*")), name)
}

/// `serviceAccounts`: a bare name means the policy's own namespace.
#[must_use]
pub fn service_account(value: &str, home: &str, name: &str) -> bool {
    let (namespace, account) = value.split_once('/').unwrap_or((home, value));
    let pattern = format!(
        "spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?",
        escape(namespace),
        escape(account)
    );
    full_match(&pattern, name)
}

/// `trustDomains`, aliases included.
#[must_use]
pub fn trust_domain(value: &str, mesh: &Mesh, name: &str) -> bool {
    let ours = mesh.trust_domains();
    let values = if ours.contains(&value) {
        ours
    } else {
        vec![value]
    };
    values.iter().any(|value| match value.split_once('*') {
        _ if *value == "*" => name.starts_with("spiffe://"),
        None => name.starts_with(&format!("spiffe://{value}/")),
        Some((before, after)) => full_match(
            &format!("spiffe://{}[^/]*{}/.*", escape(before), escape(after)),
            name,
        ),
    })
}

/// A principal written for one of the mesh's trust domains stands for all of them.
fn migrated(value: &str, mesh: &Mesh) -> Vec<String> {
    let Some((domain, rest)) = value.split_once('/') else {
        return vec![value.to_owned()];
    };
    let ours = mesh.trust_domains();
    let known = ours.iter().any(|own| alike(domain, own)) || domain == "cluster.local";
    if value.split('/').count() != 5 || domain == "*" || !known {
        return vec![value.to_owned()];
    }
    ours.iter()
        .map(|own| match domain.strip_prefix('*') {
            Some(suffix) if own.ends_with(suffix) => value.to_owned(),
            _ => format!("{own}/{rest}"),
        })
        .collect()
}

/// Equal, or one is a wildcard form of the other.
fn alike(a: &str, b: &str) -> bool {
    let covers = |pattern: &str, text: &str| {
        pattern
            .strip_suffix('*')
            .is_some_and(|prefix| text.starts_with(prefix))
            || pattern
                .strip_prefix('*')
                .is_some_and(|suffix| text.ends_with(suffix))
    };
    a == b || covers(a, b) || covers(b, a)
}
