//! The set in force as the API server has it: what the source follows, and the labels of namespaces.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use portcullis_policy::live::Change;
use portcullis_source::{SharedStore, Source, Status};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;

use crate::certificate::State;
use crate::in_force::{InForce, Labels, Proposed};
use crate::review::excerpt;
use crate::server::{Missing, Readiness};

/// Longest time that an API server gets to tell of a namespace that is not known yet: a review must not wait for longer.
const LOOK_UP: Duration = Duration::from_secs(1);

/// Names and labels of namespaces, followed.
#[derive(Clone)]
pub struct Namespaces {
    client: Client,
    known: reflector::Store<PartialObjectMeta<Namespace>>,
    /// They were listed once: before that, a label may be there that is not seen.
    listed: watch::Receiver<bool>,
}

impl Namespaces {
    /// Follows those of the cluster; the future does it.
    pub fn follow(client: Client) -> (Self, impl Future<Output = ()> + Send) {
        let (known, writer) = reflector::store();
        let (list, listed) = watch::channel(false);
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
        let following = async move {
            let events = watcher(api, watcher::Config::default());
            let events = events.default_backoff().reflect(writer);
            let mut events = std::pin::pin!(events);
            let mut failing = false;
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        failing = false;
                        if matches!(event, watcher::Event::InitDone) {
                            list.send_replace(true);
                        }
                    }
                    Err(error) if !failing => {
                        failing = true;
                        tracing::warn!(%error, "namespaces cannot be followed: their labels stay as they were");
                    }
                    Err(_) => {}
                }
            }
        };
        let namespaces = Self {
            client,
            known,
            listed,
        };
        (namespaces, following)
    }

    fn labels(&self, name: &str) -> Option<Labels> {
        let found = self.known.get(&ObjectRef::new(name))?;
        Some(found.metadata.labels.clone().unwrap_or_default())
    }

    /// Asks the API server: a namespace may be made a moment before what is in it, and its label may ask for more than
    /// the default.
    fn ask(&self, name: &str) -> Result<Labels, String> {
        let unknown = |why: &str| {
            format!(
                "the labels of the namespace `{}` are not known, {why}",
                excerpt(name)
            )
        };
        let Ok(runtime) = Handle::try_current() else {
            return Err(unknown("there is nobody to ask"));
        };
        // What is no name must not become another selector.
        if !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
            return Err(unknown("its name is none that a namespace can have"));
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        // A list of one needs no right that watching does not.
        let one = ListParams::default().fields(&format!("metadata.name={name}"));
        let (sender, answer) = mpsc::channel();
        let asking = runtime.spawn(async move {
            let found = api.list_metadata(&one).await;
            // Nobody waits any more, after a while.
            let _ = sender.send(found);
        });
        let found = answer.recv_timeout(LOOK_UP);
        asking.abort();
        match found {
            Ok(Ok(list)) => match list.items.into_iter().next() {
                Some(found) => Ok(found.metadata.labels.unwrap_or_default()),
                None => Err(unknown("the API server has no such namespace")),
            },
            Ok(Err(error)) => Err(unknown(&error.to_string())),
            Err(_) => Err(unknown(&format!(
                "the API server has not said within {LOOK_UP:?}"
            ))),
        }
    }

    fn is_going(&self, name: &str) -> bool {
        let found = self.known.get(&ObjectRef::new(name));
        found.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    }

    fn are_listed(&self) -> bool {
        *self.listed.borrow()
    }
}

/// What is followed, as verdicts ask it.
pub struct Followed {
    store: SharedStore,
    namespaces: Namespaces,
}

impl Followed {
    /// The documents of `source`, and `namespaces`.
    #[must_use]
    pub fn new(source: &Source, namespaces: Namespaces) -> Self {
        Self {
            store: source.store(),
            namespaces,
        }
    }
}

impl InForce for Followed {
    fn propose(&self, changes: &[Change]) -> Proposed {
        Proposed::to(&mut self.store.lock(), changes)
    }

    fn namespace_labels(&self, name: &str) -> Result<Labels, String> {
        match self.namespaces.labels(name) {
            Some(labels) => Ok(labels),
            None => self.namespaces.ask(name),
        }
    }

    fn is_going(&self, namespace: &str) -> bool {
        self.namespaces.is_going(namespace)
    }
}

/// Readiness of a server that follows an API server.
pub struct Ready {
    status: watch::Receiver<Status>,
    namespaces: Namespaces,
    certificate: watch::Receiver<State>,
}

impl Ready {
    /// As `status`, `namespaces` and `certificate` say.
    #[must_use]
    pub fn new(
        status: watch::Receiver<Status>,
        namespaces: Namespaces,
        certificate: watch::Receiver<State>,
    ) -> Arc<Self> {
        Arc::new(Self {
            status,
            namespaces,
            certificate,
        })
    }
}

impl Readiness for Ready {
    fn missing(&self) -> Missing {
        let mut missing = Vec::new();
        let status = self.status.borrow();
        if !status.synced {
            missing.extend(status.missing());
            missing.push("the policies in force are not known yet".to_owned());
        }
        if !self.namespaces.are_listed() {
            missing.push("the labels of namespaces are not known yet".to_owned());
        }
        let certificate = self.certificate.borrow();
        if !certificate.serving {
            let why = certificate.problem.as_deref();
            missing.push(why.unwrap_or("there is no certificate yet").to_owned());
        }
        Missing(missing)
    }

    fn is_synced(&self) -> bool {
        // A label that is not seen yet could ask for more than the default.
        self.status.borrow().synced && self.namespaces.are_listed()
    }
}
