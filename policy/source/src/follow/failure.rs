//! What can go wrong with a list or a watch, and what it means.

use kube::core::Status;
use kube::runtime::watcher;

use crate::state::KindState;

/// A list or a watch that failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// A role lacks a verb.
    Forbidden { verb: String, message: String },
    /// There is no such kind.
    Missing,
    /// A first list as a stream is not to be had.
    NoStreams,
    /// The server has forgotten what came since (410): only a new list tells.
    Expired(String),
    /// An event that cannot be read was passed over: only a new list tells what it was.
    Unreadable(String),
    /// Anything else passes, or does not.
    Other {
        why: String,
        /// By an API server, rather than by nobody.
        answered: bool,
    },
}

impl Failure {
    pub(super) fn of(error: watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error) => Self::of_request(error, "list"),
            watcher::Error::WatchStartFailed(error) => Self::of_request(error, "watch"),
            watcher::Error::WatchFailed(error) => Self::of_request(error, "watch"),
            watcher::Error::WatchError(status) => Self::of_status(&status, "watch"),
            error @ watcher::Error::NoResourceVersion => Self::Unreadable(error.to_string()),
        }
    }

    /// Of a request whose verb is `verb`, should the answer not say so.
    pub(super) fn of_request(error: kube::Error, verb: &str) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(&status, verb),
            kube::Error::SerdeError(_) => Self::Unreadable(words(&error)),
            error => Self::Other {
                why: words(&error),
                answered: false,
            },
        }
    }

    fn of_status(status: &Status, verb: &str) -> Self {
        match status.code {
            403 => Self::Forbidden {
                verb: denied_verb(&status.message).unwrap_or(verb).to_owned(),
                message: status.message.clone(),
            },
            404 => Self::Missing,
            410 => Self::Expired(status.message.clone()),
            // "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            400 | 422 => Self::NoStreams,
            _ => Self::Other {
                why: status.message.clone(),
                answered: true,
            },
        }
    }

    pub(super) fn refuses_streams(&self) -> bool {
        matches!(self, Self::NoStreams)
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    pub(super) fn lost_an_event(&self) -> bool {
        matches!(self, Self::Unreadable(_) | Self::Expired(_))
    }

    pub(super) fn is_expired(&self) -> bool {
        matches!(self, Self::Expired(_))
    }

    pub(super) fn was_answered(&self) -> bool {
        !matches!(
            self,
            Self::Other {
                answered: false,
                ..
            }
        )
    }

    pub(super) fn into_state(self) -> KindState {
        match self {
            Self::Forbidden { verb, message } => KindState::Forbidden { verb, message },
            Self::Missing => KindState::Retrying("the API server does not serve it".to_owned()),
            Self::NoStreams => KindState::Retrying("the API server refuses the request".to_owned()),
            Self::Expired(why) | Self::Unreadable(why) | Self::Other { why, .. } => {
                KindState::Retrying(why)
            }
        }
    }
}

/// The error and its causes on one line: the outermost alone says little.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_words = inner.to_string();
        if !words.contains(&inner_words) {
            words.push_str(": ");
            words.push_str(&inner_words);
        }
        cause = inner.source();
    }
    words
}

/// `list`, of `pods is forbidden: User "x" cannot list resource "pods" in API group "" at the cluster scope`.
fn denied_verb(message: &str) -> Option<&str> {
    let (_, after) = message.split_once(" cannot ")?;
    let (verb, _) = after.split_once(" resource ")?;
    (!verb.is_empty() && verb.bytes().all(|b| b.is_ascii_lowercase())).then_some(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_that_is_gone_asks_for_a_list_however_it_is_said() {
        let gone = || {
            Status {
                code: 410,
                message: "too old resource version".to_owned(),
                ..Status::default()
            }
            .boxed()
        };
        for error in [
            watcher::Error::WatchError(gone()),
            watcher::Error::WatchStartFailed(kube::Error::Api(gone())),
            watcher::Error::InitialListFailed(kube::Error::Api(gone())),
        ] {
            let failure = Failure::of(error);
            assert!(failure.is_expired() && failure.lost_an_event() && failure.was_answered());
        }
        let other = Failure::of(watcher::Error::WatchError(Status::default().boxed()));
        assert!(!other.is_expired() && !other.lost_an_event());
    }

    #[test]
    fn the_verb_that_is_missing_is_the_one_the_server_names() {
        let message = "pods is forbidden: User \"u\" cannot watch resource \"pods\" in API group \"\" at the cluster scope";
        assert_eq!(denied_verb(message), Some("watch"));
        assert_eq!(denied_verb("no such words"), None);
        assert_eq!(denied_verb("x cannot  resource "), None);
        let status = Status {
            code: 403,
            message: message.to_owned(),
            ..Status::default()
        };
        let failure = Failure::of(watcher::Error::InitialListFailed(kube::Error::Api(
            status.boxed(),
        )));
        let KindState::Forbidden { verb, .. } = failure.into_state() else {
            panic!("not forbidden");
        };
        assert_eq!(verb, "watch");
    }
}
