//! `portcullis policy explain`: a decision told to a person, field by field, with file and line.

use std::io::Write;

use portcullis_authz::check_request::RequestError;
use portcullis_authz::facts::Invalid;
use portcullis_policy::decision::{Decision, Reason, Verdict};
use portcullis_policy::explain::{
    AlternativeReport, ClauseReport, Explanation, Outcome, RuleReport,
};
use serde::Serialize;

use crate::args::{ExplainArgs, Output};
use crate::exit::Exit;
use crate::inputs::{self, Prepared};
use crate::out::{self, BAD, BOLD, CAUTION, DIM, GOOD};
use crate::policy::check::count;
use crate::policy::decide::{Answered, because, json_line, style, summary, word, write_error};

/// One explanation as JSON, with its line.
#[derive(Serialize)]
struct Answer<'a> {
    line: u64,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

/// Explains every request of the input.
///
/// # Errors
/// When an input cannot be read or the output cannot be written.
pub fn run(args: &ExplainArgs, output: Output) -> anyhow::Result<Exit> {
    let prepared = match Prepared::load(&args.input)? {
        Ok(prepared) => prepared,
        Err(refused) => return refused.report(output),
    };
    let mut stdout = out::stdout();
    let mut tally = Answered::default();
    for line in inputs::open_requests(&args.input.requests)? {
        let number = line.number;
        let check = match line.request {
            Ok(check) => check,
            Err(RequestError::Read(error)) => return Err(RequestError::Read(error).into()),
            Err(error) => {
                tally.error();
                write_error(&mut stdout, output, number, &error)?;
                continue;
            }
        };
        let (asked, explanation) = match prepared.request(check) {
            Ok(request) => (
                summary(&request),
                prepared.snapshot.explain(&request, args.all),
            ),
            Err(invalid) => (
                "no request".to_owned(),
                refused(&invalid, prepared.snapshot.revision()),
            ),
        };
        if tally.any() && output == Output::Human {
            writeln!(stdout)?;
        }
        tally.decision(&explanation.decision);
        match output {
            Output::Json => json_line(
                &mut stdout,
                &Answer {
                    line: number,
                    explanation: &explanation,
                },
            )?,
            Output::Human => write(&mut stdout, number, &asked, &explanation, args.all)?,
        }
        stdout.flush()?;
    }
    stdout.flush()?;
    Ok(tally.exit())
}

/// The story of a request whose facts cannot be read: no rule was asked.
fn refused(invalid: &Invalid, revision: &str) -> Explanation {
    Explanation {
        decision: Decision::closed(Reason::InvalidRequest, revision),
        destination: None,
        destination_from: String::new(),
        target: None,
        protocol: "http".into(),
        normalised_path: None,
        steps: vec![format!("{invalid}: denied before any rule was asked")],
        rules: Vec::new(),
    }
}

/// Writes one explanation.
fn write(
    out: &mut impl Write,
    number: u64,
    asked: &str,
    story: &Explanation,
    all: bool,
) -> std::io::Result<()> {
    writeln!(out, "{BOLD}request {number}{BOLD:#}: {asked}")?;
    write_story(out, story, all)
}

/// Writes the verdict, what applied, and the rules that told.
///
/// # Errors
/// When the output cannot be written.
pub fn write_story(out: &mut impl Write, story: &Explanation, all: bool) -> std::io::Result<()> {
    let decision = &story.decision;
    let style = style(decision.decision);
    writeln!(
        out,
        "{style}{}{style:#}: {}",
        word(decision.decision),
        because(decision.reason.as_str(), &decision.policies)
    )?;
    if let Some(provider) = &decision.provider
        && decision.decision == Verdict::Allow
    {
        writeln!(
            out,
            "  {CAUTION}if the provider `{provider}` allows it too{CAUTION:#}: it was not asked here"
        )?;
    }
    if let Some(trial) = &decision.dry_run {
        let told = because(trial.reason.as_str(), &trial.policies);
        if trial.decision == decision.decision {
            writeln!(out, "  on trial: still {}: {told}", word(trial.decision))?;
        } else {
            writeln!(
                out,
                "  {CAUTION}on trial: {} -> {}{CAUTION:#}: {told}",
                word(decision.decision),
                word(trial.decision)
            )?;
        }
    }
    writeln!(out)?;
    write_facts(out, story)?;
    if !story.steps.is_empty() {
        writeln!(out, "\n{BOLD}what applied, in order{BOLD:#}")?;
        for (index, step) in story.steps.iter().enumerate() {
            writeln!(out, "  {}. {step}", index + 1)?;
        }
    }
    if !story.rules.is_empty() {
        let heading = if all {
            "every rule that selects the workload"
        } else if decision.decision == Verdict::Deny && decision.policies.is_empty() {
            "the nearest rules, and what failed"
        } else {
            "the rules that told"
        };
        writeln!(out, "\n{BOLD}{heading}{BOLD:#}")?;
        // A policy without rules is no near miss: after those that could have matched.
        let (could, never): (Vec<_>, Vec<_>) = story
            .rules
            .iter()
            .partition(|rule| all || rule.outcome == Outcome::Matched || has_clauses(rule));
        for rule in could.into_iter().chain(never) {
            write_rule(out, rule)?;
        }
    }
    Ok(())
}

fn write_facts(out: &mut impl Write, story: &Explanation) -> std::io::Result<()> {
    let mut fact = |name: &str, value: &str| writeln!(out, "  {DIM}{name:<12}{DIM:#} {value}");
    let from = if story.destination_from.is_empty() {
        String::new()
    } else {
        format!(" ({})", story.destination_from)
    };
    fact(
        "destination",
        &format!(
            "{}{from}",
            story.destination.as_deref().unwrap_or("unknown")
        ),
    )?;
    if let Some(target) = &story.target {
        fact("target", &format!("{target}, {}", story.protocol))?;
    }
    if let Some(path) = &story.normalised_path {
        fact("path", &format!("{path} (as rules see it)"))?;
    }
    fact("snapshot", &story.decision.snapshot)
}

/// Writes what became of one rule, clause by clause.
///
/// # Errors
/// When the output cannot be written.
pub fn write_rule(out: &mut impl Write, rule: &RuleReport) -> std::io::Result<()> {
    let (style, word) = match rule.outcome {
        Outcome::Matched => (GOOD, "✓ matched".to_owned()),
        Outcome::Failed => (
            BAD,
            format!("✗ {} failed", count(rule.failed_clauses, "clause")),
        ),
        Outcome::NotApplicable => (DIM, "- not applicable".to_owned()),
    };
    let trial = if rule.dry_run { ", on trial" } else { "" };
    writeln!(
        out,
        "  {style}{word}{style:#}  {} {BOLD}{}{BOLD:#}{trial}  {DIM}{}{DIM:#}",
        rule.action, rule.id, rule.at
    )?;
    if let Some(note) = &rule.note {
        writeln!(out, "      {DIM}{note}{DIM:#}")?;
    }
    // What holds no clause and yet did not match has told all in its note.
    if rule.outcome == Outcome::NotApplicable
        || (rule.outcome == Outcome::Failed && !has_clauses(rule))
    {
        return Ok(());
    }
    write_alternatives(out, "from", "any source", &rule.from)?;
    write_alternatives(out, "to", "any operation", &rule.to)?;
    if let Some(when) = &rule.when {
        write_alternatives(out, "when", "", std::slice::from_ref(when))?;
    }
    Ok(())
}

fn has_clauses(rule: &RuleReport) -> bool {
    !rule.from.is_empty() || !rule.to.is_empty() || rule.when.is_some()
}

fn write_alternatives(
    out: &mut impl Write,
    name: &str,
    any: &str,
    alternatives: &[AlternativeReport],
) -> std::io::Result<()> {
    if alternatives.is_empty() {
        return writeln!(out, "      {GOOD}✓{GOOD:#} {name}: {any}");
    }
    for alternative in alternatives {
        if alternative.clauses.is_empty() {
            writeln!(
                out,
                "      {} {}: anything",
                mark(alternative.passed),
                alternative.field
            )?;
        }
        for clause in &alternative.clauses {
            write_clause(out, clause)?;
        }
    }
    Ok(())
}

fn write_clause(out: &mut impl Write, clause: &ClauseReport) -> std::io::Result<()> {
    let wanted = clause.wanted.join(", ");
    let relation = if clause.negated { "none of" } else { "one of" };
    let relation = if clause.wanted.len() == 1 {
        if clause.negated { "not" } else { "" }
    } else {
        relation
    };
    let space = if relation.is_empty() { "" } else { " " };
    writeln!(
        out,
        "      {} {}: {relation}{space}{wanted}  {DIM}{}{DIM:#}",
        mark(clause.passed),
        clause.field,
        clause.at
    )?;
    let (verb, style) = if clause.passed {
        ("had", DIM)
    } else {
        ("had instead", BAD)
    };
    writeln!(out, "          {style}{verb}{style:#} {}", clause.had)
}

fn mark(passed: bool) -> String {
    if passed {
        format!("{GOOD}✓ held{GOOD:#}")
    } else {
        format!("{BAD}✗ failed{BAD:#}")
    }
}
