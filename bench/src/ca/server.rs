//! `portcullis ca serve` on a folder that goes when the measurement is over.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::channel::Channel;
use super::protocol::{CREATE, CreateEntries, DELETE, DeleteEntries, Entry, Results};
use crate::contender::Contender;

/// A process that does not serve by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running certificate authority.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Contender,
    executable: PathBuf,
    folder: TempDir,
    /// From the start of the process until it let somebody in.
    pub took: Duration,
}

impl Server {
    /// Starts one on a new folder.
    pub async fn start(executable: &Path) -> anyhow::Result<Self> {
        Self::start_on(executable, tempfile::tempdir()?).await
    }

    async fn start_on(executable: &Path, folder: TempDir) -> anyhow::Result<Self> {
        let mut command = Command::new(executable);
        command
            .args([
                "ca",
                "serve",
                "--trust-domain",
                super::TRUST_DOMAIN,
                "--data",
            ])
            .arg(folder.path());
        let start = Instant::now();
        let process = Contender::start(command, 0)?;
        let socket = folder.path().join("workload.sock");
        while Channel::open(&socket).await.is_err() {
            ensure!(start.elapsed() < PATIENCE, "`ca serve` does not serve");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Self {
            process,
            executable: executable.to_owned(),
            took: start.elapsed(),
            folder,
        })
    }

    /// Ends it and starts another one on the same folder.
    pub async fn restart(self) -> anyhow::Result<Self> {
        let Self {
            process,
            executable,
            folder,
            ..
        } = self;
        drop(process);
        Self::start_on(&executable, folder).await
    }

    /// The socket of the Workload API.
    pub fn workloads(&self) -> PathBuf {
        self.folder.path().join("workload.sock")
    }

    /// The socket of the operator.
    pub fn operator(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// Connects as a workload.
    pub async fn workload(&self) -> anyhow::Result<Channel> {
        Channel::open(&self.workloads()).await
    }

    /// Connects as the operator.
    pub async fn admin(&self) -> anyhow::Result<Channel> {
        Channel::open(&self.operator()).await
    }

    /// Runs `portcullis ca WORDS` against it.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.executable);
        let command = command
            .arg("ca")
            .args(words)
            .arg("--data")
            .arg(self.folder.path());
        let output = command.output()?;
        ensure!(
            output.status.success(),
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Resident memory, bytes.
    pub fn resident(&self) -> anyhow::Result<f64> {
        Ok(self.process.resident()? as f64)
    }

    /// Creates entries, all of them or an error.
    pub async fn create(&self, entries: Vec<Entry>) -> anyhow::Result<()> {
        let count = entries.len();
        let request = CreateEntries { entries };
        checked(self.admin().await?.unary(CREATE, &request).await?, count)
    }

    /// Deletes entries, all of them or an error.
    pub async fn delete(&self, ids: Vec<String>) -> anyhow::Result<()> {
        let count = ids.len();
        let request = DeleteEntries { ids };
        checked(self.admin().await?.unary(DELETE, &request).await?, count)
    }
}

fn checked(answer: Results, count: usize) -> anyhow::Result<()> {
    ensure!(
        answer.results.len() == count,
        "{} results for {count} items",
        answer.results.len()
    );
    for result in answer.results {
        let status = result.status.context("no status")?;
        ensure!(status.code == 0, "an item was refused: {}", status.message);
    }
    Ok(())
}
