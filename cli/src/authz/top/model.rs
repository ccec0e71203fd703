//! What the live view knows: the last scrapes, and the denials it heard of.

use std::collections::{BTreeMap, HashMap, VecDeque};

use portcullis_policy::decision::Verdict;

use super::exposition::{Sample, samples};
use crate::authz::tail::Told;
use crate::policy::decide::because;

/// Rates that are remembered for the chart.
const HISTORY: usize = 240;
/// Pairs that are remembered; the rarest is forgotten for a new one.
const PAIRS: usize = 512;
const PREFIX: &str = "portcullis_authz_";

/// Counters of one scrape.
#[derive(Clone, Debug, Default)]
struct Scrape {
    at: f64,
    decisions: BTreeMap<(String, String), f64>,
    /// Upper bound in seconds and decisions below it, in ascending order.
    buckets: Vec<(f64, f64)>,
    flips: BTreeMap<(String, String), f64>,
}

/// What is shown.
#[derive(Debug, Default)]
pub struct Model {
    /// Why nothing is heard of the service; `None` while it answers.
    pub lost: Option<String>,
    /// Revision in force.
    pub revision: Option<String>,
    /// Policies in force.
    pub policies: Option<f64>,
    /// Age of the snapshot, in seconds.
    pub age: Option<f64>,
    /// The last reload was refused.
    pub reload_failing: bool,
    /// Allows and denials per second, the newest last.
    pub rates: VecDeque<(f64, f64)>,
    /// Decisions per second by reason, the most frequent first.
    pub reasons: Vec<(String, String, f64)>,
    /// Latency of the last interval in seconds: 50th, 90th and 99th percentile; `None` where nothing
    /// was decided.
    pub latency: Option<[f64; 3]>,
    /// Decisions that would flip, by policy and direction, since the service started.
    pub flips: Vec<(String, String, f64)>,
    last: Option<Scrape>,
    pairs: HashMap<(String, String, String), Pair>,
    order: u64,
}

/// Denials of one pair for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// How often.
    pub count: u64,
    /// The last request.
    pub asked: String,
    order: u64,
}

impl Model {
    /// Takes the text of `/metrics`, read at `now` (seconds of any clock that only goes forward).
    pub fn scrape(&mut self, text: &str, now: f64) {
        self.lost = None;
        let mut scrape = Scrape {
            at: now,
            ..Scrape::default()
        };
        (self.revision, self.policies, self.age) = (None, None, None);
        for sample in samples(text) {
            self.sample(&sample, &mut scrape);
        }
        scrape.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        if let Some(last) = self.last.take() {
            self.difference(&last, &scrape);
        }
        self.flips = scrape
            .flips
            .iter()
            .map(|((policy, way), count)| (policy.clone(), way.clone(), *count))
            .collect();
        self.flips.sort_by(|a, b| b.2.total_cmp(&a.2));
        self.last = Some(scrape);
    }

    fn sample(&mut self, sample: &Sample, scrape: &mut Scrape) {
        let Some(name) = sample.name.strip_prefix(PREFIX) else {
            return;
        };
        let label = |name: &str| sample.label(name).to_owned();
        match name {
            "decisions_total" => {
                let key = (label("decision"), label("reason"));
                scrape.decisions.insert(key, sample.value);
            }
            "decision_duration_seconds_bucket" => {
                let bound = match sample.label("le") {
                    "+Inf" => f64::INFINITY,
                    bound => bound.parse().unwrap_or(f64::INFINITY),
                };
                scrape.buckets.push((bound, sample.value));
            }
            "dry_run_policy_decisions_total" if label("decision") != label("dry_run") => {
                let way = format!("{} -> {}", label("decision"), label("dry_run"));
                scrape.flips.insert((label("policy"), way), sample.value);
            }
            "snapshot_info" => self.revision = Some(label("revision")),
            "snapshot_policies" => self.policies = Some(sample.value),
            "snapshot_age_seconds" => self.age = Some(sample.value),
            "reload_failing" => self.reload_failing = sample.value > 0.0,
            _ => {}
        }
    }

    fn difference(&mut self, last: &Scrape, now: &Scrape) {
        let seconds = now.at - last.at;
        if seconds <= 0.0 {
            return;
        }
        let mut totals = (0.0, 0.0);
        self.reasons.clear();
        for (key, count) in &now.decisions {
            let before = last.decisions.get(key).copied().unwrap_or_default();
            // A service that was started again counts from zero.
            let new = if *count >= before {
                count - before
            } else {
                *count
            };
            let rate = new / seconds;
            if key.0 == "allow" {
                totals.0 += rate;
            } else {
                totals.1 += rate;
            }
            if rate > 0.0 {
                self.reasons.push((key.0.clone(), key.1.clone(), rate));
            }
        }
        self.reasons.sort_by(|a, b| b.2.total_cmp(&a.2));
        self.rates.push_back(totals);
        if self.rates.len() > HISTORY {
            self.rates.pop_front();
        }
        self.latency = percentiles(&last.buckets, &now.buckets);
    }

    /// Takes a denial.
    pub fn denied(&mut self, told: &Told) {
        if told.decision.decision != Verdict::Deny {
            return;
        }
        self.order += 1;
        let key = (
            told.source(),
            told.destination(),
            because(told.decision.reason.as_str(), &told.decision.policies),
        );
        if self.pairs.len() >= PAIRS && !self.pairs.contains_key(&key) {
            let rarest = self
                .pairs
                .iter()
                .min_by_key(|(_, pair)| (pair.count, pair.order));
            if let Some(rarest) = rarest.map(|(key, _)| key.clone()) {
                self.pairs.remove(&rarest);
            }
        }
        let pair = self.pairs.entry(key).or_default();
        pair.count += 1;
        pair.order = self.order;
        pair.asked = told.asked();
    }

    /// Denied pairs as (source, destination, why, pair), the most frequent first.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&str, &str, &str, &Pair)> {
        let mut pairs: Vec<_> = self
            .pairs
            .iter()
            .map(|((from, to, why), pair)| (from.as_str(), to.as_str(), why.as_str(), pair))
            .collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse((pair.3.count, pair.3.order)));
        pairs
    }

    /// Forgets the denials heard of.
    pub fn forget(&mut self) {
        self.pairs.clear();
    }
}

/// Percentiles of what came between two scrapes, by linear interpolation inside a bucket.
fn percentiles(last: &[(f64, f64)], now: &[(f64, f64)]) -> Option<[f64; 3]> {
    let restarted =
        last.len() != now.len() || last.iter().zip(now).any(|(last, now)| now.1 < last.1);
    let new: Vec<(f64, f64)> = match restarted {
        true => now.to_vec(),
        false => now
            .iter()
            .zip(last)
            .map(|(now, last)| (now.0, now.1 - last.1))
            .collect(),
    };
    let total = new.last()?.1;
    if total <= 0.0 {
        return None;
    }
    Some([0.5, 0.9, 0.99].map(|share| {
        let wanted = total * share;
        let (mut below, mut count) = (0.0, 0.0);
        for (bound, cumulative) in &new {
            if *cumulative >= wanted {
                let inside = (wanted - count) / (cumulative - count).max(f64::MIN_POSITIVE);
                // Beyond the last bound nothing is known but that.
                return if bound.is_finite() {
                    below + (bound - below) * inside
                } else {
                    below
                };
            }
            (below, count) = (*bound, *cumulative);
        }
        below
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(allow: u32, deny: u32, fast: u32) -> String {
        format!(
            "portcullis_authz_decisions_total{{decision=\"allow\",reason=\"allowed_by\"}} {allow}\n\
             portcullis_authz_decisions_total{{decision=\"deny\",reason=\"denied_by\"}} {deny}\n\
             portcullis_authz_decision_duration_seconds_bucket{{le=\"0.0001\"}} {fast}\n\
             portcullis_authz_decision_duration_seconds_bucket{{le=\"0.001\"}} {all}\n\
             portcullis_authz_decision_duration_seconds_bucket{{le=\"+Inf\"}} {all}\n\
             portcullis_authz_dry_run_policy_decisions_total{{policy=\"shop/new\",decision=\"allow\",dry_run=\"deny\"}} 4\n\
             portcullis_authz_dry_run_policy_decisions_total{{policy=\"shop/new\",decision=\"allow\",dry_run=\"allow\"}} 9\n\
             portcullis_authz_snapshot_info{{revision=\"abc\"}} 1\nportcullis_authz_snapshot_policies 12\n\
             portcullis_authz_snapshot_age_seconds 61\nportcullis_authz_reload_failing 1\nother_total 5\n",
            all = allow + deny,
        )
    }

    #[test]
    fn rates_and_percentiles_come_from_the_difference_of_two_scrapes() {
        let mut model = Model::default();
        model.scrape(&text(10, 0, 0), 1.0);
        assert!(model.rates.is_empty() && model.latency.is_none());
        model.scrape(&text(100, 10, 50), 3.0);
        assert_eq!(model.rates, [(45.0, 5.0)]);
        assert_eq!(
            model.reasons,
            [
                ("allow".to_owned(), "allowed_by".to_owned(), 45.0),
                ("deny".to_owned(), "denied_by".to_owned(), 5.0)
            ]
        );
        let [half, ninety, most] = model.latency.unwrap();
        assert!((half - 0.0001).abs() < 1e-9, "{half}");
        assert!((ninety - 0.00082).abs() < 1e-9, "{ninety}");
        assert!(most > ninety && most < 0.001, "{most}");
        assert_eq!(
            model.flips,
            [("shop/new".to_owned(), "allow -> deny".to_owned(), 4.0)]
        );
        assert_eq!(
            (
                model.revision.as_deref(),
                model.policies,
                model.age,
                model.reload_failing
            ),
            (Some("abc"), Some(12.0), Some(61.0), true)
        );
        // Nothing new: no latency, and rates of zero.
        model.scrape(&text(100, 10, 50), 4.0);
        assert_eq!((model.rates[1], model.latency), ((0.0, 0.0), None));
        // Started again.
        model.scrape(&text(4, 0, 4), 5.0);
        assert_eq!(model.rates[2], (4.0, 0.0));
    }

    fn told(from: &str, reason: &str) -> Told {
        serde_json::from_value(serde_json::json!({
            "time": "2026-01-31T12:00:01Z", "source": {"principal": from}, "method": "GET", "host": "h", "path": "/p",
            "destination": {"workload": "pod/shop/web", "port": 8080}, "decision": "deny", "reason": reason,
            "policies": [], "audit": [], "provider": null, "dry_run": null, "snapshot": "abc", "duration_us": 12,
        }))
        .unwrap()
    }

    #[test]
    fn pairs_are_counted_and_bounded() {
        let mut model = Model::default();
        for _ in 0..3 {
            model.denied(&told("spiffe://td/often", "no_allow_matched"));
        }
        for i in 0..2 * PAIRS {
            model.denied(&told(&format!("spiffe://td/{i}"), "no_allow_matched"));
        }
        let pairs = model.pairs();
        assert_eq!(pairs.len(), PAIRS);
        assert_eq!(
            (pairs[0].0, pairs[0].1, pairs[0].3.count),
            ("td/often", "pod/shop/web:8080", 3)
        );
        assert_eq!(pairs[0].3.asked, "GET h/p");
        assert_eq!(pairs[1].0, format!("td/{}", 2 * PAIRS - 1));
        model.forget();
        assert!(model.pairs().is_empty());
    }
}
