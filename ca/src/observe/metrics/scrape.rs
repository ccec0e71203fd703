//! The metrics as text, in the OpenMetrics format that Prometheus reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use portcullis_wire::metrics::{Latency, Samples, Values, text as render};

use super::table::TABLE;
use super::{ATTESTED, Api, Metrics, Outcome, RESULTS, Step};
use crate::authority::Authority;
use crate::ca::{Ca, rotation_times};
use crate::identities::Identities as _;
use crate::observe::cluster::{AttestorStatus, EntriesStatus, Followed};
use crate::store::{AuthorityKind, AuthorityState};

/// Most trust domains that are shown; nobody federates with more.
const TRUST_DOMAINS: usize = 1000;

/// The text for one scrape.
pub(crate) fn text(ca: &Ca) -> String {
    let gathered = TABLE
        .iter()
        .filter_map(|definition| Some((definition, samples(ca, definition.name)?)));
    render(gathered.collect())
}

fn samples(ca: &Ca, name: &str) -> Option<Samples> {
    let metrics = ca.observer().metrics();
    let journal = ca.journal().stats();
    Some(match name {
        "svids" => {
            let kinds = AuthorityKind::ALL.into_iter().zip(&metrics.svids);
            let kinds = kinds.take(ca.kinds().count());
            let each = kinds.flat_map(|(kind, outcomes)| {
                let outcomes = Outcome::ALL.into_iter().zip(outcomes);
                outcomes.map(move |(outcome, counter)| {
                    (words([kind.as_str(), outcome.as_str()]), load(counter))
                })
            });
            Samples::Counters(each.collect())
        }
        "issuing_duration_seconds" => {
            let kinds = AuthorityKind::ALL.into_iter().zip(&metrics.issuing);
            let kinds = kinds.take(ca.kinds().count());
            let each = kinds.map(|(kind, latency)| (words([kind.as_str()]), latency.observed()));
            Samples::Latencies(each.collect())
        }
        "svids_served_again" => total(&metrics.cached),
        "svids_held" => one(ca.svids_held() as f64),
        "bundle_refusals" => total(&metrics.bundle_refusals),
        "attestations" => {
            let results = ATTESTED.into_iter().zip(&metrics.attestations);
            Samples::Counters(results.map(|(r, c)| (words([r]), load(c))).collect())
        }
        "streams" => {
            let apis = by_api(&metrics.streams);
            Samples::Gauges(apis.map(|(api, open)| (api, open as f64)).collect())
        }
        "updates" => Samples::Counters(by_api(&metrics.updates).collect()),
        "streams_stalled" => Samples::Counters(by_api(&metrics.stalled).collect()),
        "entries" => one(ca.registry().index().len() as f64),
        "registry_revision" => one(ca.registry().index().revision() as f64),
        "bundle_sequence" => one(ca.bundle().sequence as f64),
        "authorities" => {
            let all = in_each_state(ca, |found| Some(found.len() as f64));
            Samples::Gauges(all)
        }
        "authority_not_after_timestamp_seconds" => Samples::Gauges(in_each_state(ca, |found| {
            let ends = found.iter().map(|authority| authority.row.not_after);
            ends.min().map(seconds)
        })),
        "upstream_not_after_timestamp_seconds" => {
            let end = ca.upstream_not_after().map(seconds);
            Samples::Gauges(end.map(|end| (Values::new(), end)).into_iter().collect())
        }
        "rotation_due_timestamp_seconds" => Samples::Gauges(rotation_due(ca)),
        "authority_streams_behind" => {
            let set = ca.authorities();
            let behind = ca.kinds().filter_map(|kind| {
                let prepared = set.newest(kind, AuthorityState::Prepared)?;
                let behind = ca.deliveries().behind(prepared.row.published);
                Some((words([kind.as_str()]), behind as f64))
            });
            Samples::Gauges(behind.collect())
        }
        "authority_changes" => Samples::Counters(steps(metrics)),
        "rotation_failing" => one(flag(metrics.rotation_failing.load(Ordering::Relaxed))),
        "journal_records" => total(&journal.records),
        "journal_commits" => Samples::Counters(vec![
            (words(["success"]), load(&journal.commits)),
            (words(["failure"]), load(&journal.failures)),
        ]),
        "journal_commit_duration_seconds" => latency(&journal.latency),
        "journal_failing" => one(flag(journal.failing().is_some())),
        "federation_refreshes" => {
            let counts = federations(ca).into_iter().flat_map(|(name, status)| {
                [
                    (vec![name.clone(), "success".to_owned()], status.succeeded),
                    (vec![name, "failure".to_owned()], status.failed),
                ]
            });
            Samples::Counters(counts.collect())
        }
        "federation_failures" => {
            let each = federations(ca).into_iter();
            let each = each.map(|(name, status)| (vec![name], f64::from(status.failures)));
            Samples::Gauges(each.collect())
        }
        "federation_age_seconds" => {
            let now = ca.clock().now();
            let each = federations(ca).into_iter().filter_map(|(name, status)| {
                let age = now.duration_since(status.refreshed_at?).unwrap_or_default();
                Some((vec![name], age.as_secs_f64()))
            });
            Samples::Gauges(each.collect())
        }
        "federated_bundles" => one(ca.registry().bundles().len() as f64),
        "spans_sent" => {
            let sent = ca.observer().spans().map(|spans| load(&spans.fate().sent));
            Samples::Counters(sent.map(|sent| (Values::new(), sent)).into_iter().collect())
        }
        "spans_lost" => {
            let lost = ca.observer().spans().into_iter().flat_map(|spans| {
                let fate = spans.fate();
                [
                    (words(["queue"]), load(&fate.crowded)),
                    (words(["output"]), load(&fate.failed)),
                ]
            });
            Samples::Counters(lost.collect())
        }
        "kubernetes_attestations" => {
            let attested = attestor(ca).into_iter().flat_map(|one| one.attested);
            let each = attested.map(|(how, count)| (words([how]), count));
            Samples::Counters(each.collect())
        }
        "kubernetes_looks" => {
            let looks = attestor(ca).map(|one| (Values::new(), one.looks));
            Samples::Counters(looks.into_iter().collect())
        }
        "kubernetes_pods" => {
            let pods = attestor(ca).map(|one| (Values::new(), one.pods as f64));
            Samples::Gauges(pods.into_iter().collect())
        }
        "kubernetes_cluster_spiffe_ids" => {
            let count = entries(ca).map(|one| (Values::new(), one.cluster_spiffe_ids as f64));
            Samples::Gauges(count.into_iter().collect())
        }
        "kubernetes_entries" => {
            let each = entries(ca).into_iter().flat_map(|one| {
                [
                    (words(["wanted"]), one.entries as f64),
                    (words(["unrendered"]), one.render_failures as f64),
                    (words(["refused"]), one.entry_failures as f64),
                ]
            });
            Samples::Gauges(each.collect())
        }
        "kubernetes_entry_changes" => {
            let each = entries(ca).into_iter().flat_map(|one| {
                let names = ["created", "updated", "deleted"].map(|name| words([name]));
                names.into_iter().zip(one.changes)
            });
            Samples::Counters(each.collect())
        }
        "kubernetes_following" => Samples::Gauges(followed(ca, |one| {
            Some(flag(one.is_synced && one.trouble.is_none()))
        })),
        "kubernetes_age_seconds" => {
            Samples::Gauges(followed(ca, |one| one.age.map(|age| age.as_secs_f64())))
        }
        "start_timestamp_seconds" => one(seconds(ca.started())),
        "build_info" => Samples::Gauges(vec![(words([env!("CARGO_PKG_VERSION")]), 1.0)]),
        _ => return None,
    })
}

fn attestor(ca: &Ca) -> Option<AttestorStatus> {
    ca.observer().cluster()?.attestor
}

fn entries(ca: &Ca) -> Option<EntriesStatus> {
    ca.observer().cluster()?.entries
}

/// A sample for each resource of which `value` has something to say.
fn followed(ca: &Ca, value: impl Fn(&Followed) -> Option<f64>) -> Vec<(Values, f64)> {
    let cluster = ca.observer().cluster().unwrap_or_default();
    let each = cluster.followed.iter();
    each.filter_map(|one| Some((words([one.resource]), value(one)?)))
        .collect()
}

/// A sample for each kind and state of which `value` has something to say.
fn in_each_state(ca: &Ca, value: impl Fn(&[&Authority]) -> Option<f64>) -> Vec<(Values, f64)> {
    let set = ca.authorities();
    let mut samples = Vec::new();
    for kind in ca.kinds() {
        for state in AuthorityState::ALL {
            let all = set.all().iter().map(|authority| &**authority);
            let found: Vec<&Authority> = all
                .filter(|authority| authority.row.kind == kind && authority.row.state == state)
                .collect();
            if let Some(value) = value(&found) {
                samples.push((words([kind.as_str(), state.as_str()]), value));
            }
        }
    }
    samples
}

fn rotation_due(ca: &Ca) -> Vec<(Values, f64)> {
    let set = ca.authorities();
    let mut samples = Vec::new();
    for kind in ca.kinds() {
        let Some(active) = set.active(kind) else {
            continue;
        };
        let times = rotation_times(&active.row);
        let prepared = set.newest(kind, AuthorityState::Prepared).is_some();
        for (step, before) in [
            ("prepare", (!prepared).then_some(times.prepare)),
            ("activate", Some(times.activate)),
            ("activate_anyway", Some(times.activate_anyway)),
        ] {
            let due = before.and_then(|before| active.row.not_after.checked_sub(before));
            if let Some(due) = due {
                samples.push((words([kind.as_str(), step]), seconds(due)));
            }
        }
    }
    samples
}

fn steps(metrics: &Metrics) -> Vec<(Values, u64)> {
    let steps = Step::ALL.into_iter().zip(&metrics.steps);
    let each = steps.flat_map(|(step, results)| {
        let results = RESULTS.into_iter().zip(results);
        results.map(move |(result, counter)| (words([step.as_str(), result]), load(counter)))
    });
    each.collect()
}

fn federations(ca: &Ca) -> Vec<(String, crate::federation::RelationshipStatus)> {
    let relationships = ca.registry().federations();
    let names = relationships.keys().take(TRUST_DOMAINS);
    names
        .map(|name| (name.to_string(), ca.refresher().status(name)))
        .collect()
}

fn by_api(counters: &[AtomicU64; Api::ALL.len()]) -> impl Iterator<Item = (Values, u64)> + '_ {
    let apis = Api::ALL.into_iter().zip(counters);
    apis.map(|(api, counter)| (words([api.as_str()]), load(counter)))
}

fn words<const N: usize>(values: [&str; N]) -> Values {
    values.map(str::to_owned).into()
}

fn latency(latency: &Latency) -> Samples {
    Samples::Latencies(vec![(Values::new(), latency.observed())])
}

fn total(counter: &AtomicU64) -> Samples {
    Samples::Counters(vec![(Values::new(), load(counter))])
}

fn one(value: f64) -> Samples {
    Samples::Gauges(vec![(Values::new(), value)])
}

fn flag(is_set: bool) -> f64 {
    f64::from(u8::from(is_set))
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
