use std::sync::Mutex;
use std::time::Duration;

use portcullis_policy::live::Store;
use portcullis_policy::settings::Settings;

use super::*;

/// Cases that hold before, after, or both, each in three namespaces; `slow` ones are never in time.
struct Told {
    before: Arc<Snapshot>,
    slow: Option<&'static str>,
    runs: Mutex<usize>,
}

const CASES: [(&str, bool, bool); 4] = [
    ("holds", true, true),
    ("breaks", true, false),
    ("fails", false, false),
    ("mends", false, true),
];

impl Judge for Told {
    fn cases(
        &self,
        snapshot: &Arc<Snapshot>,
        wanted: &dyn Fn(CaseName<'_>) -> bool,
        _: Instant,
    ) -> Ran {
        let mut ran = Ran::default();
        for namespace in ["shop", "istio-system", "other"] {
            for (case, before, after) in CASES {
                let name = CaseName {
                    namespace,
                    test: "t",
                    case,
                };
                if !wanted(name) {
                    continue;
                }
                if self.slow == Some(namespace) {
                    ran.left += 1;
                    continue;
                }
                *self.runs.lock().unwrap() += 1;
                let holds = match Arc::ptr_eq(snapshot, &self.before) {
                    true => before,
                    false => after,
                };
                ran.outcomes.push(CaseOutcome {
                    namespace: namespace.to_owned(),
                    test: "t".to_owned(),
                    case: case.to_owned(),
                    wanted: "allow".to_owned(),
                    got: if holds { "allow" } else { "deny" }.to_owned(),
                    holds,
                });
            }
        }
        ran
    }
}

fn found(
    namespace: &str,
    test: Option<&str>,
    slow: Option<&'static str>,
) -> (Result<Flips, Late>, usize) {
    let snapshot = || Store::new(Settings::default()).snapshot();
    let judge = Told {
        before: snapshot(),
        slow,
        runs: Mutex::new(0),
    };
    let changed = Changed {
        namespace,
        test,
        root_namespace: "istio-system",
    };
    let until = Instant::now() + Duration::from_secs(60);
    let found = flips(&judge, &judge.before, &snapshot(), changed, until);
    let runs = *judge.runs.lock().unwrap();
    (found, runs)
}

fn names(cases: &[CaseOutcome]) -> Vec<String> {
    let names = cases.iter();
    names
        .map(|c| format!("{}/{}", c.namespace, c.case))
        .collect()
}

#[test]
fn a_case_refuses_only_what_breaks_it_in_its_own_namespace_or_from_the_root() {
    let (flips, runs) = found("shop", None, Some("other"));
    let flips = flips.unwrap();
    assert_eq!(names(&flips.broken), ["shop/breaks", "istio-system/breaks"]);
    assert_eq!(names(&flips.failing), ["shop/fails", "istio-system/fails"]);
    assert_eq!((flips.broken_elsewhere, flips.not_run), (Vec::new(), 0));
    // Eight with the change, and without it those four that fail.
    assert_eq!(runs, 12);
}

#[test]
fn the_root_namespace_is_told_of_others_and_bound_by_its_own() {
    let flips = found("istio-system", None, None).0.unwrap();
    assert_eq!(names(&flips.broken), ["istio-system/breaks"]);
    assert_eq!(
        names(&flips.broken_elsewhere),
        ["shop/breaks", "other/breaks"]
    );
    // Others' cases cannot hold it up.
    let flips = found("istio-system", None, Some("shop")).0.unwrap();
    assert_eq!(names(&flips.broken_elsewhere), ["other/breaks"]);
    assert_eq!(flips.not_run, 4);
}

#[test]
fn without_time_for_what_binds_there_is_no_verdict() {
    for (namespace, slow) in [
        ("shop", "shop"),
        ("shop", "istio-system"),
        ("istio-system", "istio-system"),
    ] {
        let (found, _) = found(namespace, None, Some(slow));
        assert_eq!(found, Err(Late { left: 4 }), "{namespace} {slow}");
    }
}

#[test]
fn a_changed_test_runs_its_own_cases_and_is_bound_by_none() {
    let (flips, runs) = found("shop", Some("t"), Some("istio-system"));
    let flips = flips.unwrap();
    assert_eq!(names(&flips.new_and_failing), ["shop/breaks", "shop/fails"]);
    assert_eq!((flips.broken, runs), (Vec::new(), 4));
    let (gone, runs) = found("shop", Some("gone"), Some("shop"));
    assert_eq!((gone.unwrap(), runs), (Flips::default(), 0));
}
