//! `portcullis authz tail`: the decisions of a running service, as they happen.

use std::io::Write;
use std::time::Duration;

use portcullis_authz::endpoint::Endpoint;
use portcullis_policy::decision::Decision;
use portcullis_policy::explain::Explanation;
use serde::Deserialize;

use super::management::{self, Lines};
use super::serve::runtime;
use crate::args::{Output, TailArgs};
use crate::exit::Exit;
use crate::out::{self, CAUTION, DIM};
use crate::policy::decide::{because, clipped, style, word};
use crate::policy::explain::write_story;
use crate::shutdown;

/// Rest between attempts to reach a service that went away.
const AGAIN: Duration = Duration::from_secs(1);

/// One line of the service's stream, as far as people are shown it.
#[derive(Debug, Deserialize)]
pub struct Told {
    /// RFC 3339.
    #[serde(default)]
    pub time: String,
    #[serde(default)]
    source: Source,
    #[serde(default)]
    destination: Destination,
    method: Option<String>,
    host: Option<String>,
    path: Option<String>,
    /// The verdict and its reasons.
    #[serde(flatten)]
    pub decision: Decision,
    error: Option<String>,
    #[serde(default)]
    duration_us: u64,
    explanation: Option<Explanation>,
}

#[derive(Debug, Default, Deserialize)]
struct Source {
    principal: Option<String>,
    address: Option<String>,
    remote_address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Destination {
    workload: Option<String>,
    address: Option<String>,
    port: Option<u16>,
}

/// Decisions that came faster than they were taken.
#[derive(Debug, Deserialize)]
struct Lost {
    lost: u64,
}

impl Told {
    /// Who asked: its SPIFFE ID without the scheme, else its address.
    #[must_use]
    pub fn source(&self) -> String {
        let source = &self.source;
        let known = source.principal.as_deref().map(|id| {
            let id = id.strip_prefix("spiffe://").unwrap_or(id);
            clipped(id)
        });
        let address = || {
            source
                .remote_address
                .as_deref()
                .or(source.address.as_deref())
        };
        known
            .or_else(|| address().map(clipped))
            .unwrap_or_else(|| "unknown".to_owned())
    }

    /// Who was asked: its workload, else its address.
    #[must_use]
    pub fn destination(&self) -> String {
        let destination = &self.destination;
        let Some(place) = destination
            .workload
            .as_deref()
            .or(destination.address.as_deref())
        else {
            return "unknown".to_owned();
        };
        match destination.port {
            Some(port) => format!("{}:{port}", clipped(place)),
            None => clipped(place),
        }
    }

    /// What was asked: `GET shop.example/books`.
    #[must_use]
    pub fn asked(&self) -> String {
        let Some(method) = self.method.as_deref() else {
            return match &self.error {
                Some(error) => clipped(error),
                None => "connect".to_owned(),
            };
        };
        let host = self.host.as_deref().unwrap_or_default();
        let path = self.path.as_deref().unwrap_or_default();
        clipped(&format!("{method} {host}{path}"))
    }
}

/// Follows until Ctrl-C, or until `--count` decisions were told. A service that goes away is waited for.
///
/// # Errors
/// When the service cannot be reached at first, or the output cannot be written.
pub fn run(args: &TailArgs, output: Output) -> anyhow::Result<Exit> {
    let endpoint = management::endpoint(&args.management)?;
    runtime()?.block_on(async {
        let stop = shutdown::signal()?;
        tokio::select! {
            followed = follow(args, output, &endpoint) => followed?,
            () = stop => {}
        }
        anyhow::Ok(())
    })?;
    Ok(Exit::Yes)
}

async fn follow(args: &TailArgs, output: Output, endpoint: &Endpoint) -> anyhow::Result<()> {
    let path = format!("/decisions?denied={}&explain={}", args.denied, args.explain);
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut stdout = out::stdout();
    let mut lines = Lines::of(management::open(endpoint, &path).await?);
    while left > 0 {
        match lines.next().await {
            Ok(Some(line)) => {
                if tell(&mut stdout, output, &line)? {
                    left -= 1;
                }
                stdout.flush()?;
                if out::reader_gone() {
                    break;
                }
            }
            ended => {
                let why = ended
                    .err()
                    .map(|error| format!(": {error:#}"))
                    .unwrap_or_default();
                out::report(format_args!(
                    "note: `{endpoint}` is gone{why}; waiting for it"
                ));
                lines = loop {
                    tokio::time::sleep(AGAIN).await;
                    if let Ok(response) = management::open(endpoint, &path).await {
                        break Lines::of(response);
                    }
                };
                out::report(format_args!("note: `{endpoint}` is back"));
            }
        }
    }
    Ok(())
}

/// Writes one line of the stream; true when it was a decision.
fn tell(out: &mut impl Write, output: Output, line: &[u8]) -> anyhow::Result<bool> {
    if let Ok(Lost { lost }) = serde_json::from_slice(line) {
        match output {
            Output::Json => write_line(out, line)?,
            Output::Human => writeln!(
                out,
                "{CAUTION}... {lost} more came faster than they could be told{CAUTION:#}"
            )?,
        }
        return Ok(false);
    }
    match (output, serde_json::from_slice::<Told>(line)) {
        (Output::Human, Ok(told)) => write(out, &told)?,
        // Of a service that is newer than this command: as it came.
        (Output::Json, _) | (Output::Human, Err(_)) => write_line(out, line)?,
    }
    Ok(true)
}

fn write_line(out: &mut impl Write, line: &[u8]) -> std::io::Result<()> {
    out.write_all(line)?;
    out.write_all(b"\n")
}

fn write(out: &mut impl Write, told: &Told) -> std::io::Result<()> {
    let decision = &told.decision;
    let style = style(decision.decision);
    // `2026-01-31T12:00:01.234567Z`: the day is in the JSON form.
    let time = told.time.get(11..23).unwrap_or(&told.time);
    writeln!(
        out,
        "{DIM}{}{DIM:#}  {style}{:<5}{style:#}  {}  {} from {} to {}  {DIM}{} us{DIM:#}",
        clipped(time),
        word(decision.decision),
        because(decision.reason.as_str(), &decision.policies),
        told.asked(),
        told.source(),
        told.destination(),
        told.duration_us,
    )?;
    if let Some(trial) = &decision.dry_run
        && trial.decision != decision.decision
    {
        writeln!(
            out,
            "      {CAUTION}on trial: {} -> {}{CAUTION:#}  {}",
            word(decision.decision),
            word(trial.decision),
            because(trial.reason.as_str(), &trial.policies)
        )?;
    }
    if let Some(story) = &told.explanation {
        let mut text = Vec::new();
        write_story(&mut text, story, false)?;
        for line in String::from_utf8_lossy(&text).lines() {
            writeln!(out, "      {line}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
