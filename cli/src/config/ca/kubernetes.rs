//! `ca.kubernetes`: the cluster that workloads run in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_ca::template::Text;
use portcullis_policy::document::Node;

use super::{lifetime, path};
use crate::config::read::Reader;

/// `ca.kubernetes` of the configuration; what is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaKubernetesConfig {
    /// `kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `context`.
    pub context: Option<String>,
    /// `attestor`.
    pub attestor: Option<bool>,
    /// `node`.
    pub node: Option<String>,
    /// `container_selectors`.
    pub container_selectors: Option<bool>,
    /// `container_wait`.
    pub container_wait: Option<Duration>,
    /// `max_age`.
    pub max_age: Option<Duration>,
    /// `proc_root`.
    pub proc_root: Option<PathBuf>,
    /// `cluster_spiffe_ids`.
    pub cluster_spiffe_ids: bool,
    /// `cluster_name`.
    pub cluster_name: Option<String>,
    /// `cluster_domain`.
    pub cluster_domain: Option<String>,
    /// `class_name`.
    pub class_name: Option<String>,
    /// `takes_classless`.
    pub takes_classless: bool,
    /// `ignore_namespaces`.
    pub ignore_namespaces: Vec<String>,
    /// `parent_id`.
    pub parent_id: Option<Text>,
}

/// Reads the section; relative paths are relative to `folder`.
pub fn read(reader: &mut Reader, node: &Node, folder: &Path) -> CaKubernetesConfig {
    let mut config = CaKubernetesConfig::default();
    for (name, node) in reader.fields(node, "ca.kubernetes") {
        match name {
            "kubeconfig" => config.kubeconfig = path(reader, node, folder),
            "context" => config.context = reader.text(node, "a context").map(Into::into),
            "attestor" => config.attestor = Some(reader.boolean(node)),
            "node" => config.node = reader.text(node, "a node's name").map(Into::into),
            "container_selectors" => config.container_selectors = Some(reader.boolean(node)),
            "container_wait" => config.container_wait = lifetime(reader, node),
            "max_age" => config.max_age = lifetime(reader, node),
            "cluster_spiffe_ids" => config.cluster_spiffe_ids = reader.boolean(node),
            "cluster_name" => config.cluster_name = reader.text(node, "a name").map(Into::into),
            "cluster_domain" => {
                config.cluster_domain = reader.text(node, "a domain").map(Into::into);
            }
            "class_name" => config.class_name = reader.text(node, "a name").map(Into::into),
            "takes_classless" => config.takes_classless = reader.boolean(node),
            "ignore_namespaces" => {
                let names = reader.texts(node, "a namespace").into_iter();
                config.ignore_namespaces = names.map(Into::into).collect();
            }
            "parent_id" => config.parent_id = template(reader, node),
            "proc_root" => config.proc_root = path(reader, node, folder),
            _ => {}
        }
    }
    config
}

fn template(reader: &mut Reader, node: &Node) -> Option<Text> {
    let text = reader.text(node, "a SPIFFE ID, which may be a template,")?;
    match Text::parse(text) {
        Ok(template) => Some(template),
        Err(error) => {
            reader.mistake(node.at, format!("`{text}`: {error}"));
            None
        }
    }
}
