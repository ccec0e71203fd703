//! What a source shows of itself, whoever runs it: the table, and the samples of one scrape.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use portcullis_wire::metrics::{Definition, Kind as Is, Samples, Values};

use crate::kind::{KINDS, Kind};
use crate::state::{Counters, KindState, KindStatus, Status};

/// Stands before every name.
pub const PREFIX: &str = "portcullis_source_";

const RESOURCE: (&str, &str) = ("resource", "a kind as roles name it, such as `pods`");

const fn metric(
    name: &'static str,
    kind: Is,
    labels: &'static [(&'static str, &'static str)],
    meaning: &'static str,
) -> Definition {
    Definition {
        prefix: PREFIX,
        name,
        kind,
        labels,
        meaning,
    }
}

/// The metrics, in the order in which they are shown.
pub static TABLE: &[Definition] = &[
    metric(
        "synced",
        Is::Gauge,
        &[],
        "1 once every kind that is installed was listed whole and a snapshot was made of it",
    ),
    metric(
        "contact_age_seconds",
        Is::Gauge,
        &[],
        "Time since the API server last answered: what is in force is as old as this, at most",
    ),
    metric(
        "kind_state",
        Is::Gauge,
        &[
            RESOURCE,
            (
                "state",
                "`following`, `not_installed`, `starting`, `retrying`, `forbidden`",
            ),
        ],
        "1 for the state of a kind, 0 for the others",
    ),
    metric("objects", Is::Gauge, &[RESOURCE], "Objects that are held"),
    metric(
        "events",
        Is::Counter,
        &[RESOURCE],
        "Objects that came, changed or went",
    ),
    metric(
        "lists",
        Is::Counter,
        &[RESOURCE],
        "Whole lists: the first, and one after each gap",
    ),
    metric(
        "errors",
        Is::Counter,
        &[RESOURCE],
        "Lists and watches that failed",
    ),
    metric(
        "expired",
        Is::Counter,
        &[RESOURCE],
        "Watches whose history the API server had forgotten (410): the kind was listed again",
    ),
    metric(
        "lag_seconds",
        Is::Histogram,
        &[],
        "Time from an object's arrival until a snapshot with it is in force",
    ),
    metric(
        "compile_duration_seconds",
        Is::Histogram,
        &[],
        "Time to make one snapshot of what has changed",
    ),
    metric(
        "policies_refused",
        Is::Gauge,
        &[(
            "instead",
            "`last_good`: an earlier version is in force; `closed`: what it selects is denied",
        )],
        "Policies whose last version is refused",
    ),
    metric(
        "failing",
        Is::Gauge,
        &[],
        "1 while snapshots cannot be made at all, and the last one stays in force",
    ),
    metric(
        "leads",
        Is::Gauge,
        &[],
        "1 while this replica writes statuses",
    ),
    metric(
        "statuses",
        Is::Counter,
        &[("result", "`success`, `failure`")],
        "Statuses of policies that were written",
    ),
];

/// Every metric with its samples of now.
#[must_use]
pub fn samples(status: &Status, counters: &Counters) -> Vec<(&'static Definition, Samples)> {
    TABLE
        .iter()
        .filter_map(|one| Some((one, of(one.name, status, counters)?)))
        .collect()
}

fn of(name: &str, status: &Status, counters: &Counters) -> Option<Samples> {
    let of_kinds = |counts: &[AtomicU64; KINDS.len()]| {
        let kinds = KINDS.iter().zip(counts);
        let samples = kinds.map(|(kind, count)| (vec![Kind::resource(kind)], load(count)));
        Samples::Counters(samples.collect())
    };
    let flag = |holds: bool| (Values::new(), f64::from(u8::from(holds)));
    Some(match name {
        "synced" => Samples::Gauges(vec![flag(status.synced)]),
        "contact_age_seconds" => {
            let contact = counters.contact().map(|at| (Values::new(), age(at)));
            Samples::Gauges(contact.into_iter().collect())
        }
        "kind_state" => {
            let states = |kind: &KindStatus| {
                let (resource, is) = (kind.kind.resource(), kind.state.word());
                KindState::WORDS.map(|state| {
                    let is = f64::from(u8::from(is == state));
                    (vec![resource.clone(), state.to_owned()], is)
                })
            };
            Samples::Gauges(status.kinds.iter().flat_map(states).collect())
        }
        "objects" => {
            let kinds = status.kinds.iter();
            let objects = kinds.map(|kind| (vec![kind.kind.resource()], kind.objects as f64));
            Samples::Gauges(objects.collect())
        }
        "events" => of_kinds(&counters.events),
        "lists" => of_kinds(&counters.lists),
        "errors" => of_kinds(&counters.errors),
        "expired" => of_kinds(&counters.expired),
        "lag_seconds" => Samples::Latencies(vec![(Values::new(), counters.lag.observed())]),
        "compile_duration_seconds" => {
            Samples::Latencies(vec![(Values::new(), counters.compile.observed())])
        }
        "policies_refused" => Samples::Gauges(vec![
            (vec!["last_good".to_owned()], status.kept as f64),
            (vec!["closed".to_owned()], status.closed as f64),
        ]),
        "failing" => Samples::Gauges(vec![flag(status.failure.is_some())]),
        "leads" => Samples::Gauges(status.leads.map(flag).into_iter().collect()),
        "statuses" => Samples::Counters(vec![
            (vec!["success".to_owned()], load(&counters.statuses)),
            (vec!["failure".to_owned()], load(&counters.statuses_failed)),
        ]),
        _ => return None,
    })
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Seconds since then; none where the clock went back.
fn age(at: SystemTime) -> f64 {
    let since = SystemTime::now().duration_since(at);
    since.map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_table_has_samples_and_no_other() {
        let (status, counters) = (Status::default(), Counters::default());
        let shown = samples(&status, &counters);
        let names: Vec<&str> = shown.iter().map(|(one, _)| one.name).collect();
        let all: Vec<&str> = TABLE.iter().map(|one| one.name).collect();
        assert_eq!(names, all);
        counters.touch();
        let text = portcullis_wire::metrics::text(samples(&status, &counters));
        for line in [
            "portcullis_source_synced 0",
            "portcullis_source_events_total{resource=\"pods\"} 0",
            "portcullis_source_policies_refused{instead=\"closed\"} 0",
            "portcullis_source_contact_age_seconds 0.",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
