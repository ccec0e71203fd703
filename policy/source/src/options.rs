//! What a source is told: which cluster, which part of it, and what to do there.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis_policy::settings::Settings;

use crate::kind::{KINDS, is_mesh_config};
use crate::state::Place;
use crate::status::StatusOptions;

/// Where Istio keeps its mesh configuration unless told otherwise.
const ROOT_NAMESPACE: &str = "istio-system";

/// What is followed, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// What a compilation depends on beside the objects.
    pub settings: Settings,
    /// Namespaces to follow, the root namespace always among them; empty for all.
    pub namespaces: BTreeSet<String>,
    /// Namespace of the ConfigMap with the mesh configuration; `None`: the configured root namespace, else `istio-system`.
    pub root_namespace: Option<String>,
    /// Name of that ConfigMap: another for each revision of Istio.
    pub mesh_config: String,
    /// How often a kind that is not installed, or may not be read, is looked at.
    pub look: Duration,
    /// Writing statuses; `None` for none.
    pub status: Option<StatusOptions>,
}

impl Options {
    /// Everything is followed and nothing is written.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            namespaces: BTreeSet::new(),
            root_namespace: None,
            mesh_config: "istio".to_owned(),
            look: Duration::from_secs(5),
            status: None,
        }
    }

    /// The root namespace as far as it is known before anything is read.
    #[must_use]
    pub fn root_namespace(&self) -> &str {
        let configured = self.settings.mesh.root_namespace.as_deref();
        let own = self.root_namespace.as_deref();
        own.or(configured).unwrap_or(ROOT_NAMESPACE)
    }

    /// Where each kind is followed.
    pub(crate) fn places(&self) -> Vec<Place> {
        let root = self.root_namespace();
        let mut namespaces: Vec<Option<String>> = Vec::new();
        if self.namespaces.is_empty() {
            namespaces.push(None);
        } else {
            let named = self.namespaces.iter().map(String::as_str).chain([root]);
            let named: BTreeSet<&str> = named.collect();
            namespaces.extend(named.into_iter().map(|name| Some(name.to_owned())));
        }
        let of_kind = |(number, kind)| {
            let place = |namespace: Option<String>, name: Option<String>| Place {
                kind: number,
                namespace,
                name,
            };
            if is_mesh_config(kind) {
                let (root, name) = (root.to_owned(), self.mesh_config.clone());
                return vec![place(Some(root), Some(name))];
            }
            if kind.namespaced {
                let namespaces = namespaces.iter().cloned();
                return namespaces.map(|namespace| place(namespace, None)).collect();
            }
            // A client of few namespaces need not see the names of all.
            let names = namespaces.iter().cloned();
            match kind.name {
                "Namespace" => names.map(|name| place(None, name)).collect(),
                _ => vec![place(None, None)],
            }
        };
        KINDS.iter().enumerate().flat_map(of_kind).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(options: &Options) -> Vec<String> {
        let places = options.places();
        let words = places.iter().map(|place| {
            let (namespace, name) = (place.namespace.as_deref(), place.name.as_deref());
            format!(
                "{} {} {}",
                place.kind().resource(),
                namespace.unwrap_or("*"),
                name.unwrap_or("*")
            )
        });
        words.collect()
    }

    #[test]
    fn everything_is_followed_unless_told_otherwise() {
        let words = words(&Options::new(Settings::default()));
        assert_eq!(words.len(), KINDS.len());
        assert!(words.contains(&"pods * *".to_owned()));
        assert!(words.contains(&"configmaps istio-system istio".to_owned()));
    }

    #[test]
    fn the_root_namespace_is_followed_with_the_chosen_ones() {
        let mut options = Options::new(Settings::default());
        options.settings.mesh.root_namespace = Some("mesh".to_owned());
        options.namespaces = ["mesh", "shop"].map(str::to_owned).into();
        let words = words(&options);
        for there in [
            "pods shop *",
            "pods mesh *",
            "namespaces * shop",
            "namespaces * mesh",
            "gatewayclasses.gateway.networking.k8s.io * *",
            "configmaps mesh istio",
        ] {
            assert!(words.contains(&there.to_owned()), "{there}: {words:?}");
        }
        assert!(!words.contains(&"pods * *".to_owned()));
        options.root_namespace = Some("elsewhere".to_owned());
        assert_eq!(options.root_namespace(), "elsewhere");
    }
}
