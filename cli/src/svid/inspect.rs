//! `portcullis svid inspect`: certificates, bundles and tokens in words.

use std::io::{self, Read as _, Write};
use std::path::Path;

use anyhow::Context as _;
use portcullis_ca::bundle::MAX_DOCUMENT;
use portcullis_ca::clock::{Clock as _, SystemClock};
use portcullis_ca::inspect::{self, Found};
use serde_json::{Value, json};

use super::args::InspectArgs;
use crate::args::Output;
use crate::ca::client::report;
use crate::exit::Exit;
use crate::out::{self, BAD, BOLD, DIM};

/// Reads and tells; exit code 2 when a clause is broken.
///
/// # Errors
/// When the file cannot be read.
pub fn run(args: &InspectArgs, output: Output) -> anyhow::Result<Exit> {
    let bytes = read(&args.file)?;
    let found = match inspect::inspect(&bytes, SystemClock.now()) {
        Ok(found) => found,
        Err(error) => {
            report(&format!("`{}`: {error}", args.file.display()));
            return Ok(Exit::No);
        }
    };
    let mut stdout = out::stdout();
    for (index, one) in found.iter().enumerate() {
        match output {
            Output::Human => {
                if index > 0 {
                    writeln!(stdout)?;
                }
                human(&mut stdout, one)?;
            }
            Output::Json => writeln!(stdout, "{}", to_json(one))?,
        }
    }
    stdout.flush()?;
    Ok(match found.iter().all(|one| one.problems.is_empty()) {
        true => Exit::Yes,
        false => Exit::No,
    })
}

/// What is in a file, or on standard input; more than the longest document is not read.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let limit = u64::try_from(MAX_DOCUMENT).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => io::stdin().take(limit + 1).read_to_end(&mut bytes),
        false => {
            std::fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        }
    };
    read.with_context(|| format!("cannot read `{name}`"))?;
    anyhow::ensure!(
        bytes.len() <= MAX_DOCUMENT,
        "`{name}` is longer than 8 MiB, which nothing of this is"
    );
    Ok(bytes)
}

fn human(out: &mut impl Write, found: &Found) -> io::Result<()> {
    writeln!(out, "{BOLD}{}{BOLD:#}", found.kind)?;
    let width = found.facts.iter().map(|(name, _)| name.len()).max();
    for (name, value) in &found.facts {
        writeln!(out, "  {name:<width$}  {value}", width = width.unwrap_or(0))?;
    }
    for problem in &found.problems {
        writeln!(out, "  {BAD}wrong{BAD:#}: {problem}")?;
    }
    for note in &found.notes {
        writeln!(out, "  {DIM}note: {note}{DIM:#}")?;
    }
    Ok(())
}

fn to_json(found: &Found) -> Value {
    let mut facts = serde_json::Map::new();
    for (name, value) in &found.facts {
        let name = name.to_ascii_lowercase().replace([' ', '.'], "_");
        match facts.entry(name) {
            serde_json::map::Entry::Vacant(place) => {
                place.insert(value.as_str().into());
            }
            // A fact that stands several times is a list.
            serde_json::map::Entry::Occupied(mut place) => match place.get_mut() {
                Value::Array(all) => all.push(value.as_str().into()),
                one => *one = Value::Array(vec![one.take(), value.as_str().into()]),
            },
        }
    }
    json!({
        "kind": found.kind,
        "facts": facts,
        "problems": found.problems,
        "notes": found.notes,
    })
}
