//! The API server as a source of snapshots: what follows it, and what serves, joined.

use std::sync::Arc;

use portcullis_authz::feed::{Feed, FeedKind, FeedSource, FeedStatus};
use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::document::SourceText;
use portcullis_policy::settings::Settings;
use portcullis_source::{
    Counters, KindState, KindStatus, Options, SharedStore, Source, Status, StatusOptions, metrics,
};
use portcullis_wire::kube::{Cluster, client};
use portcullis_wire::metrics::{Definition, Samples};
use tokio::sync::watch;

use crate::config::{KubernetesConfig, Statuses};

/// Begins to follow the cluster of `config`.
///
/// # Errors
/// When there is no way to a cluster; one that does not answer is waited for.
pub async fn start(
    config: &KubernetesConfig,
    settings: &Settings,
) -> anyhow::Result<(Source, Feed)> {
    let cluster = Cluster {
        kubeconfig: config.kubeconfig.clone(),
        context: config.context.clone(),
    };
    let client = client(&cluster).await?;
    let mut options = options(config, settings);
    options.status = statuses(config, client.default_namespace());
    let source = Source::start(client, &options);
    let feed = feed(&source);
    Ok((source, feed))
}

/// What of the cluster is followed; nothing is written.
pub fn options(config: &KubernetesConfig, settings: &Settings) -> Options {
    let mut options = Options::new(settings.clone());
    options.namespaces.clone_from(&config.namespaces);
    options.root_namespace.clone_from(&config.root_namespace);
    options.mesh_config.clone_from(&config.mesh_config);
    options
}

fn statuses(config: &KubernetesConfig, own_namespace: &str) -> Option<StatusOptions> {
    let istio = match config.status {
        Statuses::All => true,
        Statuses::Own => false,
        Statuses::None => return None,
    };
    let namespace = config.lease_namespace.as_deref().unwrap_or(own_namespace);
    let mut options = StatusOptions::new(namespace.to_owned(), identity());
    options.istio = istio;
    options.cases = Some(portcullis_authz::policy_test::run);
    Some(options)
}

/// The pod's name, and what no other process has.
fn identity() -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty());
    let started = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let started = started.unwrap_or_default().as_nanos();
    let host = host.as_deref().unwrap_or("portcullis");
    format!("{host}_{}_{started:x}", std::process::id())
}

fn feed(source: &Source) -> Feed {
    let mut followed = source.status();
    let (sender, status) = watch::channel(status(&followed.borrow_and_update()));
    tokio::spawn(async move {
        while followed.changed().await.is_ok() {
            let now = self::status(&followed.borrow_and_update());
            if sender.send(now).is_err() {
                return;
            }
        }
    });
    Feed {
        snapshots: source.snapshots(),
        status,
        source: Arc::new(Joined {
            store: source.store(),
            status: source.status(),
            counters: source.counters(),
        }),
    }
}

fn status(status: &Status) -> FeedStatus {
    FeedStatus {
        synced: status.synced,
        published: status.published,
        contact: status.contact,
        kinds: status.kinds.iter().map(kind).collect(),
        kept: status.kept,
        closed: status.closed,
        failure: status.failure.clone(),
        missing: status.missing(),
        leads: status.leads,
    }
}

fn kind(status: &KindStatus) -> FeedKind {
    let why = match &status.state {
        KindState::Following | KindState::NotInstalled | KindState::Starting => None,
        KindState::Retrying(why) => Some(why.clone()),
        KindState::Forbidden { .. } => Some(status.to_string()),
    };
    FeedKind {
        resource: status.kind.resource(),
        state: status.state.word(),
        why,
        objects: status.objects,
    }
}

/// A source as the server knows it.
#[derive(Debug)]
struct Joined {
    store: SharedStore,
    status: watch::Receiver<Status>,
    counters: Arc<Counters>,
}

impl FeedSource for Joined {
    fn set_files(&self, files: Vec<SourceText>) -> Result<(), Vec<Diagnostic>> {
        self.store.set_files(files)
    }

    fn metrics(&self) -> Vec<(&'static Definition, Samples)> {
        metrics::samples(&self.status.borrow(), &self.counters)
    }
}
