//! Programs started by tests: each with a time limit, none left behind.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How often a waiting loop looks again.
const POLL: Duration = Duration::from_millis(10);

/// Runs a program to its end and returns what it printed; standard input is closed.
///
/// # Errors
/// The program cannot be started, or runs longer than `limit` (it and its children are killed).
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Output> {
    run_with_input(command, &[], limit)
}

/// Like [`run`], with `input` on standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &[u8], limit: Duration) -> io::Result<Output> {
    let stdin = if input.is_empty() {
        Stdio::null()
    } else {
        Stdio::piped()
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|cause| io::Error::new(cause.kind(), format!("`{}`: {cause}", shown(command))))?;
    if let Some(mut pipe) = child.stdin.take() {
        let input = input.to_vec();
        // A program that ends without reading its input is judged by its status, not by our broken pipe.
        thread::spawn(move || drop(io::Write::write_all(&mut pipe, &input)));
    }
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let Some(status) = wait(&mut child, limit)? else {
        kill_group(&mut child);
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "`{}` ran longer than {} s and was killed",
                shown(command),
                limit.as_secs()
            ),
        ));
    };
    let collected = |reader: thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Output {
        status,
        stdout: collected(stdout),
        stderr: collected(stderr),
    })
}

/// A program that serves until it is dropped. Its output goes to a log file.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` in a process group of its own, standard output and error appended to `log`.
    ///
    /// # Errors
    /// The log file cannot be opened or the program cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        Self::start_with(command, log, Stdio::null())
    }

    /// The same with a standard input that is open for as long as this is: for programs that end with it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_attached(command: &mut Command, log: &Path) -> io::Result<Self> {
        // The other end of the pipe is in `child`.
        Self::start_with(command, log, Stdio::piped())
    }

    fn start_with(command: &mut Command, log: &Path, input: Stdio) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let err = out.try_clone()?;
        let child = command
            .stdin(input)
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .map_err(|cause| {
                io::Error::new(cause.kind(), format!("`{}`: {cause}", shown(command)))
            })?;
        Ok(Self {
            child,
            name: shown(command),
            log: log.to_owned(),
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// The program ended first, or `limit` passed; the message carries the end of its log.
    pub fn wait_until(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!(
                    "`{}` ended early, {status}\n{}",
                    self.name,
                    self.log_end()
                )));
            }
            if ready() {
                return Ok(());
            }
            if start.elapsed() > limit {
                let text = format!(
                    "`{}` was not ready after {} s\n{}",
                    self.name,
                    limit.as_secs(),
                    self.log_end()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            thread::sleep(POLL);
        }
    }

    /// Asks the program to end (SIGTERM) and waits; `None` if it did not within `limit`.
    ///
    /// # Errors
    /// The operating system refuses to say.
    pub fn terminate(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        signal(&self.child, Signal::TERM);
        wait(&mut self.child, limit)
    }

    /// Kills the program at once and reaps it.
    pub fn kill(&mut self) {
        kill_group(&mut self.child);
    }

    /// Kills the program but none of its children, as the system does when memory is short.
    pub fn kill_alone(&mut self) {
        // It may have ended already: then there is nothing to kill.
        let _gone = self.child.kill();
        drop(self.child.wait());
    }

    /// The whole log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines
            .iter()
            .skip(lines.len().saturating_sub(40))
            .copied()
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// Looks every few milliseconds until `done` gives a value; `None` when `limit` passed first.
pub fn poll<T>(limit: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return Some(value);
        }
        if start.elapsed() > limit {
            return None;
        }
        thread::sleep(POLL);
    }
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

fn signal(child: &Child, signal: Signal) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // The group may be gone already: then there is nothing to end.
        let _gone = kill_process_group(group, signal);
    }
}

fn kill_group(child: &mut Child) {
    signal(child, Signal::KILL);
    drop(child.wait());
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            drop(pipe.read_to_end(&mut bytes));
        }
        bytes
    })
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_its_input_and_gives_its_output() {
        let output = run_with_input(
            &mut Command::new("cat"),
            b"through",
            Duration::from_secs(10),
        )
        .unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, b"through");
    }

    #[test]
    fn a_program_that_outlives_its_limit_is_killed_with_its_children() {
        let start = Instant::now();
        let error = run(
            Command::new("sh").args(["-c", "sleep 60 & sleep 60"]),
            Duration::from_millis(200),
        )
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "killing the group closes its pipes"
        );
    }

    #[test]
    fn a_daemon_that_ends_early_is_reported_with_its_log() {
        let folder = crate::component::run_folder("process-early-end");
        let mut command = Command::new("sh");
        command.args(["-c", "echo why it ended; exit 3"]);
        let mut daemon = Daemon::start(&mut command, &folder.join("log")).unwrap();
        let error = daemon
            .wait_until(Duration::from_secs(10), || false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("why it ended") && error.contains("ended early"),
            "{error}"
        );
    }
}
