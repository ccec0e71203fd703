//! The mesh's own settings: what MeshConfig documents and the configuration agree on.
//!
//! ```text
//! MeshConfig documents, `mesh:` of the configuration -> Mesh
//! ```
//!
//! The configuration wins field by field, with a note. Of several documents the later wins, field by
//! field, with a warning: a live mesh has exactly one.

mod trust_domain;

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location, code};
use crate::resource::{ExtensionProvider, MeshConfig, PathNormalization, Resource};
use crate::settings::Settings;

/// `rootNamespace` where nothing says otherwise.
pub const DEFAULT_ROOT_NAMESPACE: &str = "istio-system";
/// `trustDomain` where nothing says otherwise. As the first segment of a principal it also points to
/// the mesh's own trust domain, whatever that is called.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

/// The mesh that a set of policies belongs to, every field decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Namespace whose policies reach the whole mesh.
    pub root_namespace: String,
    /// Trust domain of the mesh's own identities.
    pub trust_domain: String,
    /// Older or sister trust domains that count as the mesh's own.
    pub trust_domain_aliases: Vec<String>,
    /// How paths are normalised before a rule sees them.
    pub path_normalization: PathNormalization,
    /// Proxies in front of the gateway whose X-Forwarded-For entries are trusted.
    pub num_trusted_proxies: Option<u32>,
    /// Providers that CUSTOM policies can name.
    pub extension_providers: Vec<ExtensionProvider>,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            root_namespace: DEFAULT_ROOT_NAMESPACE.to_owned(),
            trust_domain: DEFAULT_TRUST_DOMAIN.to_owned(),
            trust_domain_aliases: Vec::new(),
            path_normalization: PathNormalization::default(),
            num_trusted_proxies: None,
            extension_providers: Vec::new(),
        }
    }
}

impl Mesh {
    /// Folds the MeshConfig documents of `resources` and `settings.mesh` into one mesh.
    ///
    /// An empty `rootNamespace` or `trustDomain` says nothing, as in protobuf.
    #[must_use]
    pub fn resolve(resources: &[Arc<Resource>], settings: &Settings) -> (Self, Vec<Diagnostic>) {
        let mut diagnostics = Vec::new();
        let mut documents: Option<MeshConfig> = None;
        for resource in resources {
            let Resource::MeshConfig(config) = resource.as_ref() else {
                continue;
            };
            documents = Some(match documents {
                None => config.clone(),
                Some(earlier) => {
                    diagnostics.push(repeated(&earlier.at, &config.at));
                    let mut merged = earlier;
                    overlay(&mut merged, config);
                    merged.at = config.at.clone();
                    merged
                }
            });
        }
        let mut config = documents.unwrap_or_default();
        let at = config.at.clone();
        for field in overlay(&mut config, &settings.mesh) {
            diagnostics.push(overridden(field, at.clone()));
        }
        (Self::from(config), diagnostics)
    }

    /// True for the mesh's trust domain and its aliases.
    #[must_use]
    pub fn is_own_trust_domain(&self, trust_domain: &str) -> bool {
        self.trust_domains().any(|own| own == trust_domain)
    }

    /// The mesh's trust domain, then its aliases.
    fn trust_domains(&self) -> impl Iterator<Item = &str> + Clone {
        std::iter::once(self.trust_domain.as_str())
            .chain(self.trust_domain_aliases.iter().map(String::as_str))
    }
}

impl From<MeshConfig> for Mesh {
    fn from(config: MeshConfig) -> Self {
        // Destructured whole, so that a new field cannot be forgotten here.
        let MeshConfig {
            root_namespace,
            trust_domain,
            trust_domain_aliases,
            path_normalization,
            num_trusted_proxies,
            extension_providers,
            at: _,
        } = config;
        let default = Self::default();
        Self {
            root_namespace: spoken(root_namespace).unwrap_or(default.root_namespace),
            trust_domain: spoken(trust_domain).unwrap_or(default.trust_domain),
            trust_domain_aliases: trust_domain_aliases.unwrap_or_default(),
            path_normalization: path_normalization.unwrap_or_default(),
            num_trusted_proxies,
            extension_providers: extension_providers.unwrap_or_default(),
        }
    }
}

fn spoken(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

/// Lets every field that `over` speaks of win; returns the names of those where `under` had spoken
/// differently.
fn overlay(under: &mut MeshConfig, over: &MeshConfig) -> Vec<&'static str> {
    let mut replaced = Vec::new();
    let mut name = |field, differs| {
        if differs {
            replaced.push(field);
        }
    };
    name(
        "rootNamespace",
        replace(
            &mut under.root_namespace,
            spoken(over.root_namespace.clone()),
        ),
    );
    name(
        "trustDomain",
        replace(&mut under.trust_domain, spoken(over.trust_domain.clone())),
    );
    name(
        "trustDomainAliases",
        replace(
            &mut under.trust_domain_aliases,
            over.trust_domain_aliases.clone(),
        ),
    );
    name(
        "pathNormalization",
        replace(&mut under.path_normalization, over.path_normalization),
    );
    name(
        "defaultConfig.gatewayTopology.numTrustedProxies",
        replace(&mut under.num_trusted_proxies, over.num_trusted_proxies),
    );
    name(
        "extensionProviders",
        replace(
            &mut under.extension_providers,
            over.extension_providers.clone(),
        ),
    );
    replaced
}

/// Returns true when two different values stood against each other.
fn replace<T: PartialEq>(under: &mut Option<T>, over: Option<T>) -> bool {
    if over.is_none() {
        return false;
    }
    let differs = under.is_some() && *under != over;
    *under = over;
    differs
}

fn overridden(field: &'static str, at: Location) -> Diagnostic {
    code::MESH_FIELD_OVERRIDDEN
        .at(
            at,
            format!("`{field}` of MeshConfig is overridden by `mesh` of the configuration"),
        )
        .with_resource("MeshConfig")
        .with_field(field)
}

fn repeated(earlier: &Location, later: &Location) -> Diagnostic {
    code::MESH_CONFIG_REPEATED
        .at(
            later.clone(),
            format!("a second MeshConfig; where both set a field this one wins over `{earlier}`"),
        )
        .with_resource("MeshConfig")
        .with_hint("a mesh has one MeshConfig: merge the two")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Severity;

    fn document(line: u32, change: impl FnOnce(&mut MeshConfig)) -> Arc<Resource> {
        let mut config = MeshConfig::default();
        config.at.file = "mesh.yaml".into();
        config.at.line = line;
        change(&mut config);
        Arc::new(Resource::MeshConfig(config))
    }

    #[test]
    fn defaults_without_any_document() {
        let (mesh, diagnostics) = Mesh::resolve(&[], &Settings::default());
        assert_eq!(mesh, Mesh::default());
        assert_eq!(mesh.root_namespace, "istio-system");
        assert_eq!(mesh.trust_domain, "cluster.local");
        assert_eq!(mesh.path_normalization, PathNormalization::Base);
        assert_eq!(mesh.num_trusted_proxies, None);
        assert!(diagnostics.is_empty());
    }

    #[test]
    fn settings_win_field_by_field_with_a_note_where_they_differ() {
        let resources = [document(3, |c| {
            c.root_namespace = Some("root".into());
            c.trust_domain = Some("td1".into());
            c.num_trusted_proxies = Some(2);
        })];
        let mut settings = Settings::default();
        settings.mesh.trust_domain = Some("td2".into());
        settings.mesh.num_trusted_proxies = Some(2);
        settings.mesh.trust_domain_aliases = Some(vec!["td1".into()]);
        let (mesh, diagnostics) = Mesh::resolve(&resources, &settings);
        assert_eq!(mesh.root_namespace, "root");
        assert_eq!(mesh.trust_domain, "td2");
        assert_eq!(mesh.trust_domain_aliases, ["td1"]);
        assert_eq!(mesh.num_trusted_proxies, Some(2));
        assert_eq!(diagnostics.len(), 1, "{diagnostics:?}");
        assert_eq!(diagnostics[0].severity, Severity::Note);
        assert_eq!(diagnostics[0].field.as_deref(), Some("trustDomain"));
        assert_eq!(diagnostics[0].location.line, 3);
    }

    #[test]
    fn the_later_of_two_documents_wins_with_a_warning() {
        let resources = [
            document(1, |c| {
                c.root_namespace = Some("first".into());
                c.trust_domain = Some("td1".into());
            }),
            document(9, |c| c.root_namespace = Some("second".into())),
        ];
        let (mesh, diagnostics) = Mesh::resolve(&resources, &Settings::default());
        assert_eq!(mesh.root_namespace, "second");
        assert_eq!(mesh.trust_domain, "td1");
        assert_eq!(diagnostics.len(), 1);
        assert_eq!(diagnostics[0].severity, Severity::Warning);
        assert_eq!(diagnostics[0].location.line, 9);
        assert!(
            diagnostics[0].message.contains("mesh.yaml:1:0"),
            "{}",
            diagnostics[0].message
        );
    }

    #[test]
    fn an_empty_name_says_nothing() {
        let resources = [document(1, |c| {
            c.root_namespace = Some(String::new());
            c.trust_domain = Some(String::new());
        })];
        let (mesh, _) = Mesh::resolve(&resources, &Settings::default());
        assert_eq!(mesh, Mesh::default());
    }
}
