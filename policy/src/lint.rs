//! What can only be seen when documents are looked at together.
//!
//! ```text
//! resources -> duplicates, attachments to nothing, identities that do not exist, rules in vain
//! ```
//!
//! Nothing here is guessed: a namespace is missing only where namespaces are listed at all, a
//! selector selects nothing only where there are workloads. Linear in the documents.

mod attachment;
mod duplicate;
mod identity;
mod mtls;
pub(crate) mod place;
mod provider;
mod rules;
pub(crate) mod shadow;

use std::sync::Arc;

pub use duplicate::duplicates;
pub(crate) use duplicate::identity;
pub(crate) use identity::check_user;

use crate::diagnostic::{Diagnostic, Location, code::Code};
use crate::resource::{AuthorizationPolicy, Metadata, Resource};

/// Diagnostics of the set as a whole, in the order of its documents. `trust_domains` are the mesh's
/// own and its aliases.
///
/// PeerAuthentications that compete are reported by
/// [`PeerAuthentications::diagnose`](crate::peer_authentication::PeerAuthentications::diagnose).
#[must_use]
pub fn lint(
    resources: &[Arc<Resource>],
    root_namespace: &str,
    trust_domains: &[String],
) -> Vec<Diagnostic> {
    let mut found = duplicates(resources);
    found.extend(lint_distinct(resources, root_namespace, trust_domains));
    found.sort_by(|a, b| a.location.cmp(&b.location));
    found
}

/// As [`lint`], of resources that are known to stand there once each.
#[must_use]
pub(crate) fn lint_distinct(
    resources: &[Arc<Resource>],
    root_namespace: &str,
    trust_domains: &[String],
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    attachment::check(resources, root_namespace, &mut found);
    identity::check(resources, root_namespace, trust_domains, &mut found);
    mtls::check(resources, root_namespace, &mut found);
    provider::check(resources, &mut found);
    rules::check(resources, &mut found);
    place::waypoint::check(resources, &mut found);
    shadow::check(resources, root_namespace, None, &mut found);
    found.sort_by(|a, b| a.location.cmp(&b.location));
    found
}

fn authorization_policies(
    resources: &[Arc<Resource>],
) -> impl Iterator<Item = &AuthorizationPolicy> {
    resources
        .iter()
        .filter_map(|resource| match resource.as_ref() {
            Resource::AuthorizationPolicy(policy) => Some(policy),
            _ => None,
        })
}

/// A diagnostic about a field of an object.
fn about(
    code: &Code,
    at: &Location,
    (kind, meta): (&str, &Metadata),
    field: impl Into<String>,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Diagnostic {
    code.at(at.clone(), message)
        .with_resource(format!("{kind}/{}/{}", meta.namespace, meta.name))
        .with_field(field)
        .with_hint(hint)
}

#[cfg(test)]
mod tests;
