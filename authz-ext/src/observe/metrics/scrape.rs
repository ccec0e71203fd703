//! The metrics as text, in the OpenMetrics format that Prometheus reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use portcullis_policy::decision::{Reason, Verdict};
use portcullis_wire::metrics::{Samples, Values, text as render};
use tokio::sync::watch;

use super::table::TABLE;
use super::{Custom, Named};
use crate::feed::Feed;
use crate::limits::Counters;
use crate::observe::Inner;
use crate::observe::log::Fate;
use crate::observe::otlp::Queue;
use crate::reload::ReloadStatus;
use crate::token::keys::{Keys, SourceStatus};

/// Where state comes from that is not counted here.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Reload.
    pub reload: watch::Receiver<ReloadStatus>,
    /// The API server that is followed; `None` without one.
    pub feed: Option<Feed>,
    /// Keys of token issuers; `None` where nobody verifies tokens.
    pub keys: Option<Keys>,
    /// What the server takes on.
    pub counters: Arc<Counters>,
}

/// The text for one scrape.
pub(in crate::observe) fn text(inner: &Arc<Inner>) -> String {
    let scrape = Scrape {
        inner: Arc::clone(inner),
    };
    let state = State::of(inner);
    let gathered = TABLE
        .iter()
        .filter_map(|definition| Some((definition, scrape.samples(definition.name, &state)?)));
    let feed = inner
        .sources
        .get()
        .and_then(|sources| sources.feed.as_ref());
    let of_source = feed.map(|feed| feed.source.metrics()).unwrap_or_default();
    render(gathered.chain(of_source).collect())
}

#[derive(Debug)]
struct Scrape {
    inner: Arc<Inner>,
}

impl Scrape {
    /// That of the decision log, where there is one.
    fn fate(&self) -> Option<&Fate> {
        self.inner.log.as_ref().map(|(_, log)| log.fate())
    }

    fn samples(&self, name: &str, state: &State) -> Option<Samples> {
        let metrics = &self.inner.metrics;
        Some(match name {
            "decisions" => {
                let counters = Reason::ALL.into_iter().zip(&metrics.decisions);
                let sample = |(reason, counter): (Reason, &AtomicU64)| {
                    (
                        words([reason.verdict().as_str(), reason.as_str()]),
                        load(counter),
                    )
                };
                Samples::Counters(counters.map(sample).collect())
            }
            "decision_duration_seconds" => {
                Samples::Latencies(vec![(Values::new(), metrics.latency.observed())])
            }
            "dry_run_decisions" => Samples::Counters(pairs(&metrics.dry_run).collect()),
            "dry_run_policy_decisions" => Samples::Counters(named(&metrics.trials, |pairs_of| {
                pairs(pairs_of).filter(|(_, value)| *value > 0).collect()
            })),
            "custom_answers" => Samples::Counters(named(&metrics.custom, |answers| {
                let answers = Custom::ALL.into_iter().zip(answers);
                let sample = |(answer, counter): (Custom, &AtomicU64)| {
                    (words([answer.as_str()]), load(counter))
                };
                answers.map(sample).collect()
            })),
            "snapshot_info" => {
                // Those of an API server follow each other too fast to be labels.
                let revision = match (&state.reload.revision, state.followed) {
                    (Some(_), true) => Some("followed".to_owned()),
                    (revision, _) => revision.clone(),
                };
                Samples::Gauges(revision.map(|r| (vec![r], 1.0)).into_iter().collect())
            }
            "snapshot_policies" => one(state.reload.policies as f64),
            "snapshot_age_seconds" => {
                let age = state.reload.since.map(|since| (Values::new(), age(since)));
                Samples::Gauges(age.into_iter().collect())
            }
            "reloads" => Samples::Counters(vec![
                (words(["success"]), state.reload.succeeded),
                (words(["failure"]), state.reload.failed),
            ]),
            "reload_failing" => one(f64::from(u8::from(state.reload.last_error.is_some()))),
            "jwks_keys" => {
                let keys = state.keys.iter();
                Samples::Gauges(keys.map(|(o, s)| (words([o]), s.keys as f64)).collect())
            }
            "jwks_age_seconds" => {
                let fetched = |(origin, status): (&String, &SourceStatus)| {
                    Some((words([origin]), age(status.fetched?)))
                };
                Samples::Gauges(state.keys.iter().filter_map(fetched).collect())
            }
            "jwks_fetches" => {
                let fetches = |(origin, status): (&String, &SourceStatus)| {
                    [
                        (words([origin, "success"]), status.succeeded),
                        (words([origin, "failure"]), status.failed),
                    ]
                };
                Samples::Counters(state.keys.iter().flat_map(fetches).collect())
            }
            "decision_log_written" => {
                let written = self.fate().map(|fate| (Values::new(), load(&fate.written)));
                Samples::Counters(written.into_iter().collect())
            }
            "decision_log_lost" => {
                Samples::Counters(self.fate().into_iter().flat_map(lost).collect())
            }
            "spans_sent" => {
                let sent = self.inner.spans.as_ref().map(|spans| &spans.fate().written);
                let sent = sent.map(|sent| (Values::new(), load(sent)));
                Samples::Counters(sent.into_iter().collect())
            }
            "spans_lost" => {
                let fate = self.inner.spans.as_ref().map(Queue::fate);
                Samples::Counters(fate.into_iter().flat_map(lost).collect())
            }
            "overloaded" => total(&state.counters.overloaded),
            "deadline_exceeded" => total(&state.counters.deadline),
            "checks_in_flight" => one(load(&state.counters.checks_in_flight) as f64),
            "connections" => one(load(&state.counters.connections) as f64),
            "connections_refused" => Samples::Counters(vec![
                (words(["limit"]), load(&state.counters.connections_refused)),
                (
                    words(["handshake"]),
                    load(&state.counters.handshakes_failed),
                ),
                (words(["peer"]), load(&state.counters.peers_refused)),
            ]),
            "certificate_reloads" => Samples::Counters(vec![
                (
                    words(["success"]),
                    load(&state.counters.certificates_swapped),
                ),
                (
                    words(["failure"]),
                    load(&state.counters.certificates_refused),
                ),
            ]),
            "followers" => one(self.inner.followers.len() as f64),
            "follower_events_lost" => {
                Samples::Counters(vec![(Values::new(), self.inner.followers.lost())])
            }
            "build_info" => Samples::Gauges(vec![(words([env!("CARGO_PKG_VERSION")]), 1.0)]),
            _ => return None,
        })
    }
}

/// What others know, read once for each scrape.
struct State {
    reload: ReloadStatus,
    counters: Arc<Counters>,
    keys: BTreeMap<String, SourceStatus>,
    /// An API server is followed.
    followed: bool,
}

impl State {
    fn of(inner: &Inner) -> Self {
        let sources = inner.sources.get();
        let keys = sources.and_then(|sources| sources.keys.as_ref());
        let mut by_origin: BTreeMap<String, SourceStatus> = BTreeMap::new();
        for status in keys.map(Keys::status).unwrap_or_default() {
            // Inline sets share a name, and so may addresses that differ in their query.
            let origin = public(&status.origin).to_owned();
            match by_origin.get_mut(&origin) {
                None => {
                    by_origin.insert(origin, status);
                }
                Some(sum) => {
                    sum.keys += status.keys;
                    sum.succeeded += status.succeeded;
                    sum.failed += status.failed;
                    sum.fetched = sum.fetched.min(status.fetched);
                }
            }
        }
        Self {
            reload: sources
                .map(|sources| sources.reload.borrow().clone())
                .unwrap_or_default(),
            counters: sources
                .map(|sources| Arc::clone(&sources.counters))
                .unwrap_or_default(),
            keys: by_origin,
            followed: sources.is_some_and(|sources| sources.feed.is_some()),
        }
    }
}

/// An address without what may be secret: query, fragment, user and password.
fn public(origin: &str) -> &str {
    let origin = origin.split(['?', '#']).next().unwrap_or_default();
    let authority = origin.find("://").map_or(0, |at| at + 3);
    let rest = origin.get(authority..).unwrap_or_default();
    let host = rest.split('/').next().unwrap_or_default();
    match host.rfind('@') {
        Some(at) => rest.get(at + 1..).unwrap_or_default(),
        None => origin,
    }
}

fn words<const N: usize>(values: [&str; N]) -> Values {
    values.map(str::to_owned).into()
}

fn lost(fate: &Fate) -> [(Values, u64); 2] {
    [
        (words(["queue"]), load(&fate.crowded)),
        (words(["output"]), load(&fate.failed)),
    ]
}

fn total(counter: &AtomicU64) -> Samples {
    Samples::Counters(vec![(Values::new(), load(counter))])
}

fn one(value: f64) -> Samples {
    Samples::Gauges(vec![(Values::new(), value)])
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn age(since: SystemTime) -> f64 {
    since.elapsed().unwrap_or_default().as_secs_f64()
}

fn pairs(pairs: &super::Pairs) -> impl Iterator<Item = (Values, u64)> + '_ {
    let all = Verdict::ALL.into_iter();
    let all = all.flat_map(|enforced| Verdict::ALL.map(|tried| (enforced, tried)));
    all.map(|(enforced, tried)| {
        let value = pairs.at(enforced, tried).map_or(0, load);
        (words([enforced.as_str(), tried.as_str()]), value)
    })
}

/// The samples of each name, the name before the other labels.
fn named<T>(all: &Named<T>, samples: impl Fn(&T) -> Vec<(Values, u64)>) -> Vec<(Values, u64)> {
    let all = all.0.read().unwrap_or_else(PoisonError::into_inner);
    let each = all.iter().flat_map(|(name, counters)| {
        let of_name = samples(counters).into_iter();
        of_name.map(|(mut values, value)| {
            values.insert(0, name.clone());
            (values, value)
        })
    });
    each.collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::public;

    #[test]
    fn nothing_secret_of_an_address_is_shown() {
        for (origin, shown) in [
            ("inline", "inline"),
            ("https://a.example/jwks", "https://a.example/jwks"),
            (
                "https://a.example/jwks?key=hush#x",
                "https://a.example/jwks",
            ),
            ("https://u:hush@a.example/@b", "a.example/@b"),
            ("issuer@example.org", "example.org"),
            ("", ""),
        ] {
            assert_eq!(public(origin), shown);
        }
    }
}
