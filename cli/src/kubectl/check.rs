//! `kubectl portcullis check`: what a change would bring to the cluster, before it is applied.

mod objects;

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::Arc;

use portcullis_authz::policy_test;
use portcullis_policy::compile::Documents;
use portcullis_policy::diagnostic::{Diagnostic, code};
use portcullis_policy::live::{Change, ObjectKey, PolicyKind};
use portcullis_policy::resource::{self, CaseOutcome, PolicyTest};
use portcullis_policy::snapshot::Snapshot;

use self::objects::Objects;
use super::args::{CheckArgs, ClusterArgs};
use super::cluster::Live;
use crate::args::Output;
use crate::exit::Exit;
use crate::policy::check::{Tally, count};
use crate::policy::decide::json_line;
use crate::{diagnostics, inputs, out};

/// A change of more objects is judged as a whole alone: each step costs as much as all before it.
const MOST_STEPS: usize = 100;

/// Checks what `args` name.
///
/// # Errors
/// When the cluster or a path cannot be read.
pub async fn run(args: &CheckArgs, cluster: &ClusterArgs, output: Output) -> anyhow::Result<Exit> {
    let documents = Documents {
        base: inputs::read(&args.filename)?,
        candidate: None,
    };
    // What cannot be read is told with its place in the file, and no cluster is needed for it.
    let unread = unreadable(&documents);
    if !unread.is_empty() {
        return finish(&unread, &documents, None, args, output);
    }
    let takes_stdin = args.filename.iter().any(|path| path.as_os_str() == "-");
    let live = Live::read(cluster, takes_stdin).await?;
    if let Some(namespace) = &cluster.namespace {
        live.knows(namespace).await?;
    }
    let objects = Objects::of(&documents.base, &live.namespace);
    let changes = objects.changes();
    let proposed = live.store.lock().propose(&changes);
    let (found, after) = match proposed {
        Ok(proposal) => (proposal.diagnostics, Some(proposal.snapshot)),
        Err(found) => (found, None),
    };
    let mut found: Vec<Diagnostic> = found.into_iter().map(|d| objects.place(d)).collect();
    if let Some(after) = &after {
        let broken = broken(&live.snapshot, after);
        for (key, case) in refused_on_the_way(&live, &changes) {
            if !broken.iter().any(|known| is_same(known, &case)) {
                found.extend(
                    case.diagnostic()
                        .map(|d| objects.place(d.with_hint(order(&key)))),
                );
            }
        }
        found.extend(
            broken
                .iter()
                .filter_map(CaseOutcome::diagnostic)
                .map(|d| objects.place(d)),
        );
    }
    finish(&found, &documents, Some(objects.len()), args, output)
}

/// Every diagnostic of files of which one cannot be read.
fn unreadable(documents: &Documents) -> Vec<Diagnostic> {
    let read = documents.base.iter().map(resource::read);
    let found: Vec<Diagnostic> = read.flat_map(|file| file.diagnostics).collect();
    if found.iter().any(Diagnostic::is_error) {
        // In a cluster they are of the namespace of the command line or the context.
        let is_told = |one: &Diagnostic| one.code != code::DEFAULT_NAMESPACE.id;
        found.into_iter().filter(is_told).collect()
    } else {
        Vec::new()
    }
}

/// Cases that hold now and would not hold any more, and those of proposed tests that do not hold.
fn broken(before: &Arc<Snapshot>, after: &Arc<Snapshot>) -> Vec<CaseOutcome> {
    let outcomes = |snapshot: &Arc<Snapshot>| -> Vec<CaseOutcome> {
        let tests = snapshot.policies().tests();
        tests
            .flat_map(|test| policy_test::run(snapshot, test))
            .collect()
    };
    let failed_before = outcomes(before).into_iter().filter(|case| !case.holds);
    let failed_before: HashSet<(String, String)> =
        failed_before.map(|case| (case.test, case.name)).collect();
    let failing = outcomes(after).into_iter().filter(|case| !case.holds);
    failing
        .filter(|case| !failed_before.contains(&(case.test.clone(), case.name.clone())))
        .collect()
}

fn is_same(one: &CaseOutcome, other: &CaseOutcome) -> bool {
    (&one.test, &one.name) == (&other.test, &other.name)
}

fn order(key: &ObjectKey) -> String {
    format!(
        "all together they hold, one after the other the webhook refuses {}: apply the PolicyTest first",
        key.resource()
    )
}

/// Cases that a policy breaks when the objects are applied one by one, which whatever follows mends: the webhook judges
/// each as it comes.
fn refused_on_the_way(live: &Live, changes: &[Change]) -> Vec<(ObjectKey, CaseOutcome)> {
    if changes.len() > MOST_STEPS {
        return Vec::new();
    }
    let mut before = Arc::clone(&live.snapshot);
    let mut refused = Vec::new();
    for (number, change) in changes.iter().enumerate() {
        let so_far = changes.get(..=number).unwrap_or(changes);
        // What is wrong in itself is told anyway.
        let Ok(proposal) = live.store.lock().propose(so_far) else {
            break;
        };
        let after = proposal.snapshot;
        if let Change::Apply { key, .. } = change
            && let Some(kind) = key.policy_kind()
            && kind != PolicyKind::PolicyTest
        {
            let root = &before.mesh().root_namespace;
            let binds = |test: &PolicyTest| {
                [key.namespace.as_ref(), root.as_str()].contains(&test.meta.namespace.as_str())
            };
            let run = |snapshot: &Arc<Snapshot>| -> Vec<CaseOutcome> {
                let tests = snapshot.policies().tests().filter(|test| binds(test));
                tests
                    .flat_map(|test| policy_test::run(snapshot, test))
                    .collect()
            };
            let failing: Vec<_> = run(&after).into_iter().filter(|case| !case.holds).collect();
            if !failing.is_empty() {
                let held = run(&before);
                let held = |case: &CaseOutcome| held.iter().any(|c| c.holds && is_same(c, case));
                let broken = failing.into_iter().filter(held);
                refused.extend(broken.map(|case| (key.clone(), case)));
            }
        }
        before = after;
    }
    refused
}

fn finish(
    found: &[Diagnostic],
    documents: &Documents,
    objects: Option<usize>,
    args: &CheckArgs,
    output: Output,
) -> anyhow::Result<Exit> {
    let tally = Tally::of(found);
    let mut stdout = out::stdout();
    match output {
        Output::Json => {
            for diagnostic in found {
                json_line(&mut stdout, diagnostic)?;
            }
        }
        Output::Human => {
            diagnostics::write_all(&mut stdout, found, documents)?;
            let what = match objects {
                Some(objects) => format!("{} against the cluster", count(objects, "object")),
                None => count(documents.base.len(), "file"),
            };
            writeln!(stdout, "checked {what}: {}", tally.words())?;
        }
    }
    stdout.flush()?;
    let refused = tally.errors > 0 || (args.deny_warnings && tally.warnings > 0);
    Ok(if refused { Exit::No } else { Exit::Yes })
}
