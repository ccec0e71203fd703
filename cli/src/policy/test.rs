//! `portcullis policy test`: runs the cases of PolicyTests against the policies beside them.

use std::io::Write;
use std::sync::Arc;

use portcullis_authz::policy_test;
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::decision::Decision;
use portcullis_policy::diagnostic::Location;
use portcullis_policy::explain::{Explanation, Outcome, RuleReport};
use portcullis_policy::resource::{CaseOutcome, DecisionCase, Expected, PolicyTest};
use portcullis_policy::snapshot::Snapshot;
use serde::Serialize;

use crate::args::{Output, TestArgs};
use crate::config::Config;
use crate::exit::Exit;
use crate::inputs::{self, Refused};
use crate::out::{self, BAD, BOLD, DIM, GOOD};
use crate::policy::check::count;
use crate::policy::decide::{because, json_line, word};
use crate::policy::explain::write_rule;

/// Rules shown of a case that does not hold.
const NEAREST: usize = 2;

/// One case as JSON.
#[derive(Serialize)]
struct Line<'a> {
    test: &'a str,
    case: &'a str,
    holds: bool,
    #[serde(flatten)]
    at: &'a Location,
    field: &'a str,
    wanted: &'a Expected,
    got: Option<&'a Decision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// The nearest rules, of a case that does not hold.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rules: &'a [RuleReport],
    /// Of a case with `explain: true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<&'a Explanation>,
}

/// Runs every case that `args` name.
///
/// # Errors
/// When something cannot be read, or there is no test.
pub fn run(args: &TestArgs, output: Output) -> anyhow::Result<Exit> {
    let config = Config::load(args.config.config.as_deref())?;
    let documents = Documents {
        base: inputs::read(&config.policies(&args.paths)?)?,
        candidate: None,
    };
    let snapshot = match compile(&documents, &config.settings()) {
        Ok(snapshot) => Arc::new(snapshot),
        Err(diagnostics) => {
            return Refused {
                diagnostics,
                documents,
            }
            .report(output);
        }
    };
    let tests: Vec<&PolicyTest> = snapshot.policies().tests().collect();
    if tests.is_empty() {
        anyhow::bail!(
            "no PolicyTest among the {}: name the files that hold them beside the policies",
            count(documents.base.len(), "file")
        );
    }
    let mut stdout = out::stdout();
    let tally = report(&mut stdout, &snapshot, &tests, output)?;
    if output == Output::Human {
        writeln!(stdout, "{}", tally.words(tests.len()))?;
    }
    stdout.flush()?;
    Ok(if tally.failed == 0 {
        Exit::Yes
    } else {
        Exit::No
    })
}

/// Cases run, and those that did not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub cases: usize,
    /// Those that do not hold.
    pub failed: usize,
}

impl Tally {
    /// Such as `3 cases of 1 test: 1 fails`.
    #[must_use]
    pub fn words(self, tests: usize) -> String {
        let of = format!("{} of {}", count(self.cases, "case"), count(tests, "test"));
        match self.failed {
            0 if self.cases == 1 => format!("{of}: it holds"),
            0 => format!("{of}: all hold"),
            1 => format!("{of}: 1 does not hold"),
            failed => format!("{of}: {failed} do not hold"),
        }
    }
}

/// Runs `tests` and writes what became of each case.
///
/// # Errors
/// When the output cannot be written.
pub fn report(
    out: &mut impl Write,
    snapshot: &Arc<Snapshot>,
    tests: &[&PolicyTest],
    output: Output,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for test in tests {
        for (case, outcome) in test.cases.iter().zip(policy_test::run(snapshot, test)) {
            tally.cases += 1;
            tally.failed += usize::from(!outcome.holds);
            let told = !outcome.holds || case.explain;
            let story = told
                .then(|| policy_test::explain(snapshot, case, false).ok())
                .flatten();
            match output {
                Output::Json => json_line(out, &line(&outcome, case, story.as_ref()))?,
                Output::Human => write(out, &outcome, story.as_ref())?,
            }
        }
    }
    Ok(tally)
}

fn line<'a>(
    outcome: &'a CaseOutcome,
    case: &DecisionCase,
    story: Option<&'a Explanation>,
) -> Line<'a> {
    let rules = story.filter(|_| !outcome.holds).map(nearest);
    Line {
        test: &outcome.test,
        case: &outcome.name,
        holds: outcome.holds,
        at: &outcome.at,
        field: &outcome.field,
        wanted: &outcome.wanted,
        got: outcome.got.as_ref().ok(),
        error: outcome.got.as_ref().err().map(String::as_str),
        rules: rules.unwrap_or_default(),
        explanation: story.filter(|_| case.explain),
    }
}

/// The rules that told, or nearly did: the story has them in that order.
fn nearest(story: &Explanation) -> &[RuleReport] {
    let told = story
        .rules
        .iter()
        .take(NEAREST)
        .take_while(|rule| rule.outcome != Outcome::NotApplicable)
        .count();
    story.rules.get(..told).unwrap_or_default()
}

fn write(
    out: &mut impl Write,
    outcome: &CaseOutcome,
    story: Option<&Explanation>,
) -> std::io::Result<()> {
    let (test, name) = (&outcome.test, &outcome.name);
    if outcome.holds {
        return writeln!(out, "{GOOD}✓{GOOD:#} {test}: {name}");
    }
    writeln!(
        out,
        "{BAD}✗{BAD:#} {BOLD}{test}: {name}{BOLD:#}  {DIM}{}{DIM:#}",
        outcome.at
    )?;
    writeln!(out, "    wanted {}", outcome.wanted)?;
    match &outcome.got {
        Err(why) => writeln!(out, "    the request is no CheckRequest: {why}")?,
        Ok(got) => {
            let because = because(got.reason.as_str(), &got.policies);
            writeln!(
                out,
                "    got    {} ({because})",
                word(got.decision).to_lowercase()
            )?;
            write_beside(out, &outcome.wanted, got)?;
        }
    }
    for rule in story.map(nearest).unwrap_or_default() {
        write_rule(out, rule)?;
    }
    Ok(())
}

/// What differs beside verdict, reason and policies.
fn write_beside(out: &mut impl Write, wanted: &Expected, got: &Decision) -> std::io::Result<()> {
    if wanted.audit.as_ref().is_some_and(|w| *w != got.audit) {
        writeln!(out, "    got    audit {:?}", got.audit)?;
    }
    if wanted.provider.is_some() && wanted.provider != got.provider {
        let provider = got.provider.as_deref().unwrap_or("none");
        writeln!(out, "    got    provider {provider}")?;
    }
    if wanted.dry_run.is_some() {
        match &got.dry_run {
            None => writeln!(out, "    got    nothing on trial")?,
            Some(trial) => writeln!(
                out,
                "    got    on trial {} ({})",
                word(trial.decision).to_lowercase(),
                because(trial.reason.as_str(), &trial.policies)
            )?,
        }
    }
    Ok(())
}
