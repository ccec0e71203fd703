//! Workloads before the certificate authority: programs in several languages that do what they are told.

pub mod ca;
pub mod rust;
pub mod served;

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::component::SpiffeClient;

/// A virtual machine starts slowly on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// A running workload. Orders are lines, answers JSON objects:
///
/// | order | answer |
/// |---|---|
/// | `svid` | `id`, `serial`, `roots` of what it has |
/// | `changed SERIAL` | the same, once the serial number is another one |
/// | `jwt AUDIENCE` | `id`, `token` |
/// | `verify AUDIENCE TOKEN` | `id`, by the keys it has |
/// | `validate AUDIENCE TOKEN` | `id`, by the Workload API |
/// | `listen` | `address`, where it says `pong` over mTLS |
/// | `dial ADDRESS ID` | `said`, what the workload ID said over mTLS |
pub trait Workload {
    /// Its language.
    fn language(&self) -> &'static str;

    /// Does what it is told.
    ///
    /// # Errors
    /// It cannot, and says why; or it does not answer in time.
    fn ask(&mut self, order: &str) -> io::Result<Value>;
}

/// A workload that is a process.
#[derive(Debug)]
pub struct WorkloadProcess {
    language: &'static str,
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl WorkloadProcess {
    /// Starts `client` before the Workload API on `socket`; what it complains of goes to `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(client: &SpiffeClient, socket: &Path, log: &Path) -> io::Result<Self> {
        let [program, arguments @ ..] = &client.command[..] else {
            return Err(io::Error::other("an empty command"));
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(format!("unix:{}", socket.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log)?);
        if let Some(path) = &client.python_path {
            command.env("PYTHONPATH", path);
        }
        let mut child = command.spawn()?;
        let (Some(orders), Some(said)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            language: client.language,
            child,
            orders,
            answers,
        })
    }
}

impl Workload for WorkloadProcess {
    fn language(&self) -> &'static str {
        self.language
    }

    fn ask(&mut self, order: &str) -> io::Result<Value> {
        writeln!(self.orders, "{order}")?;
        let line = self.answers.recv_timeout(LIMIT).map_err(io::Error::other)?;
        let answer: Value = serde_json::from_str(&line)?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(io::Error::other(format!(
                "{}: `{}`: {error}",
                self.language,
                order.chars().take(60).collect::<String>()
            ))),
            None => Ok(answer),
        }
    }
}

impl Drop for WorkloadProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
