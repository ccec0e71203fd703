//! The cluster that workloads run in: its pods are attested, and its ClusterSPIFFEIDs make entries.
//!
//! ```text
//! API server -> follow: list, watch -> pods of this node -> attestor `k8s`
//!                                   -> ClusterSPIFFEIDs, pods, … -> entries of the registry
//! ```

mod cluster_spiffe_id;
mod controller;
mod entries;
pub(crate) mod follow;
pub(crate) mod object;

use std::sync::Arc;

use kube::Api;
pub use portcullis_wire::kube::Cluster;
use portcullis_wire::kube::ConnectError;

pub use self::controller::EntriesOptions;

use self::controller::Controller;
use self::follow::{Following, State};
use crate::attest::Attestor;
use crate::attest::kubernetes::pods::NodePods;
use crate::attest::kubernetes::{Attested, AttestorOptions, Counts, KubernetesAttestor};
use crate::ca::Ca;
use crate::observe::cluster::{AttestorStatus, ClusterStatus, ClusterView, Followed};

/// What is decided about the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which cluster.
    pub cluster: Cluster,
    /// The node whose pods are attested, and how; `None`: none are.
    pub attestor: Option<(String, AttestorOptions)>,
    /// How ClusterSPIFFEIDs make entries; `None`: they make none.
    pub entries: Option<EntriesOptions>,
}

/// The cluster as it is followed.
#[derive(Debug)]
pub struct Kubernetes {
    node: Option<NodeView>,
    controller: Option<Controller>,
}

#[derive(Debug)]
struct NodeView {
    name: String,
    pods: Arc<NodePods>,
    counts: Arc<Counts>,
}

impl Kubernetes {
    /// A client for the cluster, and what attests by it. Nothing is asked yet.
    ///
    /// # Errors
    /// When there is no way to the cluster.
    pub async fn connect(
        options: Options,
    ) -> Result<(Arc<Self>, Option<Box<dyn Attestor>>), ConnectError> {
        let client = portcullis_wire::kube::client(&options.cluster).await?;
        let mut attestor: Option<Box<dyn Attestor>> = None;
        let node = options.attestor.map(|(name, options)| {
            let pods = Arc::new(NodePods::new(Api::all(client.clone()), &name));
            let ours = KubernetesAttestor::new(Arc::clone(&pods), options);
            let counts = Arc::clone(ours.counts());
            attestor = Some(Box::new(ours));
            NodeView { name, pods, counts }
        });
        let entries = options.entries;
        let controller = entries.map(|entries| Controller::new(client, entries));
        Ok((Arc::new(Self { node, controller }), attestor))
    }

    /// Follows the cluster; never ends.
    pub async fn run(&self, ca: &Arc<Ca>) {
        let pods = async {
            if let Some(node) = &self.node {
                node.pods.follow(|| ca.wake()).await;
            }
        };
        let entries = async {
            if let Some(controller) = &self.controller {
                controller.run(ca).await;
            }
        };
        tokio::join!(pods, entries, std::future::pending::<()>());
    }
}

impl ClusterView for Kubernetes {
    fn status(&self) -> ClusterStatus {
        let node = self.node.as_ref();
        let of_node = node.map(|node| &node.pods.following);
        let of_entries = self.controller.iter().flat_map(|one| &one.followed);
        ClusterStatus {
            node: node.map_or_else(String::new, |node| node.name.clone()),
            attestor: node.map(|node| AttestorStatus {
                pods: node.pods.len(),
                attested: Attested::ALL
                    .map(|how| (how.as_str(), node.counts.attested(how)))
                    .to_vec(),
                looks: node.counts.looks(),
            }),
            entries: self.controller.as_ref().map(Controller::status),
            followed: of_node
                .into_iter()
                .chain(of_entries)
                .map(followed)
                .collect(),
        }
    }
}

fn followed(following: &Following) -> Followed {
    Followed {
        resource: following.resource,
        is_synced: following.is_synced(),
        is_forbidden: matches!(following.state(), State::Forbidden { .. }),
        is_absent: following.state() == State::NotInstalled,
        trouble: following.trouble(),
        age: following.age(),
    }
}
