//! `portcullis ca audit`: the journal, read from the data folder whether or not a server runs.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use portcullis_ca::journal::{self, read};
use serde_json::json;

use super::args::{AuditCommand, DataArg};
use super::{client, options};
use crate::args::Output;
use crate::exit::Exit;
use crate::out;

/// Time between two looks at the file's end.
const FOLLOW: Duration = Duration::from_millis(200);

/// Runs one verb.
///
/// # Errors
/// When the journal cannot be read.
pub fn run(command: AuditCommand, output: Output) -> anyhow::Result<Exit> {
    match command {
        AuditCommand::Verify(data) => verify(&data, output),
        AuditCommand::Export(data) => export(&data),
        AuditCommand::Tail {
            data,
            lines,
            follow,
        } => tail(&data, lines, follow),
    }
}

fn open(data: &DataArg) -> anyhow::Result<(PathBuf, BufReader<File>)> {
    let path = journal::path_in(&options::data(data)?);
    let file = File::open(&path)
        .with_context(|| format!("cannot read the journal `{}`", path.display()))?;
    Ok((path, BufReader::new(file)))
}

fn verify(data: &DataArg, output: Output) -> anyhow::Result<Exit> {
    let (path, journal) = open(data)?;
    let verified = match read::verify(journal, |_, _| {}) {
        Ok(verified) => verified,
        Err(read::VerifyError::Io(cause)) => {
            return Err(cause)
                .with_context(|| format!("cannot read the journal `{}`", path.display()));
        }
        Err(broken) => {
            client::report(&format!("`{}`: {broken}", path.display()));
            return Ok(Exit::No);
        }
    };
    let mut stdout = out::stdout();
    match output {
        Output::Human => {
            writeln!(stdout, "{} records, the chain is whole", verified.records)?;
            writeln!(stdout, "head {}", verified.head)?;
            if verified.unfinished {
                writeln!(
                    stdout,
                    "the last line has no end: it is being written, or a crash left it; nobody was told of it"
                )?;
            }
        }
        Output::Json => {
            let line = json!({
                "records": verified.records, "head": verified.head, "unfinished": verified.unfinished,
            });
            writeln!(stdout, "{line}")?;
        }
    }
    stdout.flush()?;
    Ok(Exit::Yes)
}

fn export(data: &DataArg) -> anyhow::Result<Exit> {
    let (path, journal) = open(data)?;
    let mut stdout = out::stdout();
    let mut written = Ok(());
    let verified = read::verify(journal, |_, text| {
        if written.is_ok() {
            written = writeln!(stdout, "{text}");
        }
    });
    written?;
    stdout.flush()?;
    match verified {
        Ok(_) => Ok(Exit::Yes),
        Err(broken) => {
            client::report(&format!(
                "`{}`: {broken}; nothing after it was exported",
                path.display()
            ));
            Ok(Exit::No)
        }
    }
}

fn tail(data: &DataArg, lines: usize, follow: bool) -> anyhow::Result<Exit> {
    let (_, mut journal) = open(data)?;
    let mut last: VecDeque<String> = VecDeque::new();
    let mut stdout = out::stdout();
    let mut end = 0;
    let mut line = String::new();
    loop {
        line.clear();
        let read = journal.read_line(&mut line)?;
        if read == 0 || !line.ends_with('\n') {
            break;
        }
        end += read as u64;
        last.push_back(std::mem::take(&mut line));
        if last.len() > lines {
            last.pop_front();
        }
    }
    for line in &last {
        write!(stdout, "{line}")?;
    }
    stdout.flush()?;
    if !follow {
        return Ok(Exit::Yes);
    }
    loop {
        std::thread::sleep(FOLLOW);
        // From the end of the last whole line: a half-written one is read again.
        journal.seek(SeekFrom::Start(end))?;
        loop {
            line.clear();
            let read = journal.read_line(&mut line)?;
            if read == 0 || !line.ends_with('\n') {
                break;
            }
            end += read as u64;
            write!(stdout, "{line}")?;
        }
        stdout.flush()?;
    }
}
