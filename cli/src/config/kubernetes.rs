//! `kubernetes:`: the API server that is followed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use portcullis_policy::document::Node;

use super::read::Reader;

/// `kubernetes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// `kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `context`.
    pub context: Option<String>,
    /// `namespaces`; empty for all.
    pub namespaces: BTreeSet<String>,
    /// `root_namespace`.
    pub root_namespace: Option<String>,
    /// `mesh_config`.
    pub mesh_config: String,
    /// `status`.
    pub status: Statuses,
    /// `lease_namespace`.
    pub lease_namespace: Option<String>,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            namespaces: BTreeSet::new(),
            root_namespace: None,
            mesh_config: "istio".to_owned(),
            status: Statuses::All,
            lease_namespace: None,
        }
    }
}

/// Whose statuses are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statuses {
    /// Of all policies.
    All,
    /// Of our own kinds.
    Own,
    /// Of none.
    None,
}

/// Reads `kubernetes`; the kubeconfig's path is relative to `folder`.
pub fn read(reader: &mut Reader, node: &Node, folder: &Path) -> KubernetesConfig {
    const WHOSE: &[(&str, Statuses)] = &[
        ("all", Statuses::All),
        ("own", Statuses::Own),
        ("none", Statuses::None),
    ];
    let mut config = KubernetesConfig::default();
    for (name, node) in reader.fields(node, "kubernetes") {
        match name {
            "kubeconfig" => {
                let path = reader.text(node, "a path");
                config.kubeconfig = path.map(|path| folder.join(path));
            }
            "context" => config.context = reader.text(node, "a context").map(str::to_owned),
            "namespaces" => {
                let names = reader.texts(node, "a namespace").into_iter();
                config.namespaces = names.map(str::to_owned).collect();
                // An empty list must not silently become "all".
                if config.namespaces.is_empty() {
                    let what = "no namespace; name one, or leave `namespaces` out for all";
                    reader.mistake(node.at, what.to_owned());
                }
            }
            "root_namespace" => {
                config.root_namespace = reader.text(node, "a namespace").map(str::to_owned);
            }
            "mesh_config" => {
                if let Some(name) = reader.text(node, "the name of a ConfigMap") {
                    config.mesh_config = name.to_owned();
                }
            }
            "status" => {
                if let Some(whose) = reader.word(node, WHOSE) {
                    config.status = whose;
                }
            }
            "lease_namespace" => {
                config.lease_namespace = reader.text(node, "a namespace").map(str::to_owned);
            }
            _ => {}
        }
    }
    config
}
