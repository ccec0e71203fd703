//! Whether the cases of PolicyTests hold against the set in force: run by the leader, apart from what makes snapshots.
//!
//! A set that changes many times a second is not tested as often: after each run there is a pause many times as long, and a
//! run that takes long is continued after one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_policy::document::Excerpt;
use portcullis_policy::live::ObjectKey;
use portcullis_policy::resource::{CaseOutcome, PolicyTest};
use portcullis_policy::snapshot::Snapshot;
use tokio::sync::watch;

use crate::lease::Leadership;
use crate::report::{TOLD, Told, Verdict, shortened};

/// Runs every case of a test as the server that decides would. Who knows requests gives it: here nobody knows Envoy.
pub type RunCases = fn(&Arc<Snapshot>, &PolicyTest) -> Vec<CaseOutcome>;

/// The shortest pause between two runs.
const PAUSE: Duration = Duration::from_secs(1);
/// No further test is begun in a run that has taken so long.
const RUN: Duration = Duration::from_millis(500);
/// A pause is so many times as long as the run before it.
const SHARE: u32 = 20;

/// What came of each PolicyTest, and the generation of it that was run.
pub(crate) type Found = BTreeMap<ObjectKey, (i64, Verdict)>;

/// Runs what it is told of while it leads.
pub(crate) struct Tester {
    pub run: RunCases,
    pub leadership: Leadership,
}

/// A test and the last time that it was run.
#[derive(Clone, Debug)]
struct Due {
    /// Number of the set; 0 for never.
    last: u64,
    key: ObjectKey,
    generation: i64,
}

impl Tester {
    /// Runs for ever.
    pub(crate) async fn run(
        self,
        mut told: watch::Receiver<Told>,
        sender: watch::Sender<Arc<Found>>,
    ) {
        let mut found = Found::new();
        let mut last: BTreeMap<ObjectKey, u64> = BTreeMap::new();
        let mut tested: Option<Arc<Snapshot>> = None;
        let mut number = 0u64;
        let mut left_over = false;
        loop {
            if !left_over && told.changed().await.is_err() {
                return;
            }
            let now = told.borrow_and_update().clone();
            left_over = false;
            let Some(snapshot) = now.snapshot.filter(|_| self.leadership.leads()) else {
                found.clear();
                last.clear();
                continue;
            };
            let same = |tested: &Arc<Snapshot>| Arc::ptr_eq(tested, &snapshot);
            if !tested.as_ref().is_some_and(same) {
                number = number.saturating_add(1);
                tested = Some(Arc::clone(&snapshot));
            }
            found.retain(|key, _| now.reports.contains_key(key));
            last.retain(|key, _| now.reports.contains_key(key));
            let tests = now.reports.iter();
            let tests = tests.filter(|(key, _)| key.kind.as_ref() == "PolicyTest");
            let due = tests.filter_map(|(key, report)| {
                let generation = report.written.generation;
                let is_same = found.get(key).is_some_and(|(of, _)| *of == generation);
                let last = last.get(key).copied().filter(|_| is_same).unwrap_or(0);
                (last != number).then(|| Due {
                    last,
                    key: key.clone(),
                    generation,
                })
            });
            let mut due: Vec<Due> = due.collect();
            // Those that wait the longest come first.
            due.sort_by_key(|due| due.last);
            if due.is_empty() {
                continue;
            }
            let (started, wanted, run) = (Instant::now(), due.len(), self.run);
            let running = tokio::task::spawn_blocking(move || some(run, &snapshot, due));
            let Ok(ran) = running.await else {
                tracing::error!("a PolicyTest stopped unexpectedly; its status is not written");
                tokio::time::sleep(PAUSE * SHARE).await;
                continue;
            };
            left_over = ran.len() < wanted;
            for (due, verdict) in ran {
                tell(&due.key, found.get(&due.key), &verdict);
                last.insert(due.key.clone(), number);
                found.insert(due.key, (due.generation, verdict));
            }
            sender.send_replace(Arc::new(found.clone()));
            tokio::time::sleep(PAUSE.max(started.elapsed() * SHARE)).await;
        }
    }
}

/// Runs tests until [`RUN`] has passed, one at least.
fn some(run: RunCases, snapshot: &Arc<Snapshot>, due: Vec<Due>) -> Vec<(Due, Verdict)> {
    let started = Instant::now();
    let tests = snapshot.policies().tests();
    let tests: BTreeMap<&str, &PolicyTest> = tests
        .map(|test| (test.meta.at.file.as_ref(), test))
        .collect();
    let mut ran = Vec::new();
    for due in due {
        if !ran.is_empty() && started.elapsed() > RUN {
            break;
        }
        let verdict = match tests.get(due.key.file().as_ref()) {
            Some(test) => verdict(&run(snapshot, test)),
            None => Verdict::unknown(
                "NotRun",
                "no case is run: there is no good version of this test",
            ),
        };
        ran.push((due, verdict));
    }
    ran
}

fn verdict(outcomes: &[CaseOutcome]) -> Verdict {
    let failing: Vec<&CaseOutcome> = outcomes.iter().filter(|outcome| !outcome.holds).collect();
    let all = outcomes.len();
    let cases = if all == 1 { "case" } else { "cases" };
    if failing.is_empty() {
        let hold = if all == 1 { "holds" } else { "hold" };
        return Verdict::yes("CasesHold", format!("{all} {cases} {hold}"));
    }
    let first = failing.iter().take(TOLD).map(|outcome| {
        format!(
            "`{}`: wanted {}, got {}",
            Excerpt(&outcome.name),
            outcome.wanted,
            outcome.got_in_words()
        )
    });
    let first: Vec<String> = first.collect();
    let do_not = if failing.len() == 1 { "does" } else { "do" };
    let mut words = shortened(format!(
        "{} of {all} {cases} {do_not} not hold: {}",
        failing.len(),
        first.join("; ")
    ));
    let more = failing.len().saturating_sub(TOLD);
    if more > 0 {
        words.push_str(&format!("; and {more} more"));
    }
    Verdict::no("CasesFail", words)
}

/// Logs what is new.
fn tell(key: &ObjectKey, before: Option<&(i64, Verdict)>, now: &Verdict) {
    let before = before.map(|(_, before)| before.holds);
    match now.holds {
        Some(false) if before != Some(Some(false)) => {
            tracing::warn!(resource = key.resource(), why = now.message, "cases fail");
        }
        Some(true) if before == Some(Some(false)) => {
            tracing::info!(resource = key.resource(), "its cases hold again");
        }
        _ => {}
    }
}
