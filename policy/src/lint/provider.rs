//! CUSTOM policies whose provider MeshConfig does not have.

use std::sync::Arc;

use super::{about, authorization_policies};
use crate::diagnostic::{Diagnostic, code};
use crate::document::Excerpt;
use crate::resource::{Action, Resource};

/// Reports providers that are not there, where a MeshConfig is.
pub(super) fn check(resources: &[Arc<Resource>], found: &mut Vec<Diagnostic>) {
    let mut meshes = resources
        .iter()
        .filter_map(|resource| match resource.as_ref() {
            Resource::MeshConfig(mesh) => Some(mesh),
            _ => None,
        })
        .peekable();
    if meshes.peek().is_none() {
        return;
    }
    let providers: Vec<_> = meshes
        .flat_map(|mesh| mesh.extension_providers.iter().flatten())
        .collect();
    for policy in authorization_policies(resources) {
        let Some(name) = &policy.provider else {
            continue;
        };
        if policy.action != Action::Custom || name.value.is_empty() {
            continue;
        }
        let provider = providers.iter().find(|p| p.name == name.value);
        let message = match provider {
            Some(provider) if provider.ext_authz.is_some() => continue,
            Some(_) => format!(
                "provider `{}` is no external authorizer",
                Excerpt(&name.value)
            ),
            None => format!("MeshConfig has no provider `{}`", Excerpt(&name.value)),
        };
        found.push(about(
            &code::UNKNOWN_PROVIDER,
            &name.at,
            ("AuthorizationPolicy", &policy.meta),
            "spec.provider.name",
            format!("{message}: what matches this policy is denied"),
            "name an `envoyExtAuthzGrpc` or `envoyExtAuthzHttp` provider of MeshConfig",
        ));
    }
}
