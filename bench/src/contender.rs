//! A contender: a process of its own that listens on loopback.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Thousands of policies are compiled before anybody listens.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running contender, killed when dropped.
#[derive(Debug)]
pub struct Contender {
    child: Child,
    /// Where it listens: one address for each listener.
    pub addresses: Vec<SocketAddr>,
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Contender {
    /// Starts `command` and waits until it has said where its `listeners` are.
    pub fn start(mut command: Command, listeners: usize) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let log = child.stderr.take().context("no standard error")?;
        let (sender, said) = mpsc::channel();
        // Read to its end: a contender must not wait for a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut contender = Self {
            child,
            addresses: Vec::new(),
        };
        while contender.addresses.len() < listeners {
            let Ok(line) = said.recv_timeout(PATIENCE) else {
                bail!("a contender did not say where it listens");
            };
            let line: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            let text = |name: &str| line.get(name).and_then(Value::as_str);
            if text("message") == Some("listening") {
                let address = text("endpoint").context("no endpoint")?;
                contender.addresses.push(address.parse()?);
            }
        }
        Ok(contender)
    }

    /// One of the servers that decide nothing.
    pub fn null(name: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(name);
        Self::start(command, 1)
    }

    /// `authz serve` with this configuration.
    pub fn portcullis(executable: &Path, config: &Path, listeners: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(executable);
        command.args(["authz", "serve", "--config"]).arg(config);
        Self::start(command, listeners)
    }

    /// The address of a listener.
    pub fn address(&self, listener: usize) -> anyhow::Result<SocketAddr> {
        let address = self.addresses.get(listener).copied();
        address.context("no such listener")
    }

    /// Processor time so far, of all its threads.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name before the last parenthesis may hold anything.
        let (_, fields) = stat.rsplit_once(')').context("no process name")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap_or(0)).sum();
        // USER_HZ is 100 on every Linux that we run on.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let line = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
        Ok(line.parse::<u64>()? << 10)
    }
}
