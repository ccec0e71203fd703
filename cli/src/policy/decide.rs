//! `portcullis policy decide`: one request per line in, one decision per line out, as they come.

use std::collections::BTreeMap;
use std::io::Write;

use portcullis_authz::check_request::RequestError;
use portcullis_policy::decision::{Decision, Reason, Verdict};
use portcullis_policy::request::Request;
use serde::Serialize;

use crate::args::{DecideArgs, Output};
use crate::exit::Exit;
use crate::inputs::{self, Prepared};
use crate::out::{self, BAD, BOLD, CAUTION, DIM, GOOD};

/// An answer as the contract has it: `line`, then the decision's own keys.
#[derive(Serialize)]
struct Answer<'a> {
    line: u64,
    #[serde(flatten)]
    decision: &'a Decision,
}

/// The answer to a line that is no request.
#[derive(Serialize)]
struct Refusal<'a> {
    line: u64,
    error: &'a str,
}

/// Decides every request of the input.
///
/// # Errors
/// When an input cannot be read or the output cannot be written.
pub fn run(args: &DecideArgs, output: Output) -> anyhow::Result<Exit> {
    let prepared = match Prepared::load(&args.input)? {
        Ok(prepared) => prepared,
        Err(refused) => return refused.report(output),
    };
    let mut stdout = out::stdout();
    let mut flips = Flips::default();
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
        let request = prepared.request(check);
        let decision = match &request {
            Ok(request) => prepared.snapshot.decide(request),
            Err(_) => Decision::closed(Reason::InvalidRequest, prepared.snapshot.revision()),
        };
        tally.decision(&decision);
        flips.add(&decision);
        match output {
            Output::Json => json_line(
                &mut stdout,
                &Answer {
                    line: number,
                    decision: &decision,
                },
            )?,
            Output::Human => {
                let asked = request.as_ref().map_or_else(ToString::to_string, summary);
                write_decision(&mut stdout, number, &asked, &decision)?;
            }
        }
        // The one who asks may wait for this answer before asking again.
        stdout.flush()?;
    }
    if output == Output::Human && prepared.has_candidate {
        flips.write_summary(&mut stdout)?;
    }
    stdout.flush()?;
    Ok(tally.exit())
}

/// What became of the requests of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answered {
    requests: u64,
    errors: u64,
    denials: u64,
}

impl Answered {
    /// Counts a decision.
    pub fn decision(&mut self, decision: &Decision) {
        self.requests += 1;
        self.denials += u64::from(!decision.is_allow());
    }

    /// Counts a line that is no request.
    pub fn error(&mut self) {
        self.requests += 1;
        self.errors += 1;
    }

    /// True when something has been answered.
    #[must_use]
    pub fn any(self) -> bool {
        self.requests > 0
    }

    /// The exit code: several requests are a report, only one can be answered with no. Where no
    /// line is a request, nothing could be run.
    #[must_use]
    pub fn exit(self) -> Exit {
        if self.requests == 0 {
            out::report("note: no request in the input; give one CheckRequest in JSON per line");
        }
        if self.requests > 0 && self.errors == self.requests {
            Exit::CouldNotRun
        } else if self.requests == 1 && self.denials == 1 {
            Exit::No
        } else {
            Exit::Yes
        }
    }
}

/// Writes the answer to a line that is no request.
///
/// # Errors
/// When the output cannot be written.
pub fn write_error(
    out: &mut impl Write,
    output: Output,
    line: u64,
    error: &RequestError,
) -> anyhow::Result<()> {
    match output {
        Output::Json => json_line(
            out,
            &Refusal {
                line,
                error: &error.to_string(),
            },
        )?,
        Output::Human => writeln!(out, "{line:>4}  {BAD}error{BAD:#}  {error}")?,
    }
    out.flush()?;
    Ok(())
}

/// Writes one JSON line.
///
/// # Errors
/// When the output cannot be written.
pub fn json_line(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Writes `line  ALLOW  reason  policies  request`, and below it what would change.
///
/// # Errors
/// When the output cannot be written.
pub fn write_decision(
    out: &mut impl Write,
    number: u64,
    asked: &str,
    decision: &Decision,
) -> std::io::Result<()> {
    let style = style(decision.decision);
    writeln!(
        out,
        "{number:>4}  {style}{:<5}{style:#}  {}  {DIM}{}{DIM:#}",
        word(decision.decision),
        because(decision.reason.as_str(), &decision.policies),
        asked,
    )?;
    if !decision.audit.is_empty() {
        writeln!(out, "      {DIM}audit{DIM:#} {}", decision.audit.join(", "))?;
    }
    if let Some(provider) = &decision.provider {
        writeln!(
            out,
            "      {DIM}provider{DIM:#} {provider} {DIM}is to be asked{DIM:#}"
        )?;
    }
    if let Some(trial) = &decision.dry_run {
        let told = because(trial.reason.as_str(), &trial.policies);
        if trial.decision == decision.decision {
            writeln!(
                out,
                "      {DIM}on trial: still {}, {told}{DIM:#}",
                word(trial.decision)
            )?;
        } else {
            writeln!(
                out,
                "      {CAUTION}on trial: {} -> {}{CAUTION:#}  {told}",
                word(decision.decision),
                word(trial.decision)
            )?;
        }
    }
    Ok(())
}

/// `ALLOW` or `DENY`.
#[must_use]
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "ALLOW",
        Verdict::Deny => "DENY",
    }
}

/// Green or red.
#[must_use]
pub fn style(verdict: Verdict) -> anstyle::Style {
    match verdict {
        Verdict::Allow => GOOD,
        Verdict::Deny => BAD,
    }
}

/// `reason`, or `reason policy, policy`.
#[must_use]
pub fn because(reason: &str, policies: &[String]) -> String {
    if policies.is_empty() {
        reason.to_owned()
    } else {
        format!("{reason} {}", policies.join(", "))
    }
}

/// A request in a few words: `GET shop.example/books from spiffe://… to 10.0.0.1:8080`.
#[must_use]
pub fn summary(request: &Request) -> String {
    let mut text = match &request.http {
        Some(http) => clipped(&format!("{} {}{}", http.method, http.host, http.path)),
        None => "connect".to_owned(),
    };
    let source = request
        .source
        .identities
        .first()
        .map(|identity| {
            clipped(
                identity
                    .value
                    .strip_prefix("spiffe://")
                    .unwrap_or(&identity.value),
            )
        })
        .or_else(|| request.source.address.map(|address| address.to_string()));
    if let Some(source) = source {
        text.push_str(" from ");
        text.push_str(&source);
    }
    let destination = request
        .destination
        .workload
        .as_deref()
        .map(clipped)
        .or_else(|| {
            let address = request.destination.address?;
            Some(match request.destination.port {
                Some(port) => std::net::SocketAddr::new(address, port).to_string(),
                None => address.to_string(),
            })
        });
    if let Some(destination) = destination {
        text.push_str(" to ");
        text.push_str(&destination);
    }
    text
}

/// `text` without control characters (a terminal would obey them), cut at 80 characters.
#[must_use]
pub fn clipped(text: &str) -> String {
    let mut clipped: String = text
        .chars()
        .take(80)
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect();
    if text.chars().nth(80).is_some() {
        clipped.push('…');
    }
    clipped
}

/// Requests whose verdict would change, by the rule that changes it.
#[derive(Debug, Default)]
struct Flips {
    decided: u64,
    by_rule: BTreeMap<(&'static str, String), u64>,
}

impl Flips {
    fn add(&mut self, decision: &Decision) {
        self.decided += 1;
        let Some(trial) = &decision.dry_run else {
            return;
        };
        if trial.decision == decision.decision {
            return;
        }
        let direction = match trial.decision {
            Verdict::Allow => "DENY -> ALLOW",
            Verdict::Deny => "ALLOW -> DENY",
        };
        let rule = because(
            trial.reason.as_str(),
            trial.policies.get(..1).unwrap_or_default(),
        );
        *self.by_rule.entry((direction, rule)).or_default() += 1;
    }

    fn write_summary(&self, out: &mut impl Write) -> std::io::Result<()> {
        let total: u64 = self.by_rule.values().sum();
        writeln!(
            out,
            "\n{BOLD}{total} of {} decisions would change{BOLD:#}",
            self.decided
        )?;
        for ((direction, rule), number) in &self.by_rule {
            writeln!(out, "{number:>6}  {CAUTION}{direction}{CAUTION:#}  {rule}")?;
        }
        Ok(())
    }
}
