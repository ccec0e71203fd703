//! What a change does to the cases of PolicyTests: those that break, and those that failed anyway.
//!
//! | changed | cases that are run | those that bind |
//! |---|---|---|
//! | a PolicyTest | its own: no others depend on it | none: who writes a case down may say what it wants |
//! | a policy | those of its namespace and of the root namespace | the same |
//! | a policy in the root namespace | all, those of the root namespace first | those of the root namespace |
//!
//! All that bind are run, or there is no verdict. Of the set in force, those alone are run that fail with the change.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use portcullis_policy::snapshot::Snapshot;

use crate::judge::{CaseName, CaseOutcome, Judge, Ran};

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
    /// They do not bind, and there was no time for them.
    pub not_run: usize,
}

/// There was no time for cases that bind: nobody knows whether the change breaks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{left} cases of PolicyTests that bind this change were not run in time: have fewer of them"
)]
pub struct Late {
    /// How many.
    pub left: usize,
}

/// What is changed, as cases are bound by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The name, where it is a PolicyTest.
    pub test: Option<&'a str>,
    /// The namespace whose tests bind every change.
    pub root_namespace: &'a str,
}

/// Runs the cases that a change concerns until `until`.
///
/// # Errors
/// [`Late`].
pub fn flips(
    judge: &dyn Judge,
    before: &Arc<Snapshot>,
    after: &Arc<Snapshot>,
    changed: Changed<'_>,
    until: Instant,
) -> Result<Flips, Late> {
    let Changed {
        namespace,
        test,
        root_namespace: root,
    } = changed;
    let mut flips = Flips::default();
    if let Some(test) = test {
        let own = |case: CaseName<'_>| (case.namespace, case.test) == (namespace, test);
        let ran = judge.cases(after, &own, until);
        flips.not_run = ran.left;
        flips.new_and_failing = that_fail(ran);
        return Ok(flips);
    }
    let binds = |case: CaseName<'_>| [namespace, root].contains(&case.namespace);
    let ran = judge.cases(after, &binds, until);
    if ran.left > 0 {
        return Err(Late { left: ran.left });
    }
    let bound = that_fail(ran);
    let (held, left) = held(judge, before, &bound, until);
    if left > 0 {
        return Err(Late { left });
    }
    (flips.broken, flips.failing) = parted(bound, &held);
    if namespace == root {
        let elsewhere = |case: CaseName<'_>| case.namespace != root;
        let ran = judge.cases(after, &elsewhere, until);
        flips.not_run = ran.left;
        let failing = that_fail(ran);
        let (held, left) = self::held(judge, before, &failing, until);
        flips.not_run += left;
        flips.broken_elsewhere = parted(failing, &held).0;
    }
    Ok(flips)
}

type Name = (String, String, String);

fn name(case: &CaseOutcome) -> Name {
    (case.namespace.clone(), case.test.clone(), case.case.clone())
}

fn that_fail(ran: Ran) -> Vec<CaseOutcome> {
    ran.outcomes
        .into_iter()
        .filter(|case| !case.holds)
        .collect()
}

/// Which of `cases` hold in `snapshot`, and how many were not run.
fn held(
    judge: &dyn Judge,
    snapshot: &Arc<Snapshot>,
    cases: &[CaseOutcome],
    until: Instant,
) -> (HashSet<Name>, usize) {
    if cases.is_empty() {
        return (HashSet::new(), 0);
    }
    let names: HashSet<CaseName<'_>> = cases.iter().map(CaseOutcome::name).collect();
    let ran = judge.cases(snapshot, &|case| names.contains(&case), until);
    let held = ran.outcomes.iter().filter(|case| case.holds);
    (held.map(name).collect(), ran.left)
}

/// Those that held, and the rest.
fn parted(cases: Vec<CaseOutcome>, held: &HashSet<Name>) -> (Vec<CaseOutcome>, Vec<CaseOutcome>) {
    cases
        .into_iter()
        .partition(|case| held.contains(&name(case)))
}

#[cfg(test)]
mod tests;
