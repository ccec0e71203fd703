//! Follows all objects of a kind: lists them, then watches, for as long as it is polled.
//!
//! A watch is opened anew twice a minute, so that a connection on which nothing comes any more is noticed: what is known is
//! never older than [`Following::age`] says. After every failure it goes on where it was, and lists again where the
//! server has forgotten that (410 Gone).

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Error, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;

use super::object::Sent;

/// How long one watch lasts, and how much later than that its end may come.
const WATCH: Duration = Duration::from_secs(30);
const LATE: Duration = Duration::from_secs(5);
/// Time for one page of a list, and for the start of a watch.
const ANSWER: Duration = Duration::from_secs(20);
/// Objects of a page.
const PAGE: u32 = 500;
/// Rest after a failure; doubles up to `REST_MOST`.
const REST: Duration = Duration::from_millis(100);
const REST_MOST: Duration = Duration::from_secs(5);

/// What became of the objects.
#[derive(Debug)]
pub enum Event<K> {
    /// All there are.
    All(Vec<K>),
    /// A new one, or a change.
    Put(K),
    /// Gone.
    Gone(K),
}

/// How following goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No answer yet.
    Starting,
    /// All are known, and changes come.
    Following,
    /// The kind is not defined in this cluster.
    NotInstalled,
    /// We may not: the verb and what the server says.
    Forbidden {
        /// `list` or `watch`.
        verb: &'static str,
        /// What the server says.
        why: String,
    },
    /// It failed, and is tried again.
    Retrying(String),
}

/// How following one kind goes, for those who tell of it.
#[derive(Debug)]
pub struct Following {
    /// The resource, as roles name it: `pods`, `clusterspiffeids.spire.spiffe.io`; in words where it is a part of one.
    pub resource: &'static str,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    state: State,
    is_synced: bool,
    heard: Option<Instant>,
}

impl Following {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(resource: &'static str) -> Self {
        Self {
            resource,
            now: Mutex::new(Now {
                state: State::Starting,
                is_synced: false,
                heard: None,
            }),
        }
    }

    /// How it goes.
    #[must_use]
    pub fn state(&self) -> State {
        self.now().state.clone()
    }

    /// True once all objects were known.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.now().is_synced
    }

    /// How long ago the server last said anything; `None`: never.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let heard = self.now().heard?;
        // A watch is silent where nothing changes; it ends in time.
        Some(heard.elapsed())
    }

    /// What an operator has to know; `None`: it goes well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let resource = self.resource;
        match self.state() {
            State::Following => None,
            State::Starting => Some(format!("{resource} are not known yet")),
            State::NotInstalled => Some(format!("{resource} are not defined in this cluster")),
            State::Forbidden { verb, why } => Some(format!(
                "the service account may not {verb} {resource}: {why}"
            )),
            State::Retrying(why) => Some(format!("{resource} cannot be followed: {why}")),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server said something.
    pub(crate) fn heard(&self) {
        self.now().heard = Some(Instant::now());
    }

    fn follows(&self) {
        let mut now = self.now();
        if now.state != State::Following {
            tracing::info!(resource = self.resource, "following");
        }
        now.state = State::Following;
        now.is_synced = true;
        now.heard = Some(Instant::now());
    }

    fn failed(&self, verb: &'static str, error: &Failure) {
        let state = match error {
            Failure::Server(Error::Api(status)) if status.code == 403 => State::Forbidden {
                verb,
                why: status.message.clone(),
            },
            Failure::Server(Error::Api(status)) if status.code == 404 => State::NotInstalled,
            other => State::Retrying(other.to_string()),
        };
        let mut now = self.now();
        if now.state != state {
            tracing::warn!(resource = self.resource, verb, cause = %error, "not followed now");
        }
        now.state = state;
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Server(#[from] Error),
    #[error("the API server does not answer")]
    Silence,
    #[error("the API server tells no version of the list")]
    NoVersion,
}

/// Follows what `api` has with the field selector `fields`; never ends.
pub async fn follow<K>(
    api: Api<Sent<K>>,
    fields: Option<&str>,
    following: &Following,
    mut sink: impl FnMut(Event<K>),
) where
    K: Clone + DeserializeOwned + Debug + ResourceExt + Send + 'static,
{
    let mut rest = REST;
    let mut version: Option<String> = None;
    loop {
        let (verb, failed) = match version.take() {
            None => match list(&api, fields, following).await {
                Ok((objects, listed)) => {
                    sink(Event::All(objects));
                    following.follows();
                    version = Some(listed);
                    rest = REST;
                    continue;
                }
                Err(error) => ("list", error),
            },
            Some(from) => {
                let mut watched = from.clone();
                let started = Instant::now();
                let ended = watch(&api, fields, &mut watched, following, &mut sink).await;
                if watched != from {
                    rest = REST;
                }
                match ended {
                    Ok(()) => {
                        version = Some(watched);
                        // A server that ends every watch at once is not asked in a circle.
                        if started.elapsed() < REST_MOST {
                            sleep(rest).await;
                            rest = REST_MOST.min(rest * 2);
                        }
                        continue;
                    }
                    // What we know is too old to be told the changes since.
                    Err(Failure::Server(Error::Api(status))) if status.code == 410 => {
                        tracing::debug!(resource = following.resource, "listed anew");
                        sleep(rest).await;
                        continue;
                    }
                    Err(error) => {
                        version = Some(watched);
                        ("watch", error)
                    }
                }
            }
        };
        following.failed(verb, &failed);
        sleep(rest).await;
        rest = REST_MOST.min(rest * 2);
    }
}

async fn list<K>(
    api: &Api<Sent<K>>,
    fields: Option<&str>,
    following: &Following,
) -> Result<(Vec<K>, String), Failure>
where
    K: Clone + DeserializeOwned + Debug + ResourceExt,
{
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector = fields.map(str::to_owned);
    let mut objects = Vec::new();
    loop {
        let page = timeout(ANSWER, api.list(&params)).await;
        let page = page.map_err(|_| Failure::Silence)??;
        following.heard();
        for object in page.items {
            match object.read() {
                Ok(object) => objects.push(object),
                Err((bare, why)) => unreadable(following, &bare, &why),
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => {
                let version = page.metadata.resource_version;
                let version = version.filter(|version| !version.is_empty());
                return Ok((objects, version.ok_or(Failure::NoVersion)?));
            }
        }
    }
}

/// Watches until the server ends it.
async fn watch<K>(
    api: &Api<Sent<K>>,
    fields: Option<&str>,
    version: &mut String,
    following: &Following,
    sink: &mut impl FnMut(Event<K>),
) -> Result<(), Failure>
where
    K: Clone + DeserializeOwned + Debug + ResourceExt,
{
    let params = WatchParams {
        field_selector: fields.map(str::to_owned),
        timeout: u32::try_from(WATCH.as_secs()).ok(),
        ..WatchParams::default()
    };
    let events = timeout(ANSWER, api.watch(&params, version)).await;
    let events = events.map_err(|_| Failure::Silence)??;
    tokio::pin!(events);
    following.follows();
    let end = Instant::now() + WATCH + LATE;
    loop {
        let event = match tokio::time::timeout_at(end, events.next()).await {
            Err(_) => return Err(Failure::Silence),
            Ok(None) => return Ok(()),
            Ok(Some(event)) => event?,
        };
        following.heard();
        let object = match event {
            WatchEvent::Bookmark(mark) => {
                *version = mark.metadata.resource_version;
                continue;
            }
            WatchEvent::Error(status) => return Err(Failure::Server(Error::Api(status))),
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                remember(version, &object);
                match object.read() {
                    Ok(object) => Event::Put(object),
                    Err((bare, why)) => {
                        unreadable(following, &bare, &why);
                        Event::Gone(bare)
                    }
                }
            }
            WatchEvent::Deleted(object) => {
                remember(version, &object);
                let (Ok(object) | Err((object, _))) = object.read();
                Event::Gone(object)
            }
        };
        sink(object);
    }
}

fn unreadable(following: &Following, object: &impl ResourceExt, cause: &str) {
    let resource = following.resource;
    let (namespace, name) = (object.namespace(), object.name_any());
    tracing::warn!(
        resource,
        namespace,
        name,
        cause,
        "an object cannot be read: it is as if it were not there"
    );
}

fn remember<K: ResourceExt>(version: &mut String, object: &K) {
    if let Some(seen) = object.resource_version().filter(|seen| !seen.is_empty()) {
        *version = seen;
    }
}
