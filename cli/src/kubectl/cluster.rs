//! The cluster, read once: every policy and what they apply to.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Client, Error};
use portcullis_policy::snapshot::Snapshot;
use portcullis_source::{KindState, KindStatus, SharedStore, Source, Status};
use portcullis_wire::kube::{self as connection, ConnectError};
use tokio::time::{Instant, timeout_at};

use super::args::ClusterArgs;
use super::credentials;
use crate::authz::serve::kubernetes as serving;
use crate::config::Config;

/// Time for the first answer, of all that there is.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

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
    /// When the time is over in which the cluster must answer.
    pub until: Instant,
    /// Ends when it is dropped.
    _source: Source,
}

impl Live {
    /// Reads the cluster that `args` name. `takes_stdin`: standard input is ours, and no credential plugin's.
    ///
    /// # Errors
    /// When it cannot be reached, or not be read whole in time; the message tells what is missing.
    pub async fn read(args: &ClusterArgs, takes_stdin: bool) -> anyhow::Result<Self> {
        let until = Instant::now() + args.request_timeout;
        let file = Config::load(args.config.config.as_deref())?;
        let cluster = connection::Cluster {
            kubeconfig: args.kubeconfig.clone(),
            context: args.context.clone(),
        };
        let mut config = connection::config(&cluster)
            .await
            .map_err(|error| refused(error, args))?;
        let namespace = args.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let address = config.cluster_url.to_string();
        credentials::fetch(&mut config.auth_info, takes_stdin, until).await?;
        let client = connection::connect(config)?;
        reach(&client, &address, until.min(Instant::now() + FIRST_ANSWER)).await?;
        let followed = file.kubernetes.clone().unwrap_or_default();
        let source = Source::start(
            client.clone(),
            &serving::options(&followed, &file.settings()),
        );
        let snapshot =
            first_snapshot(&source, &address, &followed.mesh_config, until, args).await?;
        Ok(Self {
            client,
            namespace,
            snapshot,
            store: source.store(),
            until,
            _source: source,
        })
    }

    /// Looks whether the cluster has a namespace, where that may be asked.
    ///
    /// # Errors
    /// Where it surely has not.
    pub async fn knows(&self, namespace: &str) -> anyhow::Result<()> {
        let kind = GroupVersionKind::gvk("", "v1", "Namespace");
        let resource = ApiResource::from_gvk_with_plural(&kind, "namespaces");
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        // Who could read the cluster may list them; `get` would be another right.
        let only = ListParams::default().fields(&format!("metadata.name={namespace}"));
        match timeout_at(self.until, api.list_metadata(&only)).await {
            Ok(Ok(found)) if found.items.is_empty() => bail!(
                "the cluster has no namespace `{namespace}`: name one that it has with --namespace"
            ),
            _ => Ok(()),
        }
    }
}

/// What of a kubeconfig is not there, with what is.
fn refused(error: ConnectError, args: &ClusterArgs) -> anyhow::Error {
    use kube::config::{Kubeconfig, KubeconfigError};

    if let ConnectError::Kubeconfig(KubeconfigError::LoadContext(name)) = &error {
        let read = match &args.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let contexts = read.map(|all| all.contexts).unwrap_or_default();
        let names: Vec<String> = contexts.into_iter().map(|one| one.name).collect();
        return match names.as_slice() {
            [] => anyhow!("the kubeconfig has no context `{name}`, and no other"),
            names => anyhow!(
                "the kubeconfig has no context `{name}`; there are {}",
                names.join(", ")
            ),
        };
    }
    anyhow!(error)
}

/// One request that everybody may make, so that what keeps all of them from being answered is told at once.
async fn reach(client: &Client, address: &str, until: Instant) -> anyhow::Result<()> {
    match timeout_at(until, client.apiserver_version()).await {
        // Who it is was found out; that it may not ask for the version says nothing of the rest.
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Error::Api(status))) if status.code == 403 => Ok(()),
        Ok(Err(Error::Api(status))) if status.code == 401 => bail!(
            "the API server at {address} does not know who this is (401 {}): the token or certificate of the kubeconfig is \
             wrong or has expired; log in again",
            status.message
        ),
        Ok(Err(Error::Api(status))) => bail!(
            "the API server at {address} cannot answer: {} ({})",
            status.message,
            status.code
        ),
        Ok(Err(error)) => {
            let causes = causes(&error);
            bail!(
                "cannot reach the API server at {address}: {causes}{}",
                hint(&causes)
            )
        }
        Err(_) => bail!("the API server at {address} does not answer"),
    }
}

/// What to do about a connection that failed.
fn hint(words: &str) -> &'static str {
    if words.contains("UnknownIssuer") || words.contains("BadSignature") {
        "; the certificate that it shows is of none of the authorities that the kubeconfig names: correct \
         `certificate-authority-data`, or the address"
    } else if words.contains("NotValidForName") {
        "; its certificate is for another name: correct `server`, or set `tls-server-name`"
    } else if words.contains("refused") {
        "; nothing listens there: is the cluster up, and the context the right one?"
    } else {
        ""
    }
}

/// The error and its causes on one line, each once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !words.contains(&text) {
            words.push_str(": ");
            words.push_str(&text);
        }
        cause = inner.source();
    }
    words
}

async fn first_snapshot(
    source: &Source,
    address: &str,
    mesh_config: &str,
    until: Instant,
    args: &ClusterArgs,
) -> anyhow::Result<Arc<Snapshot>> {
    let mut snapshots = source.snapshots();
    let mut status = source.status();
    loop {
        if let Some(missing) = forbidden(&status.borrow_and_update(), mesh_config) {
            bail!("this user may not read all that decides in the cluster:\n{missing}");
        }
        tokio::select! {
            biased;
            found = snapshots.wait_for(Option::is_some) => {
                let found = found.context("the cluster can no longer be read")?.clone();
                return found.context("the cluster can no longer be read");
            }
            changed = status.changed() => changed.context("the cluster can no longer be read")?,
            () = tokio::time::sleep_until(until) => {
                let missing = status.borrow().missing();
                bail!(
                    "cannot read the cluster at {address} within {} s:\n  {}",
                    args.request_timeout.as_secs(),
                    missing.join("\n  ")
                );
            }
        }
    }
}

/// What a role lacks, and the rules that it needs, once it is known of every kind.
fn forbidden(status: &Status, mesh_config: &str) -> Option<String> {
    let is_open = |kind: &KindStatus| kind.state == KindState::Starting;
    if status.kinds.iter().any(is_open) {
        return None;
    }
    let mut told = String::new();
    let mut rules = String::new();
    for kind in &status.kinds {
        if !matches!(kind.state, KindState::Forbidden { .. }) {
            continue;
        }
        told.push_str(&format!("  {kind}\n"));
        let only = match kind.kind.plural {
            "configmaps" => format!(", resourceNames: [{mesh_config}]"),
            _ => String::new(),
        };
        rules.push_str(&format!(
            "\n  - {{apiGroups: [\"{}\"], resources: [{}]{only}, verbs: [list, watch]}}",
            kind.kind.group, kind.kind.plural
        ));
    }
    (!told.is_empty())
        .then(|| format!("{told}grant it with a ClusterRole that has these rules:{rules}"))
}

#[cfg(test)]
mod tests {
    use portcullis_source::KINDS;

    use super::*;

    fn status(of: impl Fn(&str) -> KindState) -> Status {
        let kinds = KINDS.iter().map(|kind| KindStatus {
            kind,
            state: of(kind.plural),
            synced: false,
            objects: 0,
        });
        Status {
            kinds: kinds.collect(),
            ..Status::default()
        }
    }

    #[test]
    fn what_a_role_lacks_is_told_once_all_of_it_is_known() {
        let refused = |plural: &str| match plural {
            "pods" | "configmaps" => KindState::Forbidden {
                verb: "list".to_owned(),
                message: "no".to_owned(),
            },
            _ => KindState::Following,
        };
        let told = forbidden(&status(refused), "istio").unwrap();
        assert!(told.contains("  cannot list pods: no\n"), "{told}");
        assert!(
            told.contains("- {apiGroups: [\"\"], resources: [pods], verbs: [list, watch]}"),
            "{told}"
        );
        assert!(
            told.contains("resources: [configmaps], resourceNames: [istio], verbs: [list, watch]}"),
            "{told}"
        );
        let open = |plural: &str| match plural {
            "services" => KindState::Starting,
            other => refused(other),
        };
        assert_eq!(forbidden(&status(open), "istio"), None);
        assert_eq!(forbidden(&status(|_| KindState::Following), "istio"), None);
    }
}
