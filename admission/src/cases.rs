//! What a change does to the cases of PolicyTests: those that break, and those that failed anyway.

use std::collections::HashMap;

use crate::judge::CaseOutcome;

/// Cases sorted by what the change does to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flips {
    /// They held, they bind the change, and they would no longer hold.
    pub broken: Vec<CaseOutcome>,
    /// The same of namespaces whose tests do not bind the change.
    pub broken_elsewhere: Vec<CaseOutcome>,
    /// They bind, and fail with the change as they do without it.
    pub failing: Vec<CaseOutcome>,
    /// They come with the change, and do not hold.
    pub new_and_failing: Vec<CaseOutcome>,
    /// They failed, and would hold.
    pub mended: usize,
}

/// Whose cases may refuse a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding<'a> {
    /// Namespace of what is changed.
    pub namespace: &'a str,
    /// Its tests bind every change.
    pub root_namespace: &'a str,
    /// The PolicyTest that is itself changed: who writes a case down may say what it wants.
    pub changed_test: Option<&'a str>,
}

impl Binding<'_> {
    fn binds(&self, case: &CaseOutcome) -> bool {
        case.namespace == self.namespace || case.namespace == self.root_namespace
    }

    fn is_own(&self, case: &CaseOutcome) -> bool {
        case.namespace == self.namespace && self.changed_test == Some(case.test.as_str())
    }
}

/// Compares the outcomes without the change and with it.
#[must_use]
pub fn flips(before: &[CaseOutcome], after: Vec<CaseOutcome>, binding: Binding<'_>) -> Flips {
    let key = |case: &CaseOutcome| (case.namespace.clone(), case.test.clone(), case.case.clone());
    let held: HashMap<_, bool> = before.iter().map(|case| (key(case), case.holds)).collect();
    let mut flips = Flips::default();
    for case in after {
        let before = held.get(&key(&case)).copied();
        match (before, case.holds) {
            (Some(false), true) => flips.mended += 1,
            (_, true) => {}
            _ if binding.is_own(&case) => flips.new_and_failing.push(case),
            (None, false) => flips.new_and_failing.push(case),
            (Some(true), false) if binding.binds(&case) => flips.broken.push(case),
            (Some(true), false) => flips.broken_elsewhere.push(case),
            (Some(false), false) if binding.binds(&case) => flips.failing.push(case),
            (Some(false), false) => {}
        }
    }
    flips
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(namespace: &str, test: &str, case: &str, holds: bool) -> CaseOutcome {
        CaseOutcome {
            namespace: namespace.to_owned(),
            test: test.to_owned(),
            case: case.to_owned(),
            wanted: "allow".to_owned(),
            got: if holds { "allow" } else { "deny" }.to_owned(),
            holds,
        }
    }

    #[test]
    fn a_case_refuses_only_what_breaks_it_in_its_own_namespace_or_from_the_root() {
        let binding = Binding {
            namespace: "shop",
            root_namespace: "istio-system",
            changed_test: None,
        };
        let names = ["shop", "istio-system", "other"];
        let before: Vec<_> = names
            .iter()
            .flat_map(|ns| {
                [
                    case(ns, "t", "held", true),
                    case(ns, "t", "failed", false),
                    case(ns, "t", "mends", false),
                ]
            })
            .collect();
        let after = names
            .iter()
            .flat_map(|ns| {
                [
                    case(ns, "t", "held", false),
                    case(ns, "t", "failed", false),
                    case(ns, "t", "mends", true),
                ]
            })
            .collect();
        let found = flips(&before, after, binding);
        let of = |cases: &[CaseOutcome]| {
            cases
                .iter()
                .map(|c| format!("{}/{}", c.namespace, c.case))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&found.broken), ["shop/held", "istio-system/held"]);
        assert_eq!(of(&found.broken_elsewhere), ["other/held"]);
        assert_eq!(of(&found.failing), ["shop/failed", "istio-system/failed"]);
        assert_eq!(of(&found.new_and_failing), [""; 0]);
        assert_eq!(found.mended, 3);
    }

    #[test]
    fn who_writes_a_case_is_told_that_it_fails_and_may_write_it() {
        let binding = Binding {
            namespace: "shop",
            root_namespace: "r",
            changed_test: Some("t"),
        };
        let before = [
            case("shop", "t", "held", true),
            case("shop", "u", "held", true),
        ];
        let after = vec![
            case("shop", "t", "held", false),
            case("shop", "t", "new", false),
            case("shop", "u", "held", true),
        ];
        let found = flips(&before, after, binding);
        assert_eq!(found.broken, []);
        assert_eq!(found.new_and_failing.len(), 2);
    }
}
