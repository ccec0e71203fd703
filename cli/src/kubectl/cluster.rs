//! The cluster, read once: every policy and what they apply to.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use kube::Client;
use portcullis_policy::snapshot::Snapshot;
use portcullis_source::{Options, SharedStore, Source};
use portcullis_wire::kube as connection;

use super::args::ClusterArgs;
use crate::config::Config;

/// A cluster that was read.
pub struct Live {
    /// To ask for what is not followed.
    pub client: Client,
    /// The namespace that names without one are of.
    pub namespace: String,
    /// What is in force.
    pub snapshot: Arc<Snapshot>,
    /// The documents in force.
    pub store: SharedStore,
    /// Ends when it is dropped.
    _source: Source,
}

impl Live {
    /// Reads the cluster that `args` name.
    ///
    /// # Errors
    /// When it cannot be reached, or not be read whole in time; the message tells what is missing.
    pub async fn read(args: &ClusterArgs) -> anyhow::Result<Self> {
        let settings = Config::load(args.config.config.as_deref())?.settings();
        let cluster = connection::Cluster {
            kubeconfig: args.kubeconfig.clone(),
            context: args.context.clone(),
        };
        let config = connection::config(&cluster).await?;
        let namespace = args.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let address = config.cluster_url.to_string();
        let client = connection::connect(config)?;
        let source = Source::start(client.clone(), &Options::new(settings));
        let mut snapshots = source.snapshots();
        let first = snapshots.wait_for(Option::is_some);
        let snapshot = match tokio::time::timeout(args.request_timeout, first).await {
            Ok(found) => found.context("the cluster can no longer be read")?.clone(),
            Err(_) => {
                let status = source.status();
                let missing = status.borrow().missing();
                bail!(
                    "cannot read the cluster at {address} within {} s:\n  {}",
                    args.request_timeout.as_secs(),
                    missing.join("\n  ")
                );
            }
        };
        Ok(Self {
            client,
            namespace,
            snapshot: snapshot.context("the cluster can no longer be read")?,
            store: source.store(),
            _source: source,
        })
    }
}
